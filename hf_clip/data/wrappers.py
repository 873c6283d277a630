"""Follows torch's Subset and ConcatDataset down to the sets within: which row of which set stands at a position."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from torch.utils.data import ConcatDataset, Dataset, IterableDataset, Subset

from ..core.digests import digest_of
from ..core.errors import InputError
from .dataset import ImageRows
from .drawn import Drawn
from .items import Item, Skipped
from .sources import Source
from .streaming import StreamedImages

WORKS = "Subset, ConcatDataset, random_split and nestings of them work"
_OURS = (ImageRows, Drawn, StreamedImages)
_LOOKED_AT = 1000  # entries of a list that a data set of another kind holds


@dataclass(frozen=True)
class Layout:
    """Which row of which set stands at each position.

    Args:
        sets: each once, in the order in which they come.
        which, rows: (positions,), the set's place in `sets`, and the row of it.
    """

    sets: list[Any]
    which: np.ndarray
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def digest(self) -> str:
        """Another one where other rows stand, or in another order."""
        return digest_of([self.which.tobytes(), self.rows.tobytes()], size=8).hex()


def gathered(which: np.ndarray, read: Callable[[int, np.ndarray], list]) -> list:
    """Items in the order of `which`, (items,): `read(set, places)` is asked once for each set that is among them."""
    items: list[Any] = [None] * len(which)
    for each in np.unique(which).tolist():
        places = np.flatnonzero(which == each)
        for place, item in zip(places.tolist(), read(each, places), strict=True):
            items[place] = item
    return items


def is_wrapper(dataset: object) -> bool:
    """Whether it is a `Subset` or a `ConcatDataset`, and gives the items that torch's would."""
    return any(
        isinstance(dataset, kind)
        and all(
            getattr(type(dataset), name, None) is getattr(kind, name, None)
            for name in ("__getitem__", "__getitems__", "__len__")
        )
        for kind in (Subset, ConcatDataset)
    )


def layout_of(dataset: Any) -> Layout:
    """Of any data set with a length; one that is no wrapper is the only set within.

    Raises:
        InputError: a stream within a wrapper; indices that are not row numbers of what they choose from.
    """
    sets: list[Any] = []
    which, rows = _places(dataset, sets)
    return Layout(sets, which, rows)


def _places(dataset: Any, sets: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    if not is_wrapper(dataset):
        if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
            raise InputError(f"a {type(dataset).__name__} has no rows to choose from: {WORKS} of sets with a length")
        known = next((place for place, each in enumerate(sets) if each is dataset), len(sets))
        if known == len(sets):
            sets.append(dataset)
        return np.full(len(dataset), known, dtype=np.int32), np.arange(len(dataset))
    if isinstance(dataset, Subset):
        which, rows = _places(dataset.dataset, sets)
        chosen = _chosen(dataset.indices, len(rows))
        return which[chosen], rows[chosen]
    parts = [_places(part, sets) for part in dataset.datasets]
    return np.concatenate([which for which, _ in parts]), np.concatenate([rows for _, rows in parts])


def _chosen(indices: Sequence[int], count: int) -> np.ndarray:
    """A Subset's indices, (positions,)."""
    chosen = np.asarray(indices)
    if chosen.size == 0:
        return np.zeros(0, dtype=np.int64)
    if chosen.ndim != 1 or chosen.dtype.kind not in "iu":
        raise InputError(f"the indices of a Subset are {chosen.ndim}-dimensional {chosen.dtype}: give row numbers")
    if not -count <= chosen.min() <= chosen.max() < count:
        raise InputError(f"a Subset of {count} rows has the indices {chosen.min()} to {chosen.max()}")
    return chosen


def holds_ours(dataset: object) -> bool:
    """Whether it is one of our sets, or holds one, at any depth."""
    return isinstance(dataset, _OURS) or _held(dataset) is not None


def check_no_source(dataset: object) -> None:
    """
    Raises:
        InputError: it is a source, which has rows, but no items.
    """
    if isinstance(dataset, Source):
        raise InputError(
            f"{dataset.name} is a bare Source: to train, give TrainingImages(source, image_processor, Augmentation()) "
            "or TrainingPairs(…); to evaluate, ImageRows(source, image_processor) or CaptionedImages(…)"
        )


def check_kind(dataset: object) -> None:
    """
    Raises:
        InputError: it is a bare source; it holds one of our sets, but is none of the wrappers that are known: it would
            hide which row an item is, its label and, in training, its epoch.
    """
    check_no_source(dataset)
    held = None if isinstance(dataset, _OURS) else _held(dataset)
    if held is not None:
        raise InputError(
            f"a {type(dataset).__name__} around {type(held).__name__} hides the rows, labels and epochs of what it "
            f"holds: {WORKS}, and several sources at once go into MixedPairs or StreamedPairs"
        )


def _held(dataset: object) -> object:
    """The first of our sets that one of another kind holds, at any depth; None where there is none."""
    waiting, seen = [dataset], set()
    while waiting:
        holder = waiting.pop()
        if id(holder) in seen:
            continue
        seen.add(id(holder))
        for value in getattr(holder, "__dict__", {}).values():
            several = list(value.values()) if isinstance(value, dict) else value
            for each in several[:_LOOKED_AT] if isinstance(several, list | tuple) else [value]:
                if isinstance(each, _OURS):
                    return each
                if isinstance(each, Dataset):
                    waiting.append(each)
    return None


class WrappedPairs(Drawn):
    """The items of what torch's wrappers hold, with the hooks of the sets within.

    They are drawn as without a wrapper, from (seed, epoch, row of the set) alone. In place of an image that cannot be
    read stands that of the next position that can: never a row that the wrapper leaves out. `row` and `skipped` count
    through all sets within; of several, the names in `skipped` begin with their source's.
    """

    def __init__(self, layout: Layout):
        self.layout = layout
        self.starts = [0, *accumulate(row_span_of(each) for each in layout.sets)]
        self.row_span = self.starts[-1]
        self.name = ", ".join(dict.fromkeys(name_of(each) for each in layout.sets))
        self.seed = getattr(layout.sets[0], "seed", 0)

    @property
    def epoch(self) -> int:  # type: ignore[override]
        return max(int(getattr(each, "epoch", 0)) for each in self.layout.sets)

    def set_epoch(self, epoch: int) -> None:
        for each in self.layout.sets:
            if hasattr(each, "set_epoch"):  # a set of one's own need not
                each.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.layout)

    def at(self, positions: Sequence[int], epochs: Sequence[int]) -> list[Item]:
        for position in positions:
            if not 0 <= position < len(self):
                raise IndexError(f"position {position} of {len(self)}")
        items = self.read(positions, epochs)
        return [
            item if _is_readable(item) else self._next_readable(item, position, epoch)
            for item, position, epoch in zip(items, positions, epochs, strict=True)
        ]

    def read(self, positions: Sequence[int], epochs: Sequence[int]) -> list[Item]:
        """Each set within is asked once."""
        at, draws = np.asarray(positions, dtype=np.int64), np.asarray(epochs)
        rows = self.layout.rows[at]

        def read(which: int, places: np.ndarray) -> list[Item]:
            within = self.layout.sets[which]
            name = name_of(within) if len(self.layout.sets) > 1 else ""
            items = _items_of(within, rows[places].tolist(), draws[places].tolist())
            return [renumbered(item, self.starts[which], name) for item in items]

        return gathered(self.layout.which[at], read)

    def _next_readable(self, item: Item, position: int, epoch: int) -> Item:
        skipped = list(item["skipped"])
        for further in range(1, len(self)):
            (item,) = self.read([(position + further) % len(self)], [epoch])
            skipped += item.get("skipped", [])
            if _is_readable(item):
                return item | {"skipped": skipped}
        _, name, reason = skipped[0]
        raise InputError(f"no picture of {self.name} can be read; the first, {name}: {reason}")

    def caption_lengths(self) -> list[int]:
        """
        Raises:
            InputError: a set of one's own does not know them.
        """
        lengths = np.zeros(len(self), dtype=np.int64)
        for which, within in enumerate(self.layout.sets):
            if not hasattr(within, "caption_lengths"):
                raise InputError(
                    f"group_by_length asks how long captions are, and {type(within).__name__} does not know: give it "
                    "caption_lengths(), or leave group_by_length out"
                )
            here = self.layout.which == which
            lengths[here] = np.asarray(within.caption_lengths())[self.layout.rows[here]]
        return lengths.tolist()


def as_pairs(dataset: object) -> Any:
    """What training reads of a data set: of torch's wrappers around sets that have hooks, what hands these on.

    Raises:
        InputError: another kind of wrapper around one of our sets, unless it has a `set_epoch` of its own; no rows.
    """
    if not is_wrapper(dataset):
        return _with_hooks(dataset)
    layout = layout_of(dataset)
    if not len(layout):
        raise InputError(f"a {type(dataset).__name__} of {name_of(layout.sets[0])} holds no rows to train on")
    hooked = [isinstance(_with_hooks(each), ImageRows) or hasattr(each, "set_epoch") for each in layout.sets]
    return WrappedPairs(layout) if any(hooked) else dataset


def _with_hooks(dataset: object) -> Any:
    if not hasattr(dataset, "set_epoch"):
        check_kind(dataset)
    return dataset


def row_span_of(dataset: Any) -> int:
    return dataset.row_span if isinstance(dataset, ImageRows | Drawn) else len(dataset)


def name_of(dataset: object) -> str:
    """What its source was called by the user."""
    return dataset.name if isinstance(dataset, ImageRows | Drawn) else type(dataset).__name__


def renumbered(item: Any, start: int, name: str = "") -> Any:
    """An item whose row, and what was skipped for it, count from `start` on.

    Args:
        name: of its source, which the names of what was skipped then begin with.
    """
    if not isinstance(item, dict) or "skipped" not in item:
        return item  # of a set of one's own, whose `row` may be another thing
    skipped = [(start + row, *called) for row, *called in (named(entry, name) for entry in item["skipped"])]
    return item | {"row": start + item["row"], "skipped": skipped} if "row" in item else item | {"skipped": skipped}


def named(entry: Skipped, name: str) -> Skipped:
    """(row, name, reason) of an image that was skipped, its name beginning with its source's, if given, and the row.

    A stream's or a mixture's says them already.
    """
    row, what, why = entry
    return row, what if not name or ": row " in what else f"{name}: row {row + 1}: {what}", why


def _items_of(dataset: Any, rows: list[int], epochs: list[int]) -> list[Any]:
    if isinstance(dataset, Drawn) and all(
        getattr(type(dataset), name) is getattr(Drawn, name) for name in ("__getitem__", "__getitems__")
    ):
        return dataset.read(rows, epochs)
    return items_at(dataset, rows)


def items_at(dataset: Any, rows: list[int]) -> list[Any]:
    """As a `DataLoader` asks for them."""
    return dataset.__getitems__(rows) if hasattr(dataset, "__getitems__") else [dataset[row] for row in rows]


def _is_readable(item: object) -> bool:
    return not isinstance(item, dict) or "skipped" not in item or "image_id" in item
