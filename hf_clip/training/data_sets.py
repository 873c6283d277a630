"""What a trainer is given as data, made into data sets: a source, a name of one, or what `datasets` has opened."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard, Unpack

import datasets
from torch.utils.data import Dataset

from ..core.errors import InputError
from ..data.augmentation import Augmentation
from ..data.columns import ColumnSettings
from ..data.dataset import CaptionedImages, TrainingPairs
from ..data.mixture import MixedPairs
from ..data.named_splits import EVALUATION, TRAINING
from ..data.opened import Opened, is_opened, name_of_rows, split_of
from ..data.sources import Source, open_source
from ..data.streaming import Part, StreamedPairs
from ..evaluation.tasks.registry import TASKS
from ..models.processing_hf_clip import HFClipProcessor
from .arguments import HFClipTrainingArguments
from .parts import no_processor


@dataclass(frozen=True)
class Drawing:
    """How training draws of its sources.

    Args:
        weights: how much of an epoch is drawn from each of several, in any unit; default: all their rows.
        shuffle_buffer: rows of a stream among which the next is drawn.
    """

    augmentation: Augmentation = field(default_factory=Augmentation)
    weights: Sequence[float] | None = None
    shuffle_buffer: int = 1000


def training_pairs(
    sources: Sequence[Source],
    processor: HFClipProcessor,
    args: HFClipTrainingArguments,
    drawing: Drawing | None = None,
) -> Dataset:
    """The training set of one source, of several, or of streams, by the seeds of the arguments.

    Raises:
        InputError: streams without `max_steps`; a source without one readable image, or without captions; one row.
    """
    drawing, images = drawing or Drawing(), processor.image_processor
    if sources[0].streaming:
        if args.max_steps < 1:
            raise InputError(f"{sources[0].name} is a stream, which has no length: set max_steps, how long to train")
        seed, part = args.seed if args.data_seed is None else args.data_seed, Part(args.process_index, args.world_size)
        return StreamedPairs(
            sources, images, drawing.augmentation, seed, drawing.weights, drawing.shuffle_buffer, part
        )
    each = [TrainingPairs(source, images, drawing.augmentation, args.seed) for source in sources]
    if sum(map(len, each)) < 2:
        raise InputError(f"{sources[0].name} has one row: a pair learns from others, so give two or more")
    for pairs in each:
        pairs[0]  # a source without one readable picture is refused here, not in a worker
    if len(each) == 1 and drawing.weights is None:
        return each[0]
    return MixedPairs(each, [len(pairs) for pairs in each] if drawing.weights is None else drawing.weights)


def open_evaluation(
    given: str | Path | Opened,
    args: HFClipTrainingArguments,
    split: str | None = None,
    data_config: str | None = None,
    **columns: Unpack[ColumnSettings],
) -> Source:
    """A source to evaluate on while training: with labels where `eval_tasks` need them.

    Args:
        split: of several; default: test, or else validation; the other way round where the run chooses its best
            checkpoint by it.

    Raises:
        InputError: as of `open_source`.
    """
    labelled = any(TASKS[task].needs_labels for task in args.eval_tasks or ())
    return open_source(
        given, split=split or evaluation_splits(args), data_config=data_config, labels_required=labelled, **columns
    )


def evaluation_splits(args: HFClipTrainingArguments) -> tuple[str, ...]:
    """What chooses a checkpoint says no more how good it is."""
    return EVALUATION[::-1] if args.load_best_model_at_end else EVALUATION


def take_columns(settings: dict[str, Any]) -> ColumnSettings:
    """Out of a trainer's arguments, those that are of `open_source`."""
    columns: Any = {name: settings.pop(name) for name in ColumnSettings.__annotations__ if name in settings}
    return columns


@dataclass(frozen=True)
class DataOpener:
    """Makes data sets of what a trainer is given, and leaves data sets as they are.

    Args:
        columns: which are meant, as for `open_source`.
        takes_rows: whether rows that `datasets` has opened go into a collator of the user's own as they are.
    """

    args: HFClipTrainingArguments
    processor: HFClipProcessor | None
    columns: ColumnSettings
    takes_rows: bool

    def data_sets(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Those of a trainer's arguments.

        Raises:
            InputError: columns that are named of data that nothing here opens; as below.
        """
        sets = {name: given[name] for name in ("train_dataset", "eval_dataset") if name in given}
        evaluated = given.get("eval_dataset")
        named = list(evaluated.values()) if _is_named(evaluated) else [evaluated]
        if self.columns and not any(map(self._opens, [given.get("train_dataset"), *named])):
            raise InputError(
                f"{', '.join(self.columns)} is of data that the trainer opens, and here are none: give it to "
                "open_source"
            )
        make = {"train_dataset": self.training_set, "eval_dataset": self.evaluation_set}
        return {name: make[name](data) for name, data in sets.items()}

    def training_set(self, given: object) -> Any:
        """
        Raises:
            InputError: several; a table that is no data set; as of `open_source` and `training_pairs`.
        """
        if _is_named(given) or _is_several(given):
            kind = type(given).__name__
            raise InputError(f"train_dataset is a {kind}: give one data set, or several as MixedPairs")
        _check_table(given, "train_dataset")
        if not self._is_data(given):
            return self._chosen(given, TRAINING)
        source = given if isinstance(given, Source) else open_source(given, **self.columns)
        return training_pairs([source], self.processor, self.args)

    def evaluation_set(self, given: object) -> Any:
        """Of several by name, each.

        Raises:
            InputError: a stream; several without names, or none; a table that is no data set; data to open without a
                processor; a dict of splits without one to evaluate on; as of `open_source`.
        """
        if _is_named(given):
            if not given:
                raise InputError("eval_dataset is an empty dict: give a data set, or leave it out")
            return {name: self.evaluation_set(each) for name, each in given.items()}
        if _is_several(given):
            raise InputError(f'eval_dataset is a {type(given).__name__}: give several as a dict, {{"name": data, …}}')
        _check_table(given, "eval_dataset")
        if not self._is_data(given):
            chosen = self._chosen(given, evaluation_splits(self.args))
            if isinstance(chosen, datasets.IterableDataset):
                raise _no_stream(name_of_rows(chosen))
            return chosen
        source = given if isinstance(given, Source) else open_evaluation(given, self.args, **self.columns)
        if source.streaming:
            raise _no_stream(source.name)
        return CaptionedImages(source, self.processor.image_processor)

    def _is_data(self, given: object) -> bool:
        if not (isinstance(given, Source) or self._opens(given)):
            return False
        if self.processor is None:
            raise no_processor()
        return True

    def _chosen(self, given: object, splits: Sequence[str]) -> Any:
        """Of a dict of splits that goes into a user's collator, one."""
        is_dict = is_opened(given) and isinstance(given, Mapping)
        return split_of(given, splits, name_of_rows(given))[0] if is_dict else given

    def _opens(self, given: object) -> bool:
        """Whether it is a name, or rows that are not left to the user's collator."""
        return isinstance(given, str | Path) or (is_opened(given) and not self.takes_rows)


def _is_named(given: object) -> TypeGuard[Mapping[str, object]]:
    """Whether it is several evaluation sets by name."""
    return isinstance(given, Mapping) and not is_opened(given)


def _is_several(given: object) -> bool:
    """Whether it is a list of what would each be opened."""
    return isinstance(given, list | tuple) and any(isinstance(each, str | Path | Source | Opened) for each in given)


def _check_table(given: object, role: str) -> None:
    if hasattr(given, "iloc"):  # of pandas, which need not be imported to know it
        raise InputError(f"{role} is a {type(given).__name__}: give datasets.Dataset.from_pandas(…) of it")


def _no_stream(name: str) -> InputError:
    return InputError(
        f"{name} is a stream, and evaluation measures every row of a set once: give a Dataset, such as "
        "datasets.Dataset.from_list(list(stream.take(1000))), or open it without streaming"
    )
