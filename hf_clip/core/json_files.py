"""JSON files: read in one way, written whole or not at all."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .atomic import write_text
from .errors import InputError


def read_value(file: Path) -> object:
    """
    Raises:
        InputError: the file holds something else than JSON.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file} is no JSON ({error}): write it again, or remove it") from error


def read_json(file: Path) -> dict[str, Any]:
    """A file's mapping; empty where there is no file.

    Raises:
        InputError: it holds something else.
    """
    found = read_value(file) if file.is_file() else {}
    if not isinstance(found, dict):
        raise InputError(f"{file} is no mapping: write it again, or remove it")
    return found


def mapping(value: object) -> dict[str, object]:
    """A value of JSON that should be a mapping; empty where it is none."""
    return value if isinstance(value, dict) else {}


def write_json(file: Path, value: object) -> None:
    """Writes `json_text`; the file's folder is made where there is none."""
    text = json_text(value)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, text)


def json_text(value: object) -> str:
    """
    Raises:
        ValueError: a number in it is NaN or infinite, which JSON does not know.
    """
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def flattened(value: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Mappings within mappings as one, with names such as `model.digest`."""
    flat: dict[str, object] = {}
    for name, inner in value.items():
        flat |= flattened(inner, f"{prefix}{name}.") if isinstance(inner, Mapping) else {f"{prefix}{name}": inner}
    return flat
