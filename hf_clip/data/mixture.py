"""Several training sets as one, each with its share of every epoch."""

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch

from ..errors import InputError
from .dataset import TrainingPairs
from .images import content_id


class MixedPairs(torch.utils.data.Dataset):
    """Items of several `TrainingPairs`, weighted.

    An epoch is as long as all sets together. A set with less than its length in it goes on in the next epoch where it
    stopped, one with more begins again; each passes through its rows in an order of its own, drawn once from its seed.
    What an item is depends on (seed, epoch, position) alone. `row` counts through all sets; the names in `skipped`
    begin with their source's.

    Args:
        datasets: whose augmentation, seed and processor stay their own.
        weights: the share of each, in any unit.

    Raises:
        InputError: weights that are not positive numbers, one for each set.
    """

    def __init__(self, datasets: Sequence[TrainingPairs], weights: Sequence[float]):
        self.datasets = list(datasets)
        check_weights(weights, len(self.datasets))
        self.starts = [0, *accumulate(len(dataset) for dataset in self.datasets)]  # of each one's rows
        self.shares = shares_of(len(self), weights)
        self.bounds = [0, *accumulate(self.shares)]  # of each one's positions
        self.orders = [_order(dataset) for dataset in self.datasets]
        self._epoch = torch.zeros((), dtype=torch.long).share_memory_()

    def __len__(self) -> int:
        return self.starts[-1]

    @property
    def epoch(self) -> int:
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        self._epoch.fill_(epoch)
        for dataset in self.datasets:
            dataset.set_epoch(epoch)

    def __getitem__(self, position: int) -> dict[str, Any]:
        return self.__getitems__([position])[0]

    def __getitems__(self, positions: Sequence[int]) -> list[dict[str, Any]]:
        """A batch at once, which a `DataLoader` asks for: each source is asked once."""
        for position in positions:
            if not 0 <= position < len(self):
                raise IndexError(f"position {position} of {len(self)}")
        items: list[dict[str, Any]] = [{}] * len(positions)
        sources = np.searchsorted(self.bounds, positions, side="right") - 1
        for which in np.unique(sources).tolist():
            places = np.flatnonzero(sources == which)
            found = self._items_of(which, np.asarray(positions)[places])
            for place, item in zip(places.tolist(), found, strict=True):
                items[place] = item
        return items

    def _items_of(self, which: int, positions: np.ndarray) -> list[dict[str, Any]]:
        dataset, start = self.datasets[which], self.starts[which]
        rows, passes = self._place(which, positions)
        source = dataset.source.name
        # The pass, not the epoch: a row that comes twice in an epoch is drawn anew.
        items = dataset.at(rows.tolist(), passes.tolist())
        for item in items:
            item["row"] += start
            item["skipped"] = [
                (start + row, f"{source}: row {row + 1}: {name}", why) for row, name, why in item["skipped"]
            ]
        return items

    def caption_lengths(self) -> list[int]:
        """Mean characters of the captions at each position of this epoch."""
        lengths = []
        for which, dataset in enumerate(self.datasets):
            rows, _ = self._place(which, np.arange(self.bounds[which], self.bounds[which + 1]))
            lengths += np.asarray(dataset.caption_lengths())[rows].tolist()
        return lengths

    def _place(self, which: int, position: Any) -> tuple[Any, Any]:
        """(row, how often the set was passed through before) of a position."""
        drawn = self.epoch * self.shares[which] + position - self.bounds[which]
        order = self.orders[which]
        return order[drawn % len(order)], drawn // len(order)


def check_weights(weights: Sequence[float], count: int) -> None:
    if len(weights) != count or count == 0:
        raise InputError(f"{len(weights)} weights for {count} sources: give one for each")
    if not all(weight > 0 and math.isfinite(weight) for weight in weights):
        raise InputError(f"weights must be positive numbers, not {list(weights)}")


def shares_of(total: int, weights: Sequence[float]) -> list[int]:
    """Whole numbers that add up to `total`, as near to the weights as can be (largest remainders)."""
    exact = [total * weight / sum(weights) for weight in weights]
    shares = [math.floor(share) for share in exact]
    largest_remainders = sorted(range(len(exact)), key=lambda i: shares[i] - exact[i])
    for i in largest_remainders[: total - sum(shares)]:
        shares[i] += 1
    return shares


def _order(dataset: TrainingPairs) -> np.ndarray:
    seed = content_id(f"{dataset.seed}-order".encode())
    return np.random.default_rng(seed % 2**64).permutation(len(dataset))
