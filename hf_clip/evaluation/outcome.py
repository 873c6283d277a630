"""What a measurement leaves: figures, how they were come by, and what each picture adds to them."""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import Tensor

from ..core.errors import InputError, shortened


@dataclass
class Outcome:
    """
    Args:
        metrics: figures by name, in [0, 1] but for counts and ranks.
        protocol: how they were measured: what a reader must know to compare them with another's.
        shares: by the name of a figure, (sums, counts), each (pictures,): the figure is Σ sums / Σ counts. A picture
            is what is drawn anew for a confidence interval, because its captions belong together.
        details: arrays that pictures are drawn from, by name.
        notes: what was left out, and why, in sentences.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    protocol: dict[str, object] = field(default_factory=dict)
    shares: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def checked(self, task: str) -> "Outcome":
        """The same, its figures numbers of Python's own, as a file holds them.

        Raises:
            InputError: a figure of the task, or what its interval is drawn from, is no finite number.
        """
        for name, share in self.shares.items():
            if not all(np.isfinite(part).all() for part in share):
                raise InputError(f"{task} gives shares of {name} that are not all finite numbers: mend its measure")
        return replace(self, metrics={name: _number(value, task, name) for name, value in self.metrics.items()})

    def __or__(self, other: "Outcome") -> "Outcome":
        """Both, the other's where names meet."""
        return Outcome(
            metrics=self.metrics | other.metrics,
            protocol=self.protocol | other.protocol,
            shares=self.shares | other.shares,
            details=self.details | other.details,
            notes=self.notes + other.notes,
        )


def _number(value: object, task: str, name: str) -> float:
    """Of a scalar of numpy's or torch's too; whole ones stay whole, and yes is 1."""
    if isinstance(value, np.generic | np.ndarray | Tensor) and value.ndim == 0:
        value = value.item()
    if not isinstance(value, int | float) or not math.isfinite(value):
        said = shortened(" ".join(repr(value).split()))
        raise InputError(f"{task} gives {name} = {said}, which is no finite number: mend its measure")
    return float(value) if isinstance(value, bool) else value
