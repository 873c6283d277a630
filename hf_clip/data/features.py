"""What a frozen tower gave for a source's captions or pictures, read from disk in place of running it.

A folder holds each distinct caption's (or picture's) pooled vector once: `vectors-00000.npy` …, (shard_size, width)
fp32, with `vectors-00000.json` for each: its crc32, the items' ids, and notes on some of them. Which are a row's say
`starts.npy` and `positions.npy`: `positions[starts[row] : starts[row + 1]]`; of captions `cut.npy` says in the same
places which were cut (another caption may be the same without). `manifest.json` says what made it.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

MANIFEST = "manifest.json"


class Features:
    """An open folder, filled by `training.feature_cache`.

    Vectors are mapped, not loaded; what is pickled is the folder's name. `ids[position]` is the digest of the item's
    content, or of a caption's tokens; `notes[position]` says why a picture cannot be read.

    Raises:
        OSError: a file is missing.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        self.shard_size: int = manifest["shard_size"]
        self.dtype: torch.dtype = getattr(torch, manifest["tower"]["dtype"])
        self.width: int = manifest["width"]
        self.starts, self.positions = (read_index(folder, name) for name in ("starts", "positions"))
        self.cut = read_index(folder, "cut") if index_file(folder, "cut").exists() else None
        shards = range(-(-manifest["items"] // self.shard_size))
        facts = [read_facts(folder, shard) for shard in shards]
        self.ids = np.concatenate([np.array(each["ids"], dtype=np.int64) for each in facts])  # (items,)
        self.notes: dict[int, str] = {
            shard * self.shard_size + int(place): note
            for shard, each in zip(shards, facts, strict=True)
            for place, note in each["notes"].items()
        }
        self._vectors = [_mapped(vectors_file(folder, shard)) for shard in shards]

    def __reduce__(self) -> tuple[Any, ...]:
        return Features, (self.folder,)

    def __len__(self) -> int:
        return len(self.ids)

    def of_row(self, row: int) -> list[int]:
        """Positions of a row's items."""
        return self.positions[self.starts[row] : self.starts[row + 1]].tolist()

    def take(self, positions: Sequence[int]) -> Tensor:
        """(positions, width), in the type that the tower gives."""
        shards, places = np.divmod(np.asarray(positions, dtype=np.int64), self.shard_size)
        found = np.empty((len(places), self.width), dtype=np.float32)
        order = shards.argsort(kind="stable")
        present, firsts = np.unique(shards[order], return_index=True)
        for shard, mine in zip(present.tolist(), np.split(order, firsts[1:]), strict=True):
            found[mine] = self._vectors[shard][places[mine]]
        return torch.from_numpy(found).to(self.dtype)


def vectors_file(folder: Path, shard: int) -> Path:
    return folder / f"vectors-{shard:05d}.npy"


def facts_file(folder: Path, shard: int) -> Path:
    return vectors_file(folder, shard).with_suffix(".json")


def read_facts(folder: Path, shard: int) -> dict[str, Any]:
    return json.loads(facts_file(folder, shard).read_text(encoding="utf-8"))


def index_file(folder: Path, name: str) -> Path:
    return folder / f"{name}.npy"


def read_index(folder: Path, name: str) -> np.ndarray:
    return np.asarray(np.load(index_file(folder, name), mmap_mode="r"))  # a plain view: np.memmap is slow to index


def _mapped(file: Path) -> np.ndarray:
    """(rows, width) of a .npy of fp32. np.memmap would keep a file open for each of thousands."""
    with file.open("rb") as handle:
        np.lib.format.read_magic(handle)
        shape, *_ = np.lib.format.read_array_header_1_0(handle)
        start = handle.tell() // 4  # a header's length is a multiple of 64
    floats = torch.from_file(str(file), shared=False, size=start + math.prod(shape), dtype=torch.float32)
    return floats[start:].view(shape).numpy()
