"""Splits a source in two, by picture: none is on both sides, in whatever rows and under whatever names it stands."""

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from ..core.digests import digest_of
from ..core.errors import InputError
from .columns import column_batches, is_bytes, struct_field
from .sources import Source

_EDGE = 16 * 1024  # bytes at either end of a file that tell it from others of its size


def split_by_image(source: Source, share: float, seed: int = 0) -> tuple[Source, Source]:
    """(the rest, held out): of the distinct pictures, `share` is held out with all their rows.

    Which ones is decided by digests of their content and the seed, so it is the same on every machine and in any
    order of rows. Pictures are told apart by size, beginning and end of their files; of missing ones, by path.

    Raises:
        InputError: a share that leaves one side without a picture; a source that is streamed.
    """
    if source.streaming:
        raise InputError(f"{source.name} is streamed and cannot be split: give evaluation data, or do not stream")
    pictures, rows = np.unique(content_keys(source), return_inverse=True)
    count = round(share * len(pictures)) if 0 < share < 1 else 0
    if not 0 < count < len(pictures):
        raise InputError(
            f"a share of {share} of the {len(pictures)} pictures of {source.name} leaves one side empty: "
            "give one between 0 and 1 that does not"
        )
    seeded = [digest_of([b"%d " % seed, int(picture).to_bytes(8, "little")], size=8) for picture in pictures]
    order = sorted(range(len(pictures)), key=seeded.__getitem__)
    is_held_out = np.zeros(len(pictures), dtype=bool)
    is_held_out[order[:count]] = True
    by_row = is_held_out[rows]
    rest, held_out = (rows_of(source, np.flatnonzero(which)) for which in (~by_row, by_row))
    return rest, dataclasses.replace(held_out, split=f"{source.split}, held out" if source.split else "held out")


def rows_of(source: Source, rows: np.ndarray) -> Source:
    """The part of a source that these rows are."""
    numbers = np.array([source.row_number(row) for row in rows]) if source.row_numbers is not None else rows
    return dataclasses.replace(source, rows=source.rows.select(rows), row_numbers=numbers)


def content_keys(source: Source, exact: bool = False) -> np.ndarray:
    """(rows,) uint64: equal where the picture is.

    Args:
        exact: a key changes with any byte of a picture within the data; with one in the middle of a large file, too,
            for its path and its time of change count.
    """
    known: dict[str | None, int] = {}
    keys = []
    for _, values in column_batches(source.rows, source.image_column):
        keys += [np.fromiter(_keys_of_chunk(chunk, source.folder, known, exact), np.uint64) for chunk in values.chunks]
    return np.concatenate(keys)


def _keys_of_chunk(values: pa.Array, folder: Path, known: dict[str | None, int], exact: bool) -> Iterator[int]:
    """`known`: keys of the paths that were looked at already."""
    if pa.types.is_struct(values.type):
        paths, contents = struct_field(values, "path").to_pylist(), struct_field(values, "bytes")
    elif is_bytes(values.type):
        paths, contents = [None] * len(values), values
    else:
        paths, contents = values.to_pylist(), pa.nulls(len(values), pa.binary())
    for path, content in zip(paths, contents, strict=True):
        if content.is_valid:
            yield _key_of_bytes(memoryview(content.as_buffer()), exact)
            continue
        if path not in known:
            known[path] = _key_of_file(folder, path, exact)
        yield known[path]


def _key_of_bytes(content: memoryview, exact: bool) -> int:
    return _number(len(content), *([content] if exact else [content[:_EDGE], content[-_EDGE:]]))


def _key_of_file(folder: Path, path: str | None, exact: bool) -> int:
    try:
        with Path(folder, path or "").open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            head = file.read(_EDGE)
            file.seek(max(0, size - _EDGE))
            unread = [f"{path} {os.fstat(file.fileno()).st_mtime_ns}".encode()] if size > 2 * _EDGE and exact else []
            return _number(size, head, file.read(_EDGE), *unread)
    except (OSError, ValueError):
        return _number(-1, (path or "").encode())


def _number(size: int, *parts: bytes | memoryview) -> int:
    return int.from_bytes(digest_of([b"%d " % size, *parts], size=8), "little")
