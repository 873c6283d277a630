"""Finds the line of a JSON file with text that its readers do not take, or lose."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ..core.errors import InputError
from .text import check_text

_HALF_OF_A_PAIR = re.compile(rb"\\u[dD][89a-fA-F]")  # or a whole one
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_BOM = b"\xef\xbb\xbf"


def check_json(files: Sequence[Path | str], lists_alone: bool = False) -> None:
    """
    Args:
        lists_alone: only files that are one list of objects: of these `datasets` makes a null of such a text.

    Raises:
        InputError: a text that is not UTF-8, or holds half of a surrogate pair; with its row.
    """
    for file in map(Path, files):
        if file.suffix.lower() not in (".json", ".jsonl") or not file.is_file():
            continue
        with file.open("rb") as opened:
            start = opened.read(4096).removeprefix(_BOM).lstrip()
            if start.startswith(_UTF16):
                raise InputError(f"{file} is UTF-16: save it as UTF-8")
            opened.seek(0)
            if start.startswith(b"["):
                _check_rows(file, _entries(opened.read()))
            elif not lists_alone:
                _check_rows(file, enumerate(opened, 1))


def _entries(content: bytes) -> Iterator[tuple[int, bytes]]:
    if _HALF_OF_A_PAIR.search(content):
        try:
            entries = json.loads(content)
        except ValueError:
            return
        yield from ((row, json.dumps(entry).encode()) for row, entry in enumerate(entries, 1))


def _check_rows(file: Path, rows: Iterable[tuple[int, bytes]]) -> None:
    for row, line in rows:
        try:
            line.decode()
            if _HALF_OF_A_PAIR.search(line):
                _check_value(json.loads(line), f"{file}: row {row}", "")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{file}: row {row} is not UTF-8 ({line[max(0, error.start - 20) : error.start + 20]!r}): save the "
                "file as UTF-8"
            ) from error
        except InputError:
            raise
        except ValueError:  # no JSON by itself, which its reader says
            continue


def _check_value(value: object, where: str, name: str) -> None:
    if isinstance(value, str):
        check_text(value, where, repr(name))
    elif isinstance(value, dict):
        for field, inner in value.items():
            check_text(field, where, "the name of a field")
            _check_value(inner, where, f"{name}.{field}" if name else field)
    elif isinstance(value, list):
        for inner in value:
            _check_value(inner, where, name)
