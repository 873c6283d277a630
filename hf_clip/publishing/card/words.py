"""What the words of model cards are made of, as Markdown."""

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from urllib.parse import quote

from ...evaluation.markdown import escaped, table
from ..hub_ids import is_hub_id


def fenced(text: str, language: str = "") -> str:
    """A block of code that nothing in it can end."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def linked(name: str) -> str:
    return f"[{escaped(name)}](https://huggingface.co/{quote(name)})" if is_hub_id(name) else escaped(name)


def number(count: float) -> str:
    """To three places: 110 M, 5.3 k."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return str(count)


def counted(number: float, noun: str, shown: str = ",") -> str:
    """1 step, 1,253 steps."""
    return f"{number:{shown}} {noun}{'' if number == 1 else 's'}"


def dataset_link(name: str) -> str:
    return f"[{escaped(name)}](https://huggingface.co/datasets/{quote(name)})" if is_hub_id(name) else escaped(name)


def picture(file: str) -> str:
    return f"![{escaped(PurePosixPath(file).stem.replace('_', ' '))}]({quote(file)})"


def cell(value: float | None) -> str:
    """A number in a table."""
    return "" if value is None else f"{value:.3f}" if isinstance(value, float) else f"{value:,}"


def without_empty(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table without the columns in which nothing stands."""
    kept = [place for place in range(len(header)) if place == 0 or any(row[place] for row in rows)]
    return table([header[place] for place in kept], [[row[place] for place in kept] for row in rows])


def inline(values: Mapping[str, object]) -> str:
    """Settings by name, in a line."""
    return ", ".join(f"{escaped(name.replace('_', ' '))} {shown(value)}" for name, value in values.items())


def shown(value: object) -> str:
    """A setting."""
    if isinstance(value, dict):
        return inline(value)
    if isinstance(value, list):
        return ", ".join(map(shown, value))
    return escaped(f"{value:g}" if isinstance(value, float) else str(value))
