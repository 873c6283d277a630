"""What a measurement leaves: figures, how they were come by, and what each picture adds to them."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np


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

    def __or__(self, other: "Outcome") -> "Outcome":
        """Both, the other's where names meet."""
        return Outcome(
            metrics=self.metrics | other.metrics,
            protocol=self.protocol | other.protocol,
            shares=self.shares | other.shares,
            details=self.details | other.details,
            notes=self.notes + other.notes,
        )
