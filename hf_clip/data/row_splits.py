"""Which split each row of a table is of, where one table holds several."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import datasets
import pyarrow as pa

from ..core.errors import InputError
from .columns import Row, Rows, column_batches, struct_field
from .finding import Found
from .folders import say_once
from .loading import silenced
from .named_splits import KEYWORDS, canonical, is_bare, split_called

_COLUMN = "split"
_NO_SPLIT = "(none)"
_PEEKED = 5000  # rows of a stream that tell its splits before it is read
_LONGEST_PATH = 4096  # longer text is an image itself


@dataclass(frozen=True)
class RowSplits:
    """
    Args:
        column: the images' paths, or the names of the splits themselves.
        names: of the splits, as far as they are known before the rows are read.
        are_all: whether there can be no others.
        depth: the part of a path that is a folder called like a split; None: the names stand in the column.
        classes: the names of a column of numbers.
    """

    column: str
    names: tuple[str, ...]
    are_all: bool = True
    depth: int | None = None
    classes: tuple[str, ...] = ()

    def of(self, record: Row, where: str) -> str:
        """
        Raises:
            InputError: an image that lies in no folder of a split.
        """
        value = record[self.column]
        if self.depth is None:
            return _named(value, self.classes)
        folders = _folders(value)[self.depth :]
        if (split := split_called(folders[0]) if folders else None) is None:
            path = value.get("path") if isinstance(value, dict) else value
            raise InputError(
                f"{where}: {path} is in none of {', '.join(self.names)}, so of no split: move or remove it"
            )
        return split

    def of_rows(self, rows: datasets.Dataset, name: str) -> list[str]:
        return [
            self.of({self.column: value}, f"{name}: row {row + 1}")
            for row, value in enumerate(_values(rows, self.column))
        ]


def row_splits_of(rows: Rows, first: Row | None, image: str, files: Found) -> RowSplits | None:
    """How rows are of several splits: by the folders that their images lie in, or by a column that is called so; None
    where they are one set, or where the files themselves were chosen by split."""
    if files.kind in ("hub", "opened") or files.split:
        return None
    if files.folders:
        folders = _folders(first_value(rows, first, image))
        if folders and folders[0] in files.folders:
            return RowSplits(image, tuple(dict.fromkeys(files.folders.values())), depth=0)
    by_column = None
    if _COLUMN in (rows.column_names or first or ()) and image != _COLUMN:
        by_column = _by_column(rows, files)
    return by_column or _by_paths(rows, first, image)


def _by_column(rows: Rows, files: Found) -> RowSplits | None:
    feature = (rows.features or {}).get(_COLUMN)
    classes = tuple(feature.names) if isinstance(feature, datasets.ClassLabel) else ()
    names, are_all = _distinct(rows, _COLUMN, lambda value: _named(value, classes))
    if any(name.lower() in KEYWORDS for name in names):
        return RowSplits(_COLUMN, _ordered(names), are_all, classes=classes)
    if not are_all:
        say_once(f"{files.files[0]}: {_COLUMN!r} names no split in the first {_PEEKED} rows, so all rows are read")
    return None


def _by_paths(rows: Rows, first: Row | None, image: str) -> RowSplits | None:
    """By the first part of the paths at which the names of splits differ."""
    value = first_value(rows, first, image)
    if not _folders(value) and (not isinstance(value, str) or len(value) > _LONGEST_PATH):
        return None  # the images themselves
    paths, are_all = _distinct(rows, image, _folders)
    for depth in range(max(map(len, paths), default=0)):
        parts = {path[depth] for path in paths if len(path) > depth}
        called = {part: split for part in parts if (split := split_called(part))}
        if called.keys() != parts and not all(map(is_bare, called)):
            continue  # classes
        # Of a stream whose first rows all lie in `train`, others may follow.
        is_first = not are_all and called.keys() == parts and all(map(is_bare, parts)) and _is_relative(value)
        if len(set(called.values())) > 1 or is_first:
            return RowSplits(image, _ordered(called.values()), are_all, depth)
    return None


def _is_relative(path: object) -> bool:
    return isinstance(path, str) and not path.startswith("/")


def _distinct(rows: Rows, column: str, of: Callable[[Any], Any]) -> tuple[dict[Any, None], bool]:
    """(what a column's values tell, whether of all rows): of a stream the first ones are read."""
    if isinstance(rows, datasets.Dataset):
        return dict.fromkeys(map(of, _values(rows, column))), True
    values = list(islice(_first_values(rows, column), _PEEKED))
    return dict.fromkeys(map(of, values)), len(values) < _PEEKED


def _values(rows: datasets.Dataset, column: str) -> Iterator[Any]:
    return (value for _, values in column_batches(rows, column) for value in _in_python(_plain(values)))


def _in_python(values: pa.ChunkedArray) -> list[Any]:
    """Also of texts that are no UTF-8, whose row the check of the columns names."""
    if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
        return values.to_pylist()
    texts = values.cast(pa.large_binary()).to_pylist()
    return [text if text is None else text.decode("utf-8", "replace") for text in texts]


def _first_values(rows: datasets.IterableDataset, column: str) -> Iterator[Any]:
    if rows.features and isinstance(rows.features.get(column), datasets.Image):
        rows = rows.cast_column(column, datasets.Image(decode=False))
    # What cannot be read is told, with its row, when training comes to it.
    with silenced(), contextlib.suppress(Exception):
        for record in rows.select_columns([column]):
            yield record.get(column)


def first_value(rows: Rows, first: Row | None, column: str) -> Any:
    """Of a column, undecoded."""
    if first is not None:
        return first.get(column)
    return next((values[0].as_py() for _, values in column_batches(rows, column) if len(values)), None)


def _named(value: object, classes: tuple[str, ...]) -> str:
    if isinstance(value, int) and 0 <= value < len(classes):
        value = classes[value]
    return canonical(value.strip()) if isinstance(value, str) else _NO_SPLIT


def _ordered(names: Iterable[str]) -> tuple[str, ...]:
    """As they came, and those of `datasets` in its order, whatever row is the first."""
    found = dict.fromkeys(names)
    known = [name for name in dict.fromkeys(KEYWORDS.values()) if name in found]
    return (*known, *(name for name in found if name not in known))


def _plain(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Of images only their paths: their bytes tell no split."""
    return struct_field(values, "path") if pa.types.is_struct(values.type) else values


def _folders(value: object) -> tuple[str, ...]:
    """Of a path, or of an image that has one."""
    path = value.get("path") if isinstance(value, dict) else value
    if not isinstance(path, str) or len(path) > _LONGEST_PATH:
        return ()
    return tuple(part for part in path.replace("\\", "/").split("/")[:-1] if part not in ("", "."))
