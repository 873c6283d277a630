"""Embeds a source into a folder, segment by segment: killed, it goes on where it was."""

from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from transformers import PreTrainedModel

from ..core.atomic import UNFINISHED
from ..core.errors import InputError
from ..core.json_files import flattened
from ..core.segments import SEGMENTS, VECTORS, embed_by_segment
from ..data.images import broken_picture
from ..data.sources import Source
from ..models.processing_hf_clip import HFClipProcessor
from .encode import EmbeddedBatch, embed_batches
from .manifest import MANIFEST, SAME, Counts, EmbeddingManifest, read_manifest
from .options import EmbedOptions
from .provenance import describe
from .store import CAPTION_VECTORS, EmbeddingStore

Part = tuple[EmbeddedBatch, list[tuple[int, str, str]]]  # a batch, and (row, name, reason) of what was skipped


def write_embeddings(
    model: PreTrainedModel,
    processor: HFClipProcessor,
    source: Source,
    folder: str | Path,
    options: EmbedOptions | None = None,
    *,
    model_name: str = "",
    segment_size: int = 10_000,
) -> EmbeddingManifest:
    """Embeds every picture of a source and its captions into a folder; what is there already and whole is kept.

    Where several processes run it (`accelerate launch`), each writes its share of the segments. The files are the same
    bits whatever the number of processes, resumed or not, for the same `batch_size` and number of CPU threads.

    Args:
        model_name: Hub id or folder; of a folder only the last part is kept.
        segment_size: source rows of each.

    Returns:
        The manifest, complete.

    Raises:
        InputError: the folder holds something else, or embeddings of another model, preprocessing, data or segment
            size; with `strict`, a picture cannot be read; the disk is full.
    """
    options, state = options or EmbedOptions(), processes()
    store = EmbeddingStore(Path(folder), describe(model, processor, source, model_name, segment_size))
    if state.is_main_process:
        _prepare(store)
    state.wait_for_everyone()
    own = replace(options, progress=options.progress and state.is_local_main_process)
    embed = partial(embed_batches, model, processor, source, options=own)
    missing = store.missing(state.process_index, state.num_processes)
    for rows, parts in embed_by_segment(missing, options.batch_size, embed):
        _write_segment(store, rows, parts, source)
    state.wait_for_everyone()
    manifest = _completed(store)
    if options.strict and manifest.skipped:  # by a pass before this one, which was not strict
        raise broken_picture(*manifest.skipped[0])
    if state.is_main_process:
        manifest.write(store.folder / MANIFEST)
    state.wait_for_everyone()
    return manifest


def processes() -> Any:
    """Which of how many processes this is; `accelerate` knows it from whoever started them."""
    from accelerate import PartialState

    # Segments differ in how long they take: no process gives up on the slowest.
    return PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(days=30))


def _prepare(store: EmbeddingStore) -> None:
    """Leaves the folder with this pass's manifest."""
    folder = store.folder
    if (folder / MANIFEST).is_file():
        _check_same(folder, read_manifest(folder), store.manifest)
        return
    if folder.is_dir() and any(file.is_file() and file.suffix != UNFINISHED for file in folder.rglob("*")):
        raise InputError(f"{folder} is not empty and holds no embeddings: give another folder")
    try:
        (folder / SEGMENTS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror}: give another folder") from error
    store.manifest.write(folder / MANIFEST)


def _check_same(folder: Path, before: EmbeddingManifest, now: EmbeddingManifest) -> None:
    old, new = flattened(before.to_json()), flattened(now.to_json())
    for field in sorted(old.keys() | new.keys()):
        if field.split(".")[0] in SAME and old.get(field) != new.get(field):
            raise InputError(
                f"{folder} was begun with {field} {old.get(field)!r}, not {new.get(field)!r}: "
                "give the same settings to go on, or another folder"
            )


def _write_segment(store: EmbeddingStore, rows: range, parts: list[Part], source: Source) -> None:
    batches = [batch for batch, _ in parts]
    vectors = {
        VECTORS: torch.cat([batch.image_embeds for batch in batches]),
        CAPTION_VECTORS: torch.cat([batch.text_embeds for batch in batches]),
    }
    table = pa.concat_tables([_rows_of(batch, source) for batch in batches])
    halves = {name: embeds.half().numpy() for name, embeds in vectors.items()}
    store.write(rows, table, halves, skipped=[entry for _, skipped in parts for entry in skipped])


def _rows_of(part: EmbeddedBatch, source: Source) -> pa.Table:
    assert part.captions_cut is not None, "our own collator counts them"
    records = [source.rows[row] for row in part.rows.tolist()]
    captions = [caption for record in records for caption in source.captions_of(record)]
    starts = pa.array([0, *part.caption_counts.cumsum(0).tolist()], pa.int32())
    columns = {
        "id": pa.array([source.row_number(row) for row in part.rows.tolist()], pa.int64()),
        "path": pa.array([_path(source, record) for record in records], pa.string()),
        "caption": pa.ListArray.from_arrays(starts, pa.array(captions, pa.string())),
        "image_id": pa.array(part.image_ids.numpy()),
        "caption_ids": pa.ListArray.from_arrays(starts, pa.array(part.caption_ids.numpy())),
        "captions_cut": pa.ListArray.from_arrays(starts, pa.array(part.captions_cut.numpy())),
    }
    if source.label_column:
        columns["label"] = pa.array([source.label_of(record) for record in records], _label_type(source))
    return pa.table(columns)


def _label_type(source: Source) -> pa.DataType:
    """The same for every batch, of which one may have no label, or empty lists."""
    label = source.label_of(source.rows[0])
    kind = pa.string() if isinstance(label, str) else pa.int64()
    return pa.list_(kind) if isinstance(label, list) else kind


def _path(source: Source, record: dict[str, Any]) -> str | None:
    value = record[source.image_column]
    value = value.get("path") if isinstance(value, dict) else value
    return value if isinstance(value, str) else None


def _completed(store: EmbeddingStore) -> EmbeddingManifest:
    """What the manifest says once all segments are there."""
    images = captions = 0
    skipped: list[tuple[int, str, str]] = []
    for segment in store:
        images += len(segment)
        captions += len(segment.arrays[CAPTION_VECTORS])
        skipped += [(row, name, reason) for row, name, reason in segment.facts["skipped"]]
    if not images:
        _, name, reason = skipped[0]
        raise InputError(f"not one picture could be read; the first: {name}, {reason}: nothing to embed")
    counts = Counts(images, captions, len(skipped), len(store))
    return replace(store.manifest, complete=True, counts=counts, skipped=skipped)
