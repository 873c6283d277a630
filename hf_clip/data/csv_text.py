"""Which columns of CSV files are text, whatever they look like: a caption 007 stays as the file has it."""

import csv
import itertools
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..core.errors import InputError
from .columns import Columns
from .text import trimmed

_PEEK = 10_000  # rows of a stream that tell whether its labels are numbers


def csv_header(file: Path) -> list[str]:
    """The names of the columns; [] of a file without a line."""
    return next(_rows(file), [])


def converters_of(files: Sequence[Path], columns: Columns, streaming: bool) -> dict[str, Callable[[str], Any]]:
    """What pandas makes of the fields of a column, in place of what it takes them for.

    Captions and paths are text. Labels are numbers where all of them are, or of a stream the first ones, and else
    names, such as True; fractions are left to pandas, and refused later.

    Args:
        files: well formed, as `check_csv` finds.

    Raises:
        InputError: a row without a label.
    """
    converters: dict[str, Callable[[str], Any]] = {column: str for column in columns[:2] if column}
    if columns.label and columns.label not in converters:
        labels = itertools.chain.from_iterable(_labels(file, columns.label) for file in files)
        kinds = {_kind_of(label) for label in (itertools.islice(labels, _PEEK) if streaming else labels)}
        if float not in kinds or str in kinds:
            converters[columns.label] = int if kinds == {int} else str
    return converters


def _kind_of(field: str) -> type:
    if re.fullmatch(r"[+-]?[0-9]{1,18}", trimmed(field)):
        return int
    try:
        float(field)
    except ValueError:
        return str
    return float


def _labels(file: Path, column: str) -> Iterator[str]:
    rows = _rows(file)
    header = next(rows, [])
    if column in header:
        place = header.index(column)
        for number, row in enumerate(rows, 1):
            if not trimmed(row[place]):
                raise InputError(f"{file}: row {number} has an empty label: fill or remove such rows")
            yield row[place]


def _rows(file: Path) -> Iterator[list[str]]:
    limit = csv.field_size_limit(sys.maxsize)  # an image may stand in a field
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            yield from (row for row in csv.reader(opened) if row and (len(row) > 1 or row[0].strip()))
    finally:
        csv.field_size_limit(limit)
