"""Several training sets as one, each with its share of every epoch."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from ..core.digests import content_id
from ..core.errors import InputError
from .drawn import Drawn
from .items import Item
from .weights import check_weights, shares_of
from .wrappers import WrappedPairs, as_pairs, gathered, renumbered

Place = Any  # a position, or an array of them


class MixedPairs(Drawn):
    """Items of several `TrainingPairs` (or of torch's `Subset` or `ConcatDataset` of such), weighted.

    An epoch is as long as all sets together. A set with less than its length in it goes on in the next epoch where it
    stopped, one with more begins again; each passes through its rows in an order of its own, drawn once from its seed.
    What an item is depends on (seed, epoch, position) alone. `row` counts through all sets; the names in `skipped`
    begin with their source's.

    Args:
        datasets: whose augmentation, seed and processor stay their own.
        weights: the share of each, in any unit.

    Raises:
        InputError: weights that are not positive numbers, one for each set; sets that draw no pairs.
    """

    def __init__(self, datasets: Sequence[Dataset], weights: Sequence[float]):
        self.datasets: list[Drawn] = [as_pairs(dataset) for dataset in datasets]
        for dataset in self.datasets:
            if not isinstance(dataset, Drawn):
                raise InputError(f"MixedPairs mixes TrainingPairs, not a {type(dataset).__name__}")
        check_weights(weights, len(self.datasets))
        self.starts = [0, *accumulate(len(dataset) for dataset in self.datasets)]  # of each one's rows
        self.shares = shares_of(len(self), weights)
        self.bounds = [0, *accumulate(self.shares)]  # of each one's positions
        self.orders = [_order(dataset) for dataset in self.datasets]
        self.row_starts = [0, *accumulate(dataset.row_span for dataset in self.datasets)]
        self.row_span = self.row_starts[-1]
        self.name = ", ".join(dict.fromkeys(dataset.name for dataset in self.datasets))
        self.seed = self.datasets[0].seed
        self._epoch = torch.zeros((), dtype=torch.long).share_memory_()

    def __len__(self) -> int:
        return self.starts[-1]

    @property
    def epoch(self) -> int:  # type: ignore[override]
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        self._epoch.fill_(epoch)
        for dataset in self.datasets:
            dataset.set_epoch(epoch)

    def at(self, positions: Sequence[int], epochs: Sequence[int]) -> list[Item]:
        return self._items(positions, epochs, "at")

    def read(self, positions: Sequence[int], epochs: Sequence[int]) -> list[Item]:
        return self._items(positions, epochs, "read")

    def _items(self, positions: Sequence[int], epochs: Sequence[int], how: str) -> list[Item]:
        for position in positions:
            if not 0 <= position < len(self):
                raise IndexError(f"position {position} of {len(self)}")
        at, of_epoch = np.asarray(positions), np.asarray(epochs)

        def read(which: int, places: np.ndarray) -> list[Item]:
            dataset = self.datasets[which]
            rows, passes = self._place(which, at[places], of_epoch[places])
            # The pass, not the epoch: a row that comes twice in an epoch is drawn anew.
            items = getattr(dataset, how)(rows.tolist(), passes.tolist())
            return [renumbered(item, self.row_starts[which], dataset.name) for item in items]

        return gathered(np.searchsorted(self.bounds, at, side="right") - 1, read)

    def caption_lengths(self) -> list[int]:
        """Mean characters of the captions at each position of this epoch."""
        lengths = []
        for which, dataset in enumerate(self.datasets):
            rows, _ = self._place(which, np.arange(self.bounds[which], self.bounds[which + 1]), self.epoch)
            lengths += np.asarray(dataset.caption_lengths())[rows].tolist()
        return lengths

    def _place(self, which: int, position: Place, epoch: Place) -> tuple[Place, Place]:
        """(row, how often the set was passed through before) of a position in an epoch."""
        drawn = epoch * self.shares[which] + position - self.bounds[which]
        order = self.orders[which]
        return order[drawn % len(order)], drawn // len(order)


def sets_within(dataset: object) -> list[Any]:
    """What a training set draws from, through mixtures and torch's wrappers: each set once."""
    dataset = as_pairs(dataset)
    inner = dataset.datasets if isinstance(dataset, MixedPairs) else []
    inner = dataset.layout.sets if isinstance(dataset, WrappedPairs) else inner
    found = [each for part in inner for each in sets_within(part)] if inner else [dataset]
    return list({id(each): each for each in found}.values())


def _order(dataset: Drawn) -> np.ndarray:
    seed = content_id(f"{dataset.seed}-order".encode())
    return np.random.default_rng(seed % 2**64).permutation(len(dataset))
