"""A frozen tower runs once over the training data; what it gives is kept on disk, for this run and the next ones.

A cache's folder is named by a digest of all that its vectors depend on (weights, preprocessing, data): what changes
any of them has another folder. Within it, checksums tell shards that are whole from those to embed (again).
"""

import contextlib
import functools
import io
import json
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from filelock import FileLock, Timeout
from huggingface_hub import constants
from torch import Tensor
from tqdm.auto import tqdm
from transformers import Trainer, TrainerCallback
from transformers.utils import logging

from ..core.atomic import UNFINISHED, replace_file
from ..core.digests import digest_of, tensors_digest, tokenizer_digest
from ..core.errors import InputError
from ..core.public import public_name
from ..data.augmentation import Augmentation
from ..data.collator import HFClipCollator
from ..data.columns import find_path
from ..data.dataset import TrainingPairs, read_picture
from ..data.features import MANIFEST, Features, facts_file, index_file, read_facts, read_index, vectors_file
from ..data.mixture import sets_within
from ..data.pixels import processed_pixels
from ..data.sources import Source
from ..data.split import content_keys
from ..embeddings.encode import split_rows
from ..embeddings.store import write_manifest
from ..models.modeling_hf_clip import HFClipModel
from .meeting import Meeting, meeting_in

logger = logging.get_logger(__name__)

FORMAT = 2
SHARD_SIZE = 4096  # a pass that is killed loses less than this
_NAMES_OF_A_CONFIG = ("_name_or_path", "_commit_hash", "transformers_version")  # say nothing about its outputs

Embedded = tuple[Tensor, list[int], list[str | None]]  # vectors (batch, width), ids, notes


class Items(NamedTuple):
    """A source's captions or pictures.

    Args:
        counts: (rows,), how many items each row has.
        keys: (items,) int64, equal where the items are.
        sizes: (items,), of what the tower is given.
        more: further arrays of the index, by name.
    """

    counts: np.ndarray
    keys: np.ndarray
    sizes: np.ndarray
    more: dict[str, np.ndarray]


class UseFrozenFeatures(TrainerCallback):
    """Before the first step, has every frozen tower's outputs on disk and gives them to the training set.

    Args:
        trainer: with `TrainingPairs`, mixed and wrapped as may be, and an `HFClipCollator`.
        shard_size: captions or pictures that are written at a time.

    Raises:
        InputError: no tower is frozen; the image tower is, but pictures are augmented; the data is a stream; weights
            are sharded; the disk is full.
    """

    def __init__(self, trainer: Trainer, shard_size: int = SHARD_SIZE):
        self.trainer = trainer
        self.shard_size = shard_size
        if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
            raise InputError(
                "cache_frozen_features cannot run towers that FSDP or DeepSpeed has sharded: leave it out"
            )
        if not isinstance(trainer.data_collator, HFClipCollator):
            raise InputError("cache_frozen_features tokenises as HFClipCollator does: give it as data_collator")
        self._frozen_towers()

    def on_train_begin(self, args, state, control, **kwargs):
        root = Path(args.feature_cache_dir or Path(constants.HF_HOME, "hf_clip", "features"))
        towers = self._frozen_towers()
        with meeting_in(root, args.process_index, args.world_size) as meeting:
            for tower in towers:
                for number, pairs in enumerate(_parts(self.trainer.train_dataset)):
                    name = f"{tower.side}-{number}"
                    setattr(pairs, tower.gives, open_features(tower, pairs, root, name, meeting, self.shard_size))

    def on_train_end(self, args, state, control, **kwargs):
        for pairs in _parts(self.trainer.train_dataset):  # another trainer's towers may not be frozen
            pairs.text_features = pairs.image_features = None

    def _frozen_towers(self) -> "list[_Tower]":
        model = self.trainer.accelerator.unwrap_model(self.trainer.model, keep_torch_compile=False)
        collator: Any = self.trainer.data_collator
        towers = [_TextTower(model, collator, self.trainer.args), _ImageTower(model, collator, self.trainer.args)]
        frozen: list[_Tower] = [
            tower for tower in towers if not any(p.requires_grad for p in tower.module.parameters())
        ]
        if not frozen:
            raise InputError("cache_frozen_features needs a frozen tower: set freeze_text, freeze_vision or both")
        for pairs in _parts(self.trainer.train_dataset):
            if any(isinstance(tower, _ImageTower) for tower in frozen):
                _check_not_augmented(pairs.draw.augmentation)
        return frozen


def _parts(dataset: Any) -> list[TrainingPairs]:
    parts = sets_within(dataset)
    for part in parts:
        if not isinstance(part, TrainingPairs):
            raise InputError(
                f"cache_frozen_features looks rows up, which a {type(part).__name__} has not: do not stream, or leave "
                "it out"
            )
    return parts


def _check_not_augmented(augmentation: Augmentation) -> None:
    off = vars(Augmentation(crop_scale=1, reduced_decode=augmentation.reduced_decode))  # decoded so, it is the same
    wrong = [f"{name} {value:g}" for name, value in off.items() if vars(augmentation)[name] != value]
    if wrong:
        raise InputError(
            "cache_frozen_features runs the frozen image tower once a picture, which augmentation changes each time: "
            f"set {', '.join(wrong)}, or leave it out"
        )


# ---- what is run, and on what -----------------------------------------------------------------------------------


class _Tower(ABC):
    """One side of a model: how its items are counted, named and embedded."""

    side: str
    gives: str  # the attribute of `TrainingPairs`

    def __init__(self, model: HFClipModel, collator: HFClipCollator, args: Any):
        self.model, self.collator, self.args = model, collator, args
        self.module = getattr(model, f"{self.side}_model")

    @abstractmethod
    def preprocessing(self, pairs: TrainingPairs) -> dict[str, Any]:
        """What is done to an item before the tower sees it."""

    @abstractmethod
    def items(self, source: Source) -> Items:
        """All that the tower may be given of a source."""

    @abstractmethod
    def embed(self, pairs: TrainingPairs, starts: np.ndarray, batches: list[list[int]]) -> Iterator[Embedded]:
        """Of batches of items, numbered as `items` counts them: row i has those from starts[i]."""

    @functools.cached_property
    def description(self) -> dict[str, Any]:
        config = {k: v for k, v in self.module.config.to_dict().items() if k not in _NAMES_OF_A_CONFIG}
        pooling = getattr(self.model.config, f"{self.side}_pooling")
        return {
            "type": self.module.config.model_type,
            "digest": tensors_digest(self.module, json.dumps(config, sort_keys=True, default=str)),
            "pooling": pooling,
            "dtype": str(self.module.dtype).removeprefix("torch."),
        }

    @property
    def width(self) -> int:
        return getattr(self.model.config, f"{self.side}_width")

    def _run(self, pool: Callable[..., Tensor], **inputs: Tensor) -> Tensor:
        """(items, width) fp32, on the CPU."""
        self.module.eval()
        with torch.inference_mode():
            pooled = pool(**{name: value.to(self.module.device) for name, value in inputs.items()})
        if not pooled.isfinite().all():
            raise FloatingPointError(f"the frozen {self.side} tower gave features that are not finite")
        return pooled.float().cpu()


class _TextTower(_Tower):
    side, gives = "text", "text_features"

    def preprocessing(self, pairs: TrainingPairs) -> dict[str, Any]:
        return {
            "tokenizer": tokenizer_digest(self.collator.tokenizer),
            "max_length": self.collator.max_length,
            "padding": self.collator.padding,
        }

    def items(self, source: Source) -> Items:
        """Captions of which the tower reads the same tokens are one item."""
        counts, read = [], []
        column, rows = _caption_rows(source)
        for batch in rows.iter(1000):
            captions = [source.captions_of({column: value}) for value in batch[column]]
            counts.append(np.array([len(each) for each in captions], dtype=np.int64))
            read.append(self.collator.tokenize([caption for each in captions for caption in each])[1:])
        ids, lengths, cut = (torch.cat(column).numpy() for column in zip(*read, strict=True))
        return Items(np.concatenate(counts), ids, lengths, {"cut": cut})

    def embed(self, pairs: TrainingPairs, starts: np.ndarray, batches: list[list[int]]) -> Iterator[Embedded]:
        column, rows = _caption_rows(pairs.source)
        for batch in batches:
            of_rows = np.searchsorted(starts, batch, side="right") - 1
            values = rows[of_rows.tolist()][column]
            captions = [
                pairs.source.captions_of({column: value})[place]
                for value, place in zip(values, (batch - starts[of_rows]).tolist(), strict=True)
            ]
            read = self.collator.tokenize(captions)
            yield self._run(self.model.pool_text, **read.tokens), read.ids.tolist(), [None] * len(captions)


def _caption_rows(source: Source) -> tuple[str, Any]:
    """The column that captions, or the labels in place of them, stand in, and the rows with it alone."""
    column = find_path(dict(source.rows.features), str(source.caption_column or source.label_column))[0]
    return column, source.rows.select_columns(column)


class _ImageTower(_Tower):
    side, gives = "vision", "image_features"

    def preprocessing(self, pairs: TrainingPairs) -> dict[str, Any]:
        return {
            "image_processor": json.loads(pairs.image_processor.to_json_string()),
            "decoded_side": pairs.draw.at_least,
        }

    def items(self, source: Source) -> Items:
        keys = content_keys(source, exact=True).view(np.int64)
        return Items(np.ones_like(keys), keys, np.zeros_like(keys), {})

    def embed(self, pairs: TrainingPairs, starts: np.ndarray, batches: list[list[int]]) -> Iterator[Embedded]:
        loader = torch.utils.data.DataLoader(
            _Pictures(pairs),
            batch_sampler=batches,  # type: ignore[arg-type]
            num_workers=self.args.dataloader_num_workers,
            collate_fn=self.collator,
            generator=torch.Generator(),  # a loader draws from it, which must not be what training draws from
        )
        for rows, batch in zip(batches, loader, strict=True):
            vectors, ids = torch.zeros(len(rows), self.width), [0] * len(rows)
            notes: list[str | None] = [None] * len(rows)
            place = {row: i for i, row in enumerate(rows)}
            readable = [place[row] for row in batch["rows"].tolist()]
            if readable:
                vectors[readable] = self._run(self.model.pool_image, pixel_values=batch["pixel_values"])
            for i, image_id in zip(readable, batch["image_ids"].tolist(), strict=True):
                ids[i] = image_id
            for i, (_, _, reason) in zip(sorted({*place.values()} - {*readable}), batch["skipped"], strict=True):
                notes[i] = reason
            yield vectors, ids, notes


class _Pictures(torch.utils.data.Dataset):
    """Pictures as training has them when nothing is augmented."""

    def __init__(self, pairs: TrainingPairs):
        self.source, self.at_least = pairs.source, pairs.draw.at_least
        self.to_pixels = functools.partial(processed_pixels, pairs.image_processor)

    def __getitem__(self, row: int) -> dict[str, Any]:
        record = self.source.rows[row]
        picture = read_picture(self.source, record, row, self.to_pixels, at_least=self.at_least)
        return {"row": row, "captions": []} | picture


# ---- the folder ---------------------------------------------------------------------------------------------------


def open_features(
    tower: _Tower, pairs: TrainingPairs, root: Path, name: str, meeting: Meeting, shard_size: int = SHARD_SIZE
) -> Features:
    """The features of a source, after embedding those that are not on disk yet.

    Each process embeds, and checks, its share of the shards. How long the scan of the data, another run that holds
    the folder, or the others' shares take is unknown: that is waited for in the meeting.

    Args:
        name: what they are called in the meeting.
    """
    if meeting.rank != 0:
        folder = root / meeting.hear(f"{name}-prepared", 0)
        _fill(folder, tower, pairs, meeting)
        meeting.say(f"{name}-filled")
        meeting.hear(f"{name}-complete", 0)
        return Features(folder)
    manifest, index = _describe(tower, pairs, shard_size)
    folder = root / f"{tower.side}-{_key(manifest)}"
    with _held(folder):
        _prepare(folder, manifest, index)
        meeting.say(f"{name}-prepared", folder.name)
        _fill(folder, tower, pairs, meeting)
        meeting.wait_for_all(f"{name}-filled")
        write_manifest(folder, manifest | {"complete": True})
        meeting.say(f"{name}-complete")
    return Features(folder)


def _describe(tower: _Tower, pairs: TrainingPairs, shard_size: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(manifest, arrays of the index). Items that are equal are one, and those of a size lie together."""
    from ..core.version import __version__

    counts, keys, sizes, more = tower.items(pairs.source)
    _, firsts, numbers = np.unique(keys, return_index=True, return_inverse=True)
    order = np.lexsort((firsts, sizes[firsts]))
    positions = np.empty_like(order)
    positions[order] = np.arange(len(order))
    index = {"starts": np.append(0, counts.cumsum()), "positions": positions[numbers], "firsts": firsts[order]} | more
    data = digest_of([counts, keys, *more.values()], size=10).hex()
    manifest = {
        "format": FORMAT,
        "hf_clip": __version__,
        "side": tower.side,
        "tower": tower.description,
        "preprocessing": tower.preprocessing(pairs),
        "data": {"name": public_name(pairs.source.name), "fingerprint": data},
        "rows": len(counts),
        "items": len(firsts),
        "width": tower.width,
        "shard_size": shard_size,
        "complete": False,
    }
    return manifest, index


def _key(manifest: dict[str, Any]) -> str:
    counts = {name: value for name, value in manifest.items() if name not in ("hf_clip", "complete")}
    counts["data"] = manifest["data"]["fingerprint"]
    return digest_of([json.dumps(counts, sort_keys=True).encode()], size=10).hex()


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """No other run writes into the folder; the lock is the operating system's, and goes with a killed process."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made: {error.strerror}: give another feature_cache_dir") from error
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        logger.warning(f"waiting for another run that fills {folder}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _prepare(folder: Path, manifest: dict[str, Any], index: dict[str, np.ndarray]) -> None:
    """Leaves the folder with this manifest and index, and no half-written files."""
    for file in folder.glob(f".*{UNFINISHED}"):
        file.unlink()
    for name, array in index.items():
        if not _holds(folder, name, array):
            replace_file(index_file(folder, name), functools.partial(_save, array=array))
    known = _read_manifest(folder)
    same = known | {"complete": False} == manifest | {"data": known.get("data"), "hf_clip": known.get("hf_clip")}
    if not same:
        write_manifest(folder, manifest)


def _holds(folder: Path, name: str, array: np.ndarray) -> bool:
    try:
        return np.array_equal(read_index(folder, name), array)
    except (OSError, ValueError, EOFError):
        return False


def _save(file: Path, array: np.ndarray) -> None:
    with file.open("wb") as handle:
        np.save(handle, array)


def _read_manifest(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _fill(folder: Path, tower: _Tower, pairs: TrainingPairs, meeting: Meeting) -> None:
    """Embeds what of this process's share is not on disk, or not whole."""
    manifest = _read_manifest(folder)
    shards = list(enumerate(split_rows(range(manifest["items"]), manifest["shard_size"])))
    mine = shards[meeting.rank :: meeting.processes]
    missing = [(shard, items) for shard, items in mine if not _is_whole(folder, shard)]
    lost = [shard for shard, _ in missing if manifest["complete"] or facts_file(folder, shard).exists()]
    if lost:
        first = vectors_file(folder, lost[0]).name
        logger.warning(
            f"{folder}: of {len(mine)} shards {len(lost)} damaged or missing (the first: {first}): embedded again"
        )
    starts, firsts = read_index(folder, "starts"), read_index(folder, "firsts")
    size = tower.args.per_device_eval_batch_size
    batches = [firsts[batch.start : batch.stop].tolist() for _, items in missing for batch in split_rows(items, size)]
    embedded = tower.embed(pairs, starts, batches)
    quiet = tower.args.disable_tqdm or tower.args.local_process_index != 0
    progress = tqdm(missing, desc=f"features of the {tower.side} tower", disable=quiet or not missing, leave=False)
    for shard, items in progress:
        _write_shard(folder, shard, [next(embedded) for _ in split_rows(items, size)])


def _write_shard(folder: Path, shard: int, parts: Sequence[Embedded]) -> None:
    content = io.BytesIO()
    np.save(content, torch.cat([vectors for vectors, _, _ in parts]).numpy())
    notes = [note for _, _, each in parts for note in each]
    facts: dict[str, Any] = {
        "ids": [number for _, ids, _ in parts for number in ids],
        "notes": {str(place): note for place, note in enumerate(notes) if note is not None},
    }
    facts["crc32"] = _checksum(content.getbuffer(), facts)
    replace_file(vectors_file(folder, shard), lambda file: file.write_bytes(content.getbuffer()))
    replace_file(facts_file(folder, shard), lambda file: file.write_text(json.dumps(facts), encoding="utf-8"))


def _is_whole(folder: Path, shard: int) -> bool:
    try:
        facts = read_facts(folder, shard)
        return facts["crc32"] == _checksum(vectors_file(folder, shard).read_bytes(), facts)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _checksum(vectors: Any, facts: dict[str, Any]) -> int:
    """Of a shard's vectors, and of what is said of them."""
    return zlib.crc32(json.dumps([facts["ids"], facts["notes"]]).encode(), zlib.crc32(vectors))
