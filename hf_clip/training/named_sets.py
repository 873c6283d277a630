"""Which of several evaluation sets a metric is of."""

from collections.abc import Mapping, Sequence
from typing import Any


def set_of(metric: str, names: Mapping[str, Any] | Sequence[str]) -> str | None:
    """The set that a metric is of, by the name that it begins with; None where it is of none."""
    return max((name for name in names if not name or metric.startswith(f"{name}_")), key=len, default=None)


def of_no_set(metric: str, names: Mapping[str, Any] | Sequence[str]) -> str:
    """What is wrong with a metric that is of none of the named sets."""
    examples = " or ".join(f"{name}_loss" for name in names)
    return (
        f"metric_for_best_model {metric!r} (loss where none is given) is of no evaluation set: "
        f"begin it with the name of one, as in {examples}"
    )
