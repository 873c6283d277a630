"""Figures of each step, logged as means over steps and processes."""

from collections.abc import Callable

import torch
from torch import Tensor


class Meters:
    """Sums that every process keeps of the same figures, on its own device."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    def add(self, name: str, total: Tensor, count: int) -> None:
        """
        Args:
            total: (), over the `count` items of this process's step.
        """
        step = torch.stack([total.detach().float(), torch.tensor(float(count), device=total.device)])
        self._sums[name] = self._sums[name] + step if name in self._sums else step

    def take(self, reduce: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """The means since the last time.

        Args:
            reduce: sums a tensor over all processes.
        """
        means = {}
        for name, sums in self._sums.items():
            total, count = reduce(sums).tolist()
            means[name] = total / max(count, 1)
        self._sums.clear()
        return means
