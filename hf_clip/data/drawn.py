"""What every training set is: items that are drawn anew in each epoch."""

from abc import abstractmethod
from collections.abc import Sequence, Sized

import torch

from ..core.errors import InputError
from .items import Item


class Drawn(torch.utils.data.Dataset, Sized):
    """A set whose item at a position depends on (seed, epoch, position) alone."""

    name: str  # what the user called its source
    seed: int
    row_span: int  # more than any row that its items, and what was skipped for them, name
    epoch: int

    @abstractmethod
    def set_epoch(self, epoch: int) -> None:
        """Says which epoch begins, also to workers that run already."""

    @abstractmethod
    def read(self, positions: Sequence[int], epochs: Sequence[int]) -> list[Item]:
        """The items of positions, each in an epoch of its own; one whose image cannot be read has no `image_id`."""

    @abstractmethod
    def at(self, positions: Sequence[int], epochs: Sequence[int]) -> list[Item]:
        """The same, where another one stands in place of an item whose image cannot be read."""

    def caption_lengths(self) -> list[int]:
        """Mean characters of the captions at each position of this epoch.

        Raises:
            InputError: the set is of images alone.
        """
        raise InputError(f"{self.name} is read without captions: leave out train_sampling_strategy=group_by_length")

    def __getitem__(self, position: int) -> Item:
        return self.at([position], [self.epoch])[0]

    def __getitems__(self, positions: Sequence[int]) -> list[Item]:
        """A batch at once, which a `DataLoader` asks for."""
        if type(self).__getitem__ is not Drawn.__getitem__:  # of a subclass that gives other items
            return [self[position] for position in positions]
        return self.at(positions, [self.epoch] * len(positions))
