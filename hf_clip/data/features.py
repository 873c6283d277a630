"""What a frozen tower gave for a source's captions or pictures, read from disk in place of running it.

A folder holds each distinct caption's (or picture's) pooled vector once, fp32, in segments (`core.segments`) whose
rows have the item's id, and a note on some. Which are a row's say `starts.npy` and `positions.npy`:
`positions[starts[row] : starts[row + 1]]`; of captions `cut.npy` says in the same places which were cut (another
caption may be the same without). `manifest.json` says what made it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor

from ..core.records import Record, check_at_least
from ..core.segments import SegmentStore, map_array

MANIFEST = "manifest.json"


@strict
@dataclass
class FeatureTower(Record):
    """The tower that ran: `digest` is of its weights and settings, `dtype` what it gives."""

    type: str
    digest: str
    pooling: str
    dtype: str


@strict
@dataclass
class FeatureData(Record):
    name: str
    fingerprint: str


@strict
@dataclass
class FeatureManifest(Record):
    """
    Args:
        format: of what lies beside it.
        side: "vision" or "text".
        preprocessing: what was done to an item before the tower saw it.
        rows: of the source, with `items` distinct captions or pictures.
        width: of a vector.
    """

    version = 1

    format: int
    hf_clip: str
    side: str
    tower: FeatureTower
    preprocessing: dict[str, object]
    data: FeatureData
    rows: int
    items: int
    width: int
    segment_size: int
    complete: bool = False

    def __post_init__(self) -> None:
        check_at_least(self, rows=0, items=0, width=1, segment_size=1)


class Features:
    """An open folder, filled by `training.feature_cache`.

    Vectors are mapped, not loaded; what is pickled is the folder's name. `ids[position]` is the digest of the item's
    content, or of a caption's tokens; `notes[position]` says why a picture cannot be read.

    Raises:
        InputError, OSError: a file is missing, or another's.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        manifest = FeatureManifest.read(folder / MANIFEST)
        self.segment_size, self.width = manifest.segment_size, manifest.width
        self.dtype: torch.dtype = getattr(torch, manifest.tower.dtype)
        self.starts, self.positions = (map_array(index_file(folder, name)) for name in ("starts", "positions"))
        self.cut = map_array(index_file(folder, "cut")) if index_file(folder, "cut").exists() else None
        segments = list(segments_of(folder, manifest))
        rows = pa.concat_tables([segment.rows() for segment in segments])
        self.ids = rows["id"].to_numpy()  # (items,)
        noted = pc.indices_nonzero(pc.is_valid(rows["note"]))
        self.notes: dict[int, str] = dict(zip(noted.to_pylist(), rows["note"].take(noted).to_pylist(), strict=True))
        self._vectors = [segment.vectors for segment in segments]

    def __reduce__(self) -> tuple[Any, ...]:
        return Features, (self.folder,)

    def __len__(self) -> int:
        return len(self.ids)

    def of_row(self, row: int) -> list[int]:
        """Positions of a row's items."""
        return self.positions[self.starts[row] : self.starts[row + 1]].tolist()

    def take(self, positions: Sequence[int]) -> Tensor:
        """(positions, width), in the type that the tower gives."""
        segments, places = np.divmod(np.asarray(positions, dtype=np.int64), self.segment_size)
        found = np.empty((len(places), self.width), dtype=np.float32)
        order = segments.argsort(kind="stable")
        present, firsts = np.unique(segments[order], return_index=True)
        for segment, mine in zip(present.tolist(), np.split(order, firsts[1:]), strict=True):
            found[mine] = self._vectors[segment][places[mine]]
        return torch.from_numpy(found).to(self.dtype)


def segments_of(folder: Path, manifest: FeatureManifest) -> SegmentStore:
    """A folder is called by the digest of what its vectors depend on."""
    return SegmentStore(folder, manifest.items, manifest.segment_size, folder.name)


def index_file(folder: Path, name: str) -> Path:
    return folder / f"{name}.npy"
