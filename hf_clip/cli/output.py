"""What a command prints on stdout: a short table, or with `--json` one JSON object."""

import io
import json
import os
import sys
from collections.abc import Sequence
from typing import Any, TextIO


class Printer:
    """Writes to the stdout that was there when it was made, wherever libraries' output has been sent since."""

    def __enter__(self) -> "Printer":
        self.stream: TextIO = sys.stdout
        self._apart = "WORLD_SIZE" in os.environ and _is_descriptor(sys.stdout, 1)
        if self._apart:
            self.stream = os.fdopen(os.dup(1), "w", encoding=sys.stdout.encoding)
            silence_below_python()
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.flush()
        if self._apart:
            os.dup2(self.stream.fileno(), 1)
            self.stream.close()

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


def silence_below_python() -> None:
    """What C++ prints on stdout goes to stderr: of several processes gloo greets each (seen in torch 2.8 to 2.10)."""
    sys.stdout.flush()
    os.dup2(2, 1)


def _is_descriptor(stream: TextIO, number: int) -> bool:
    try:
        return stream.fileno() == number
    except (io.UnsupportedOperation, AttributeError):  # one that a test or a notebook has put there
        return False


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
