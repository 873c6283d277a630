"""A folder of embeddings: parquet shards of so many source rows each, resumable, with a manifest of what made them.

`manifest.json` stands beside `shards/rows-FIRST-PAST_THE_LAST.parquet`. A shard has one row a picture: id (its row in
what the user gave, as in `skipped`), path, caption (list), image_embeds and text_embeds (float16, unit length),
image_id (digest of the content), caption_ids (digests of the tokens), captions_cut, and the label where the source has
one.
"""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from transformers import PreTrainedModel

from ..core.atomic import UNFINISHED, replace_file
from ..core.digests import digest_of, tensors_digest, tokenizer_digest
from ..core.errors import InputError, first_line
from ..core.public import public_name
from ..data.columns import is_bytes, label_numbers, struct_field
from ..data.images import broken_picture
from ..data.sources import Source
from ..data.split import content_keys
from ..models.processing_hf_clip import HFClipProcessor
from .encode import EmbeddedBatch, Embeddings, collator_of, embed_batches, split_rows

MANIFEST = "manifest.json"
SHARDS = "shards"  # a folder with nothing but parquet, which pandas and pyarrow read as one table
FORMAT = 2  # 1 had digests of the captions' letters
_FACTS = b"hf_clip"  # key of a shard's own metadata
# What a resumed pass must have in common with the one before it.
_SAME = ("format", "model", "preprocessing", "dimension", "data", "class_names", "rows", "shard_size")


def write_embeddings(
    model: PreTrainedModel,
    processor: HFClipProcessor,
    source: Source,
    folder: str | Path,
    *,
    model_name: str = "",
    shard_size: int = 10_000,
    batch_size: int = 64,
    num_workers: int = 0,
    strict: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Embeds every picture of a source and its captions into a folder; what is there already and whole is kept.

    Where several processes run it (`accelerate launch`), each writes its share of the shards. The files are the same
    bits whatever the number of processes, resumed or not, for the same `batch_size` and number of CPU threads.

    Args:
        model_name: Hub id or folder; of a folder only the last part is kept.
        shard_size: source rows of a shard.

    Returns:
        The manifest, complete.

    Raises:
        InputError: the folder holds something else, or embeddings of another model, preprocessing, data or shard
            size; with `strict`, a picture cannot be read; the disk is full.
    """
    state = processes()
    folder = Path(folder)
    manifest = describe(model, processor, source, model_name, shard_size)
    if state.is_main_process:
        _prepare(folder, manifest)
    state.wait_for_everyone()
    shards = split_rows(range(len(source)), shard_size)
    missing = [rows for rows in shards[state.process_index :: state.num_processes] if not _is_whole(folder, rows)]
    settings: dict[str, Any] = {
        "num_workers": num_workers,
        "strict": strict,
        "progress": progress and state.is_local_main_process,
    }
    schema = _schema(source, manifest["dimension"])
    batches = [batch for rows in missing for batch in split_rows(rows, batch_size)]
    embedded = embed_batches(model, processor, source, batches, **settings)
    for rows in missing:
        parts = [next(embedded) for _ in split_rows(rows, batch_size)]
        _write_shard(folder, rows, parts, source, schema)
    state.wait_for_everyone()
    manifest |= _outcome(folder, shards)
    if strict and manifest["skipped"]:  # by a pass before this one, which was not strict
        raise broken_picture(*manifest["skipped"][0])
    if state.is_main_process:
        write_manifest(folder, manifest)
    state.wait_for_everyone()
    return manifest


def processes() -> Any:
    """Which of how many processes this is; `accelerate` knows it from whoever started them."""
    from accelerate import PartialState

    # Shards differ in how long they take: no process gives up on the slowest.
    return PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(days=30))


def open_embeddings(folder: str | Path) -> Embeddings:
    """What `write_embeddings` left, as fp32; unit length as far as float16 holds it.

    `image_rows` are the rows in what was given: of a split, its rows in the whole.

    Raises:
        InputError: no such folder, not finished, or a damaged shard.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    if not manifest.get("complete"):
        raise InputError(f"{folder} is not finished: run the same `hf-clip embed` again, and it goes on")
    tables = [_read_shard(folder, rows) for rows in split_rows(range(manifest["rows"]), manifest["shard_size"])]
    table = pa.concat_tables(tables).combine_chunks()
    counts = torch.from_numpy(pc.list_value_length(table["caption"]).to_numpy().astype("int64"))
    return Embeddings(
        image_embeds=_vectors(table["image_embeds"], manifest["dimension"]),
        text_embeds=_vectors(pc.list_flatten(table["text_embeds"]), manifest["dimension"]),
        image_rows=_integers(table["id"]),
        text_to_image=torch.arange(len(table)).repeat_interleave(counts),
        image_ids=_integers(table["image_id"]),
        caption_ids=_integers(pc.list_flatten(table["caption_ids"])),
        captions_cut=torch.tensor(pc.list_flatten(table["captions_cut"]).to_pylist(), dtype=torch.bool),
        captions_are_classes=manifest["captions_are_classes"],
        skipped=[(row, name, reason) for row, name, reason in manifest["skipped"]],
        **_labels_of(table, manifest),
    )


def _labels_of(table: pa.Table, manifest: dict[str, Any]) -> dict[str, Any]:
    """The fields of `Embeddings` about labels, of a store that has them."""
    names = manifest.get("class_names")
    if "label" not in table.column_names or not (names or pa.types.is_integer(table.schema.field("label").type)):
        return {}
    labels = label_numbers(table["label"], names)
    return {"labels": torch.from_numpy(labels), "class_names": names}


def check_made_by(model: PreTrainedModel, folder: str | Path) -> None:
    """
    Raises:
        InputError: another model's embeddings are in the folder.
    """
    made_by, asked = read_manifest(Path(folder))["model"], weights_digest(model)
    if made_by["digest"] != asked:
        raise InputError(
            f"{folder} was embedded by another model than --model: {made_by['name']}, weights {made_by['digest']}, "
            f"not {asked}: give that model, or embed again"
        )


def read_manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / MANIFEST} cannot be read: {first_line(error)}: embed again") from error
    if isinstance(manifest, dict) and "shard_size" in manifest and manifest.get("format") in range(1, FORMAT):
        raise InputError(f"{folder} was embedded by an older hf_clip, in format {manifest['format']}: embed again")
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise InputError(f"{folder / MANIFEST} is no manifest of embeddings in format {FORMAT}: give another folder")
    return manifest


# ---- what makes embeddings what they are ------------------------------------------------------------------------


def describe(
    model: PreTrainedModel, processor: HFClipProcessor, source: Source, model_name: str, shard_size: int
) -> dict[str, Any]:
    """The manifest of a pass that has not begun."""
    from ..core.version import __version__

    collator = collator_of(model, processor)
    return {
        "format": FORMAT,
        "hf_clip": __version__,
        "model": {
            "name": public_name(model_name),
            "revision": getattr(model.config, "_commit_hash", None),
            "digest": weights_digest(model),
        },
        "preprocessing": {
            "tokenizer": tokenizer_digest(collator.tokenizer),
            "image_processor": json.loads(processor.image_processor.to_json_string()),
            "max_caption_length": collator.max_length,
            "padding": collator.padding,
        },
        "dimension": model.config.projection_dim,
        "normalised": True,
        "dtype": "float16",
        "data": {"name": public_name(source.name), "fingerprint": _fingerprint(source)},
        "class_names": source.class_names,
        "captions_are_classes": not source.caption_column,
        "rows": len(source),
        "shard_size": shard_size,
        "complete": False,
    }


def weights_digest(model: PreTrainedModel) -> str:
    """BLAKE2b of all weights, by name, and of how the towers' outputs are pooled."""
    return tensors_digest(model, (model.config.text_pooling, model.config.vision_pooling))


def data_facts(source: Source) -> dict[str, Any]:
    """What a figure over a source must say of it."""
    return {
        "name": public_name(source.name),
        "split": source.split or ("all rows" if source.row_numbers is None else "some rows"),
        "fingerprint": _fingerprint(source),
    }


def _fingerprint(source: Source) -> str:
    """BLAKE2b of captions, labels and pictures' names, and of the pictures' sizes, beginnings and ends."""
    return digest_of(_parts_of(source)).hex()


def _parts_of(source: Source) -> Iterator[Any]:
    yield content_keys(source)
    for batch in source.rows.with_format("arrow").iter(10_000):
        columns = [
            struct_field(column, "path") if name == source.image_column and pa.types.is_struct(column.type) else column
            for name, column in zip(batch.column_names, batch.columns, strict=True)
        ]
        yield from (json.dumps(c.to_pylist(), default=str).encode() for c in columns if not is_bytes(c.type))


# ---- the folder ---------------------------------------------------------------------------------------------------


def _prepare(folder: Path, manifest: dict[str, Any]) -> None:
    """Leaves a folder with this pass's manifest and no half-written files."""
    if (folder / MANIFEST).is_file():
        _check_same(folder, read_manifest(folder), manifest)
    elif folder.is_dir() and any(file.is_file() and file.suffix != UNFINISHED for file in folder.rglob("*")):
        raise InputError(f"{folder} is not empty and holds no embeddings: give another folder")
    try:
        (folder / SHARDS).mkdir(parents=True, exist_ok=True)
        for file in folder.rglob(f"*{UNFINISHED}"):
            file.unlink()
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror}: give another folder") from error
    if not (folder / MANIFEST).is_file():
        write_manifest(folder, manifest)


def _check_same(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    old, new = flattened(before), flattened(now)
    for field in sorted(old.keys() | new.keys()):
        if field.split(".")[0] in _SAME and old.get(field) != new.get(field):
            raise InputError(
                f"{folder} was begun with {field} {old.get(field)!r}, not {new.get(field)!r}: "
                "give the same settings to go on, or another folder"
            )


def flattened(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, inner in value.items():
        flat |= flattened(inner, f"{prefix}{name}.") if isinstance(inner, dict) else {f"{prefix}{name}": inner}
    return flat


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    text = json.dumps(manifest, indent=2, ensure_ascii=False)
    replace_file(folder / MANIFEST, lambda file: file.write_text(text, encoding="utf-8"))


# ---- shards -------------------------------------------------------------------------------------------------------


def _shard(folder: Path, rows: range) -> Path:
    return folder / SHARDS / f"rows-{rows.start:09d}-{rows.stop:09d}.parquet"


def _schema(source: Source, dimension: int) -> pa.Schema:
    vector = pa.list_(pa.float16(), dimension)
    fields = {
        "id": pa.int64(),
        "path": pa.string(),
        "caption": pa.list_(pa.string()),
        "image_embeds": vector,
        "text_embeds": pa.list_(vector),
        "image_id": pa.int64(),
        "caption_ids": pa.list_(pa.int64()),
        "captions_cut": pa.list_(pa.bool_()),
    }
    if source.label_column:
        label = source.label_of(source.rows[0])
        kind = pa.string() if isinstance(label, str) else pa.int64()
        fields["label"] = pa.list_(kind) if isinstance(label, list) else kind
    return pa.schema(list(fields.items()))


def _write_shard(
    folder: Path,
    rows: range,
    parts: list[tuple[EmbeddedBatch, list[tuple[int, str, str]]]],
    source: Source,
    schema: pa.Schema,
) -> None:
    batches = [_batch(part, source, schema) for part, _ in parts]
    facts = {"rows": [rows.start, rows.stop], "skipped": [entry for _, skipped in parts for entry in skipped]}
    schema = schema.with_metadata({_FACTS: json.dumps(facts, ensure_ascii=False)})
    table = pa.Table.from_batches(batches).replace_schema_metadata(schema.metadata)
    # Embeddings are noise to a compressor; checksums find what a disk has spoilt.
    options = {"compression": "zstd", "use_dictionary": False, "write_page_checksum": True}
    replace_file(_shard(folder, rows), lambda file: pq.write_table(table, file, **options))


def _batch(part: EmbeddedBatch, source: Source, schema: pa.Schema) -> pa.RecordBatch:
    records = [source.rows[row] for row in part.rows.tolist()]
    starts = pa.array([0, *part.caption_counts.cumsum(0).tolist()], pa.int32())
    paths = [_path(source, record) for record in records]
    captions = [caption for record in records for caption in source.captions_of(record)]
    columns = {
        "id": pa.array([source.row_number(row) for row in part.rows.tolist()], pa.int64()),
        "path": pa.array(paths, pa.string()),
        "caption": pa.ListArray.from_arrays(starts, pa.array(captions, pa.string())),
        "image_embeds": _vector_array(part.image_embeds),
        "text_embeds": pa.ListArray.from_arrays(starts, _vector_array(part.text_embeds)),
        "image_id": pa.array(part.image_ids.numpy()),
        "caption_ids": pa.ListArray.from_arrays(starts, pa.array(part.caption_ids.numpy())),
        "captions_cut": pa.ListArray.from_arrays(starts, pa.array(part.captions_cut.numpy())),
    }
    if source.label_column:
        columns["label"] = pa.array([source.label_of(record) for record in records], schema.field("label").type)
    return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


def _path(source: Source, record: dict[str, Any]) -> str | None:
    value = record[source.image_column]
    value = value.get("path") if isinstance(value, dict) else value
    return value if isinstance(value, str) else None


def _vector_array(embeds: torch.Tensor) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(embeds.half().flatten().numpy()), embeds.shape[1])


def _read_shard(folder: Path, rows: range) -> pa.Table:
    """
    Raises:
        InputError: a shard that is missing, cut, spoilt, or of other rows.
    """
    file = _shard(folder, rows)
    try:
        table = pq.read_table(file, page_checksum_verification=True)
        whole = _facts(table.schema)["rows"] == [rows.start, rows.stop]
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise InputError(f"{file} is damaged ({first_line(error)}): run `hf-clip embed` again to mend it") from error
    if not whole:
        raise InputError(f"{file} holds other rows than its name says: remove it and run `hf-clip embed` again")
    return table


def _is_whole(folder: Path, rows: range) -> bool:
    if not _shard(folder, rows).exists():
        return False
    try:
        _read_shard(folder, rows)
    except InputError:
        return False
    return True


def _facts(schema: pa.Schema) -> dict[str, Any]:
    return json.loads((schema.metadata or {})[_FACTS])


def _outcome(folder: Path, shards: list[range]) -> dict[str, Any]:
    """What the manifest says once all shards are there."""
    images = captions = 0
    skipped: list[Any] = []
    for rows in shards:
        with pq.ParquetFile(_shard(folder, rows)) as file:
            images += file.metadata.num_rows
            skipped += _facts(file.schema_arrow)["skipped"]
            captions += sum(map(_count_captions, file.iter_batches(columns=["caption_ids"])))
    if not images:
        _, name, reason = skipped[0]
        raise InputError(f"not one picture could be read; the first: {name}, {reason}: nothing to embed")
    counts = {"images": images, "captions": captions, "skipped": len(skipped), "shards": len(shards)}
    return {"complete": True, "counts": counts, "skipped": skipped}


def _count_captions(batch: pa.RecordBatch) -> int:
    return pc.sum(pc.list_value_length(batch["caption_ids"])).as_py() or 0


def _vectors(column: Any, dimension: int) -> torch.Tensor:
    """(rows, dimension), fp32."""
    halves = pc.list_flatten(column)
    halves = halves.combine_chunks() if isinstance(halves, pa.ChunkedArray) else halves
    return torch.from_numpy(halves.to_numpy(zero_copy_only=False).astype("float32")).reshape(-1, dimension)


def _integers(column: Any) -> torch.Tensor:
    return torch.from_numpy(column.to_numpy().astype("int64"))
