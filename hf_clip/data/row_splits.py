"""Which split each row of a table is of, where one table holds several."""

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import InputError
from .columns import column_batches, struct_field
from .finding import Found
from .named_splits import KEYWORDS, canonical

_COLUMN = "split"
_NO_SPLIT = "(none)"


@dataclass(frozen=True)
class RowSplits:
    """
    Args:
        column: the images' paths, or the names of the splits themselves.
        folders: of paths, the split of what lies in each folder; None: the names stand in the column.
    """

    column: str
    folders: dict[str, str] | None = None

    @property
    def names(self) -> list[str]:
        """As far as they are known before the rows are read."""
        return list(dict.fromkeys((self.folders or KEYWORDS).values()))

    def of(self, record: dict[str, Any], where: str) -> str:
        """
        Raises:
            InputError: an image that lies in none of the folders.
        """
        value = record[self.column]
        if self.folders is None:
            return canonical(value) if isinstance(value, str) else _NO_SPLIT
        path = value.get("path") if isinstance(value, dict) else value
        if (split := self.folders.get(_first_folder(path))) is None:
            raise InputError(
                f"{where}: {path} is in none of {', '.join(self.folders)}, so of no split: move or remove it"
            )
        return split

    def of_rows(self, rows: datasets.Dataset, name: str) -> list[str]:
        return [
            self.of({self.column: value}, f"{name}: row {start + i + 1}")
            for start, values in column_batches(rows, self.column)
            for i, value in enumerate(_plain(values).to_pylist())
        ]


def row_splits_of(rows: Any, first: dict[str, Any] | None, image: str, files: Found) -> RowSplits | None:
    """How rows are of several splits: by the folders that their images lie in, or by a column that is called so; None
    where they are one set, or where the files themselves were chosen by split."""
    if files.kind == "hub" or files.split:
        return None
    if files.folders:
        path = first_value(rows, first, image)
        if _first_folder(path.get("path") if isinstance(path, dict) else path) in files.folders:
            return RowSplits(image, files.folders)
    if _COLUMN in (rows.column_names or first or ()) and image != _COLUMN:
        names = [first[_COLUMN]] if first else _distinct(rows)
        if any(isinstance(name, str) and name.lower() in KEYWORDS for name in names):
            return RowSplits(_COLUMN)
    return None


def first_value(rows: Any, first: dict[str, Any] | None, column: str) -> Any:
    """Of a column, undecoded."""
    if first is not None:
        return first.get(column)
    return next((values[0].as_py() for _, values in column_batches(rows, column) if len(values)), None)


def _distinct(rows: datasets.Dataset) -> set[Any]:
    batches = (values for _, values in column_batches(rows, _COLUMN))
    return {name for values in batches if _is_text(values) for name in pc.unique(_plain(values)).to_pylist()}


def _is_text(values: pa.ChunkedArray) -> bool:
    return pa.types.is_string(values.type) or pa.types.is_large_string(values.type)


def _plain(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Of images only their paths: their bytes tell no split."""
    return struct_field(values, "path") if pa.types.is_struct(values.type) else values


def _first_folder(path: Any) -> str:
    return next(iter(PurePosixPath(path.replace("\\", "/")).parts), "") if isinstance(path, str) else ""
