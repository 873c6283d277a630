"""What a command prints on stdout: a short table, or with `--json` one JSON object."""

import io
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from ..core.stdout import silence_below_python


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


def _is_descriptor(stream: TextIO, number: int) -> bool:
    try:
        return stream.fileno() == number
    except (io.UnsupportedOperation, AttributeError):  # one that a test or a notebook has put there
        return False


def metric_rows(metrics: Mapping[str, Any], *others: Mapping[str, Any]) -> list[list[Any]]:
    """A row for each figure of a task: its name, its value, those of the same name in `others`, and what a guess
    reaches. Where a task has figures beside chance, these alone."""
    from ..evaluation.tasks.registry import TASKS

    rows = []
    for task in TASKS.values():
        own = [metric for metric in metrics if task.owns(metric)]
        beside = {other for metric in own for other in (task.chance(metric), task.ceiling(metric))}
        guessed = [metric for metric in own if task.chance(metric) in metrics]
        for metric in guessed or [metric for metric in own if metric not in beside]:
            values = [each.get(metric, "") for each in (metrics, *others)]
            rows.append([task.short_label(metric), *values, metrics.get(task.chance(metric), "")])
    return rows


def _show(cell: Any) -> str:
    return f"{cell:.3f}" if isinstance(cell, float) else str(cell)
