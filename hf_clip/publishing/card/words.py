"""What the words of model cards are made of, as Markdown."""

import re
from urllib.parse import quote

from ...evaluation.markdown import escaped
from .facts import is_hub_id


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


def dataset_link(name: str) -> str:
    return f"[{escaped(name)}](https://huggingface.co/datasets/{quote(name)})" if is_hub_id(name) else escaped(name)
