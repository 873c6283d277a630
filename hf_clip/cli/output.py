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


_SHOWN = {
    "image_retrieval_": "text → image ",
    "text_retrieval_": "image → text ",
    "zero_shot_": "zero-shot ",
    "knn": "knn",
    "linear_probe_": "linear probe ",
}


def metric_rows(metrics: dict[str, Any]) -> list[list[Any]]:
    """A row for each recall and accuracy, beside chance."""
    rows = []
    for metric, value in metrics.items():
        chance = metrics.get(metric.replace("recall@", "chance@") if "recall@" in metric else f"{metric}_chance")
        prefix = next((prefix for prefix in _SHOWN if metric.startswith(prefix)), None)
        if prefix and chance is not None:
            rows.append([_SHOWN[prefix] + metric.removeprefix(prefix), value, chance])
    return rows


def _show(cell: Any) -> str:
    return f"{cell:.3f}" if isinstance(cell, float) else str(cell)
