"""Markdown: tables, and what users wrote as mere text."""

import re
from collections.abc import Collection, Sequence

# Underscores inside words and most ampersands have no meaning: names of files stay readable.
_MEANT = re.compile(r"[\\|`*<\[\]~]|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w+;)|^[#>+-]")


def table(header: Sequence[str], rows: Sequence[Sequence[object]], left: Collection[int] = (0,)) -> str:
    """A table of cells that are Markdown already; users' text is `escaped` before.

    Args:
        rows: of cells: numbers with a fraction are shown to three places.
        left: columns aligned on the left; all others hold figures, on the right.
    """
    rules = ["---" if column in left else "--:" for column in range(len(header))]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in [header, rules, *rows])


def _cell(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def escaped(text: str) -> str:
    """A user's text on one line, without meaning in Markdown."""
    return _MEANT.sub(r"\\\g<0>", " ".join(text.split()))
