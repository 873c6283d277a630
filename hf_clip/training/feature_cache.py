"""A frozen tower runs once over the training data; what it gives is kept on disk, for this run and the next ones.

A cache's folder is named by a digest of all that its vectors depend on (weights, preprocessing, data): what changes
any of them has another folder. Within it, checksums tell segments that are whole from those to embed (again).
"""

import contextlib
import functools
import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from filelock import FileLock, Timeout
from huggingface_hub import constants
from torch.utils.data import Dataset
from tqdm.auto import tqdm
from transformers import Trainer, TrainerCallback
from transformers.utils import logging

from ..core.atomic import replace_file
from ..core.digests import digest_of
from ..core.errors import InputError
from ..core.public import public_name
from ..core.records import InvalidRecord
from ..core.segments import VECTORS, embed_by_segment, map_array
from ..core.version import __version__
from ..data.augmentation import Augmentation
from ..data.collator import HFClipCollator
from ..data.dataset import TrainingPairs
from ..data.features import MANIFEST, FeatureData, FeatureManifest, Features, index_file, segments_of
from ..data.mixture import sets_within
from .frozen_towers import Embedded, ImageTower, TextTower, Tower
from .meeting import Meeting, meeting_in

logger = logging.get_logger(__name__)

FORMAT = 3
SEGMENT_SIZE = 4096  # a pass that is killed loses less than this


class UseFrozenFeatures(TrainerCallback):
    """Before the first step, has every frozen tower's outputs on disk and gives them to the training set.

    Args:
        trainer: with `TrainingPairs`, mixed and wrapped as may be, and an `HFClipCollator`.
        segment_size: captions or pictures that are written at a time.

    Raises:
        InputError: no tower is frozen; the image tower is, but pictures are augmented; the data is a stream; weights
            are sharded; the disk is full.
    """

    def __init__(self, trainer: Trainer, segment_size: int = SEGMENT_SIZE):
        self.trainer = trainer
        self.segment_size = segment_size
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
                    setattr(pairs, tower.gives, open_features(tower, pairs, root, name, meeting, self.segment_size))

    def on_train_end(self, args, state, control, **kwargs):
        for pairs in _parts(self.trainer.train_dataset):  # another trainer's towers may not be frozen
            pairs.text_features = pairs.image_features = None

    def _frozen_towers(self) -> "list[Tower]":
        model = self.trainer.accelerator.unwrap_model(self.trainer.model, keep_torch_compile=False)
        collator: Any = self.trainer.data_collator
        towers = [TextTower(model, collator, self.trainer.args), ImageTower(model, collator, self.trainer.args)]
        frozen: list[Tower] = [
            tower for tower in towers if not any(p.requires_grad for p in tower.module.parameters())
        ]
        if not frozen:
            raise InputError("cache_frozen_features needs a frozen tower: set freeze_text, freeze_vision or both")
        for pairs in _parts(self.trainer.train_dataset):
            if any(isinstance(tower, ImageTower) for tower in frozen):
                _check_not_augmented(pairs.draw.augmentation)
        return frozen


def _parts(dataset: Dataset) -> list[TrainingPairs]:
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


# ---- the folder ---------------------------------------------------------------------------------------------------


def open_features(
    tower: Tower, pairs: TrainingPairs, root: Path, name: str, meeting: Meeting, segment_size: int = SEGMENT_SIZE
) -> Features:
    """The features of a source, after embedding those that are not on disk yet.

    Each process embeds, and checks, its share of the segments. How long the scan of the data, another run that holds
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
    manifest, index = _describe(tower, pairs, segment_size)
    folder = root / f"{tower.side}-{_key(manifest)}"
    with _held(folder):
        _prepare(folder, manifest, index)
        meeting.say(f"{name}-prepared", folder.name)
        _fill(folder, tower, pairs, meeting)
        meeting.wait_for_all(f"{name}-filled")
        replace(manifest, complete=True).write(folder / MANIFEST)
        meeting.say(f"{name}-complete")
    return Features(folder)


def _describe(tower: Tower, pairs: TrainingPairs, segment_size: int) -> tuple[FeatureManifest, dict[str, np.ndarray]]:
    """(manifest, arrays of the index). Items that are equal are one, and those of a size lie together."""
    counts, keys, sizes, more = tower.items(pairs.source)
    _, firsts, numbers = np.unique(keys, return_index=True, return_inverse=True)
    order = np.lexsort((firsts, sizes[firsts]))
    positions = np.empty_like(order)
    positions[order] = np.arange(len(order))
    index = {"starts": np.append(0, counts.cumsum()), "positions": positions[numbers], "firsts": firsts[order]} | more
    data = digest_of([counts, keys, *more.values()], size=10).hex()
    manifest = FeatureManifest(
        format=FORMAT,
        hf_clip=__version__,
        side=tower.side,
        tower=tower.description,
        preprocessing=tower.preprocessing(pairs),
        data=FeatureData(public_name(pairs.source.name), data),
        rows=len(counts),
        items=len(firsts),
        width=tower.width,
        segment_size=segment_size,
    )
    return manifest, index


def _key(manifest: FeatureManifest) -> str:
    """Of all that the vectors depend on."""
    said = manifest.to_json() | {"data": manifest.data.fingerprint}
    counts = {name: value for name, value in said.items() if name not in ("format_version", "hf_clip", "complete")}
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


def _prepare(folder: Path, manifest: FeatureManifest, index: dict[str, np.ndarray]) -> None:
    """Leaves the folder with this manifest and index."""
    for name, array in index.items():
        if not _holds(index_file(folder, name), array):
            replace_file(index_file(folder, name), functools.partial(_save, array=array))
    known = _read_manifest(folder)
    # Who began it, under which name of the data, does not matter.
    if known is None or replace(known, complete=False, data=manifest.data, hf_clip=manifest.hf_clip) != manifest:
        manifest.write(folder / MANIFEST)


def _holds(file: Path, array: np.ndarray) -> bool:
    try:
        return np.array_equal(map_array(file), array)
    except (OSError, ValueError):
        return False


def _save(file: Path, array: np.ndarray) -> None:
    with file.open("wb") as handle:
        np.save(handle, array)


def _read_manifest(folder: Path) -> FeatureManifest | None:
    """None where it is damaged: it is written again."""
    try:
        return FeatureManifest.read(folder / MANIFEST)
    except InvalidRecord:
        return None


def _fill(folder: Path, tower: Tower, pairs: TrainingPairs, meeting: Meeting) -> None:
    """Embeds what of this process's share is not on disk, or not whole."""
    manifest = FeatureManifest.read(folder / MANIFEST)
    segments = segments_of(folder, manifest)
    missing = segments.missing(meeting.rank, meeting.processes)
    lost = [segments.path(items) for items in missing if manifest.complete or segments.path(items).exists()]
    if lost:
        logger.warning(
            f"{folder}: {len(lost)} of {len(segments)} segments damaged or missing (the first: {lost[0].name}): "
            "embedded again"
        )
    starts, firsts = (map_array(index_file(folder, name)) for name in ("starts", "firsts"))

    def embed(batches: list[range]) -> Iterator[Embedded]:
        return tower.embed(pairs, starts, [firsts[batch.start : batch.stop].tolist() for batch in batches])

    filled = embed_by_segment(missing, tower.args.per_device_eval_batch_size, embed)
    quiet = not missing or tower.args.disable_tqdm or tower.args.local_process_index != 0
    for items, parts in tqdm(
        filled, desc=f"features of the {tower.side} tower", total=len(missing), disable=quiet, leave=False
    ):
        vectors, ids, notes = zip(*parts, strict=True)
        rows = {"id": pa.array(chain(*ids), pa.int64()), "note": pa.array(chain(*notes), pa.string())}
        segments.write(items, pa.table(rows), {VECTORS: torch.cat(vectors).numpy()})
