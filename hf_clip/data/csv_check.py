"""Finds the line of a CSV file that pandas would blame another one for, or read as something else."""

import csv
import functools
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from ..core.errors import InputError

_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "|"}


def check_csv(file: Path) -> None:
    """
    Raises:
        InputError: another encoding than UTF-8, another separator than a comma, a row of more or fewer fields than
            the first line names, a quote without an end; each with its line.
    """
    about = os.stat(file)
    _check(file, about.st_size, about.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _check(file: Path, size: int, changed_ns: int) -> None:
    """Size and time tell whether the file is still the one that was checked."""
    limit = csv.field_size_limit(sys.maxsize)  # an image may stand in a field
    try:
        with file.open("rb") as opened:
            if opened.read(2) in _UTF16:
                raise InputError(f"{file} is UTF-16: save it as UTF-8")
        with file.open(encoding="utf-8-sig", newline="") as opened:
            _check_fields(file, opened)
    except UnicodeDecodeError:
        raise _not_utf8(file) from None
    except csv.Error as error:
        raise InputError(f"{file} cannot be read as CSV: {error}") from error
    finally:
        csv.field_size_limit(limit)


def _check_fields(file: Path, opened: Iterator[str]) -> None:
    rows = csv.reader(opened)
    header: list[str] = []
    line = 1
    for fields in rows:
        if not fields or (len(fields) == 1 and not fields[0].strip()):
            pass  # pandas leaves out blank lines, too
        elif not header:
            header = fields
            _check_separator(file, fields)
        elif len(fields) != len(header):
            raise InputError(_of_other_width(file, line, fields, header))
        last, line = line, rows.line_num + 1
    if header and _has_open_quote(file, last):
        raise InputError(f'{file}: line {last} opens a quote (") that nothing closes: close it, or double it in text')


def _check_separator(file: Path, fields: list[str]) -> None:
    for separator, called in _SEPARATORS.items():
        if len(fields) == 1 and separator in fields[0]:
            raise InputError(f"{file}: {called} separate its columns: save it with commas")


def _of_other_width(file: Path, line: int, fields: list[str], header: list[str]) -> str:
    more, s = len(fields) > len(header), "s" * (len(fields) > 1)
    fix = 'put a text with a comma in it into "quotes"' if more else "give each row all of them"
    return (
        f"{file}: line {line} has {len(fields)} field{s} where the first line names {len(header)} "
        f"({', '.join(header)[:80]}): {fix}"
    )


def _has_open_quote(file: Path, line: int) -> bool:
    """Whether the last row, which begins in that line, ends within quotes."""
    with file.open(encoding="utf-8-sig", newline="") as opened:
        rest = [text for number, text in enumerate(opened, 1) if number >= line]
    try:
        list(csv.reader(rest, strict=True))
    except csv.Error as error:
        return "unexpected end" in str(error)
    return False


def _not_utf8(file: Path) -> InputError:
    with file.open("rb") as opened:
        for number, line in enumerate(opened, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                byte = line[error.start]
                return InputError(f"{file}: line {number} is not UTF-8 (byte {byte:#04x}): save the file as UTF-8")
    return InputError(f"{file} is not UTF-8: save it as UTF-8")
