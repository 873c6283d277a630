"""What a command prints on stdout: a short table, or with `--json` one JSON object."""

import json
import sys
from collections.abc import Sequence
from typing import Any


class Printer:
    """Writes to the stdout that was there when it was made, wherever libraries' output has been sent since."""

    def __enter__(self) -> "Printer":
        self.stream = sys.stdout
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.flush()

    def line(self, text: str = "") -> None:
        print(text, file=self.stream, flush=True)

    def table(self, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Left-aligned first column, right-aligned figures."""
        cells = [[_show(cell) for cell in row] for row in [header, *rows]]
        widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
        for row in cells:
            figures = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
            self.line("  ".join([row[0].ljust(widths[0]), *figures]).rstrip())

    def json(self, value: Any) -> None:
        self.line(json.dumps(value, ensure_ascii=False))


def recall_rows(metrics: dict[str, float], ks: Sequence[int]) -> list[list[Any]]:
    """The table of `evaluate_retrieval`: a row a direction and k, beside chance."""
    names = {"text → image": "image_retrieval", "image → text": "text_retrieval"}
    return [
        [f"{direction} recall@{k}", metrics[f"{name}_recall@{k}"], metrics[f"{name}_chance@{k}"]]
        for direction, name in names.items()
        for k in ks
    ]


def _show(cell: Any) -> str:
    return f"{cell:.3f}" if isinstance(cell, float) else str(cell)
