"""Rows with their vectors on disk, in segments that are whole or not there.

A segment is a folder: `rows.parquet` has all of its rows but their vectors, which row i of `vectors.npy` is. Arrays of
other lengths may stand beside it, NAME.npy. What a segment is a part of, the arrays' checksums, and facts about it
stand in the parquet file's metadata.
"""

import json
import math
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from .atomic import staged
from .errors import InputError, first_line

ROWS, VECTORS = "rows.parquet", "vectors"
SEGMENTS = "segments"
_ABOUT = b"hf_clip"  # key of the parquet file's metadata
_Part = TypeVar("_Part")


class Segment:
    """A segment, open: its arrays are mapped, not read.

    Args:
        folder: of the segment.
        origin: what it must be a part of; default: anything.

    Attributes:
        vectors: (rows, width), read-only; as `write_segment` was given them.
        arrays: all of the arrays by name, `vectors` among them.
        facts: what else was said of it.

    Raises:
        InputError: a file is missing, cut or no segment's; it is a part of something else.
    """

    def __init__(self, folder: str | Path, origin: str | None = None):
        self.folder = Path(folder)
        try:
            with self._open() as file:
                self._count = file.metadata.num_rows
                about = json.loads((file.schema_arrow.metadata or {})[_ABOUT])
            self.origin, self.facts, self._checksums = about["origin"], about["facts"], about["checksums"]
            self.arrays = {name: map_array(self.folder / f"{name}.npy") for name in self._checksums}
            self.vectors = self.arrays[VECTORS]
            if len(self.vectors) != self._count:
                raise ValueError(f"{self._count} rows, but {len(self.vectors)} vectors")
        except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
            raise self._damaged(error) from error
        if origin not in (None, self.origin):
            raise InputError(f"{self.folder} is a part of something else: remove it, and embed again")

    def __len__(self) -> int:
        return self._count

    def rows(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All of the rows, read.

        Raises:
            InputError: they are damaged.
        """
        try:
            with self._open() as file:
                return file.read(columns)
        except (OSError, pa.ArrowException) as error:
            raise self._damaged(error) from error

    def check(self) -> "Segment":
        """Itself, after reading every byte.

        Raises:
            InputError: the disk gives something else than was written.
        """
        self.rows()
        for name, array in self.arrays.items():
            if _checksum(array) != self._checksums[name]:
                raise self._damaged(ValueError(f"{name}.npy is not what was written"))
        return self

    def _open(self) -> pq.ParquetFile:
        return pq.ParquetFile(self.folder / ROWS, page_checksum_verification=True)

    def _damaged(self, error: Exception) -> InputError:
        return InputError(f"{self.folder} is damaged ({first_line(error)}): embed again, which keeps the others")


def write_segment(
    folder: Path, rows: pa.Table, arrays: dict[str, np.ndarray], origin: str, facts: Mapping[str, object] | None = None
) -> None:
    """Writes a segment in the place of a damaged one or of none, whole or not at all.

    Args:
        arrays: by name; `vectors` is one of them, (rows, width).
        origin: what it is a part of.

    Raises:
        InputError: it cannot be written.
    """
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    checksums = {name: _checksum(array) for name, array in arrays.items()}
    about = json.dumps({"origin": origin, "facts": facts or {}, "checksums": checksums}, ensure_ascii=False)
    shutil.rmtree(folder, ignore_errors=True)
    with staged(folder) as aside:
        for name, array in arrays.items():
            np.save(aside / f"{name}.npy", array)
        rows = rows.replace_schema_metadata({_ABOUT: about})
        pq.write_table(rows, aside / ROWS, compression="zstd", write_page_checksum=True)


def _checksum(array: np.ndarray) -> int:
    return zlib.crc32(array.data, zlib.crc32(f"{array.dtype.str} {array.shape}".encode()))


def map_array(file: Path) -> np.ndarray:
    """A .npy file's array, mapped and read-only. np.memmap would keep a file open for each of thousands.

    Raises:
        OSError, ValueError: there is none, or not a whole one.
    """
    with file.open("rb") as handle:
        np.lib.format.read_magic(handle)
        shape, _, dtype = np.lib.format.read_array_header_1_0(handle)
        start = handle.tell()
    size = start + math.prod(shape) * dtype.itemsize
    if file.stat().st_size != size:
        raise ValueError(f"{file.name} has {file.stat().st_size:,} bytes, not {size:,}")
    content = torch.from_file(str(file), shared=False, size=size, dtype=torch.uint8).numpy()
    content.flags.writeable = False
    return content[start:].view(dtype).reshape(shape)


# ---- many ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SegmentStore:
    """The segments of a pass over numbered rows, in the folder `segments`; opened one by one, in order of the rows.

    Args:
        rows: of the pass.
        segment_size: rows of each segment but the last.
        origin: a digest of all that the vectors depend on: segments of anything else are not taken for these.
    """

    folder: Path
    rows: int
    segment_size: int
    origin: str

    def __len__(self) -> int:
        return len(self.ranges)

    def __iter__(self) -> Iterator[Segment]:
        return map(self.segment, self.ranges)

    @property
    def ranges(self) -> list[range]:
        """The rows of each segment."""
        return split_rows(range(self.rows), self.segment_size)

    def path(self, rows: range) -> Path:
        return self.folder / SEGMENTS / f"rows-{rows.start:09d}-{rows.stop:09d}"

    def segment(self, rows: range) -> Segment:
        return Segment(self.path(rows), self._origin(rows))

    def missing(self, share: int = 0, of: int = 1) -> list[range]:
        """The rows of a process's share of the segments that are not there, or not whole: every byte is read."""
        return [rows for rows in self.ranges[share::of] if not self._is_whole(rows)]

    def write(self, rows: range, table: pa.Table, arrays: dict[str, np.ndarray], **facts: object) -> None:
        write_segment(self.path(rows), table, arrays, self._origin(rows), facts)

    def _is_whole(self, rows: range) -> bool:
        try:
            self.segment(rows).check()
        except InputError:
            return False
        return True

    def _origin(self, rows: range) -> str:
        return f"{self.origin} {rows.start}-{rows.stop}"


def embed_by_segment(
    missing: Sequence[range], batch_size: int, embed: Callable[[list[range]], Iterator[_Part]]
) -> Iterator[tuple[range, list[_Part]]]:
    """(rows, what was made of each of their batches) for each segment: of all of them one pass is made.

    Args:
        embed: called once, with the batches of rows; none has rows of two segments.
    """
    parts = embed([batch for rows in missing for batch in split_rows(rows, batch_size)])
    for rows in missing:
        yield rows, [next(parts) for _ in split_rows(rows, batch_size)]


def split_rows(rows: range, size: int) -> list[range]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]
