"""What is evaluated: rows known by their position, and what is known of their captions and labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers.utils import logging

from ..core.errors import InputError
from .dataset import CaptionedImages, TrainingPairs
from .items import Batch
from .mixture import MixedPairs
from .sources import Source
from .wrappers import Layout, check_kind, gathered, is_wrapper, items_at, layout_of, name_of, named

logger = logging.get_logger(__name__)


class EvaluationSet(torch.utils.data.Dataset):
    """A `CaptionedImages`, or what torch's `Subset` and `ConcatDataset` hold of such; or a data set of one's own.

    `row` of an item is its position here, so each counts once, and one that a `Subset` names twice counts twice.
    `TrainingPairs` are measured with all captions, and without augmentation. What it knows of its rows has the names
    that it has in a `Source`: of several sources, captions or labels that all of them have, and classes by name.

    Raises:
        InputError: a stream, `MixedPairs`, or another wrapper than torch's around one of our sets.
    """

    def __init__(self, dataset: torch.utils.data.Dataset):
        layout = layout_of(dataset)
        for each in layout.sets:
            _check(each)
        self.is_wrapped = is_wrapper(dataset)
        self.layout = Layout([_as_captioned(each) for each in layout.sets], layout.which, layout.rows)
        self.name = ", ".join(dict.fromkeys(name_of(each) for each in self.layout.sets))
        sets = self.layout.sets
        self.sources = [each.source for each in sets if isinstance(each, CaptionedImages)]
        self.is_known = len(self.sources) == len(sets)  # and not of one's own
        columns = [source.caption_column for source in self.sources] if self.is_known else [None]
        self.caption_column = columns[0] if all(columns) else None
        # Why labels that some rows have cannot be used.
        self.without_labels = _why_not_labelled(self.sources) if self.is_known else None
        labelled = self.is_known and not self.without_labels
        self.label_column = self.sources[0].label_column if labelled else None
        self.class_names = _all_names(self.sources) if self.label_column else None

    @classmethod
    def of(cls, dataset: torch.utils.data.Dataset) -> "EvaluationSet":
        return dataset if isinstance(dataset, cls) else cls(dataset)

    @property
    def has_texts(self) -> bool:
        """Whether there are captions, or names of classes, which are some."""
        return bool(self.caption_column or (self.label_column and self.class_names))

    @property
    def has_classes(self) -> bool:
        """As of a `Source`."""
        return bool(self.label_column)

    def __len__(self) -> int:
        return len(self.layout)

    def labels(self) -> np.ndarray:
        """As of a `Source`: (rows,) int64, or (rows, classes), boolean; of classes by their place in `class_names`."""
        each = [_renumbered(source.labels(), source.class_names, self.class_names) for source in self.sources]
        starts = np.cumsum([0, *(len(labels) for labels in each)])[:-1]
        return np.concatenate(each)[starts[self.layout.which] + self.layout.rows]

    def __getitem__(self, position: int) -> Any:
        return self.__getitems__([position])[0]

    def __getitems__(self, positions: Sequence[int]) -> list[Any]:
        at = np.asarray(positions, dtype=np.int64)

        def read(which: int, places: np.ndarray) -> list[Any]:
            dataset, mine = self.layout.sets[which], at[places]
            items = items_at(dataset, self.layout.rows[mine].tolist())
            name = name_of(dataset) if self.is_wrapped else ""
            return [_placed(item, position, name) for item, position in zip(items, mine.tolist(), strict=True)]

        return gathered(self.layout.which[at], read)


def positions_of(batch: Batch, asked: Sequence[int]) -> torch.Tensor:
    """(images,): the positions of a batch's images.

    Args:
        batch: of any collator; what it calls `rows` are positions where all of them were asked for.
        asked: the positions that the loader asked for, in order.

    Raises:
        InputError: there are fewer images, and it is not said which.
    """
    said = batch.get("rows")
    if said is not None and len(set(said.tolist()) & set(asked)) == len(said):
        return said
    images = len(batch["pixel_values"])
    if images != len(asked):
        raise InputError(
            f"data_collator gives {images} images of {len(asked)} rows: say in rows, (images,), the `row` of each "
            "item whose image is there"
        )
    return torch.tensor(asked)


def _check(dataset: object) -> None:
    if isinstance(dataset, MixedPairs):
        raise InputError(
            "MixedPairs draw other rows in each epoch: evaluate CaptionedImages of their sources, each by its name or "
            "all in a ConcatDataset"
        )
    check_kind(dataset)


def _as_captioned(dataset: Any) -> Any:
    if not isinstance(dataset, TrainingPairs) or type(dataset).__getitem__ is not TrainingPairs.__getitem__:
        return dataset
    logger.warning_once(f"{dataset.name}: TrainingPairs are evaluated with all captions and without augmentation")
    return CaptionedImages(dataset.source, dataset.image_processor)


def _placed(item: Any, position: int, name: str) -> Any:
    """An item of a position.

    Args:
        name: of the source, where the position is not the row of it.
    """
    if not isinstance(item, dict) or "skipped" not in item:
        return item  # of a set of one's own, whose `row` may be another thing
    if not name:
        return item | {"row": position}
    return item | {"row": position, "skipped": [(position, *named(entry, name)[1:]) for entry in item["skipped"]]}


def _why_not_labelled(sources: Sequence[Source]) -> str | None:
    labelled = [source for source in sources if source.label_column]
    apart = "or evaluate them apart"
    if labelled and len(labelled) < len(sources):
        other = next(source for source in sources if not source.label_column)
        return f"{labelled[0].name} has labels, and {other.name} has none: set label_column for both, {apart}"
    named = [source for source in labelled if source.class_names]
    if named and len(named) < len(labelled):
        other = next(source for source in labelled if not source.class_names)
        known = f"classes of {named[0].name} have names"
        return f"{known}, and those of {other.name} only numbers: give class names, {apart}"
    if numbers := next((source for source in labelled if not source.has_classes), None):
        return f"rows of {numbers.name} have lists of labels, which are only numbers: give class names"
    kinds = {source.labels().ndim: source.name for source in named} if len(named) > 1 else {}
    if len(kinds) > 1:
        return f"rows of {kinds[1]} have one label, and those of {kinds[2]} lists: make them alike, {apart}"
    return None


def _all_names(sources: Sequence[Source]) -> list[str] | None:
    """Those of the first source, and behind them what others have; None where classes are only numbers."""
    first, *others = [source.class_names for source in sources]
    if first is None or all(names == first for names in others):  # two classes may then bear one name
        return first
    return list(dict.fromkeys(name for source in sources for name in source.class_names or ()))


def _renumbered(labels: np.ndarray, own: list[str] | None, names: list[str] | None) -> np.ndarray:
    """Labels by places in `own`, by places in `names`."""
    if own is None or names is None or own == names:
        return labels
    places = {name: place for place, name in enumerate(names)}
    numbers = np.array([places[name] for name in own])
    if labels.ndim == 1:
        return numbers[labels]
    renumbered = np.zeros((len(labels), len(names)), dtype=bool)
    renumbered[:, numbers] = labels
    return renumbered
