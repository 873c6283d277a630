"""The tasks by name; a task of one's own joins them."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ...core.errors import InputError, first_line
from ...core.families import load
from ...data.evaluation_set import EvaluationSet
from ...data.sources import Source
from ...embeddings.encode import Embeddings
from ...models.modeling_hf_clip import HFClipModel
from ...models.processing_hf_clip import HFClipProcessor
from ..outcome import Outcome
from ..records import Figure, TaskWords
from .linear_probe import LinearProbe
from .nearest_neighbors import NearestNeighbors
from .retrieval import Retrieval
from .task import Given, Protocol, Task
from .zero_shot import ZeroShot

TASKS: dict[str, Task] = {task.name: task for task in (Retrieval(), ZeroShot(), NearestNeighbors(), LinearProbe())}

_NAME = re.compile(r"[\w-]+")
_NEEDED = ("name", "title", "phrase", "hub_type", "pattern")


def register(task: Task) -> None:
    """Makes a task known by its name: to evaluations, reports, cards and `metric_for_best_model`; in the place of
    one of the same class, or of that class before it was defined anew, as by a notebook's cell run again.

    Raises:
        ValueError: another task has the name, or the task lacks one of its attributes.
    """
    if lacking := [name for name in _NEEDED if not hasattr(task, name)]:
        raise ValueError(f"{type(task).__name__} has no {lacking[0]}: a task needs {', '.join(_NEEDED)}")
    if not _NAME.fullmatch(task.name):
        raise ValueError(f"a task's name is of letters, numbers, - and _: {task.name!r} is none")
    if _defined_at(TASKS.get(task.name, task)) != _defined_at(task):
        raise ValueError(f"there is a task {task.name!r} already: give it another name")
    TASKS[task.name] = task


def _defined_at(task: Task) -> tuple[str, str]:
    return type(task).__module__, type(task).__qualname__


def find_task(name: str) -> Task:
    """The task of a name; of "module:Class" the task that a module of one's own has, which is then known, or the one
    of that class that is known already.

    Raises:
        InputError: there is none.
    """
    if ":" in name:
        return _task_from(name)
    if name not in TASKS:
        raise InputError(f"no task {name!r}: choose one of {', '.join(TASKS)}, or module:Class of one of your own")
    return TASKS[name]


def _task_from(place: str) -> Task:
    try:
        kind = load(place)
    except Exception as error:  # of whatever the module does
        raise InputError(
            f"no task at {place} ({type(error).__name__}: {first_line(error)}): check its name"
        ) from error
    if not (isinstance(kind, type) and issubclass(kind, Task)):
        raise InputError(f"{place} is no class of tasks: derive it from hf_clip.evaluation.tasks.task.Task")
    if known := next((task for task in TASKS.values() if type(task) is kind), None):
        return known
    try:
        task = kind()
        register(task)
    except (TypeError, ValueError) as error:
        raise InputError(f"{place} is no whole task: {first_line(error)}") from error
    return task


def owner_of(metric: str) -> Task | None:
    """The task that a figure is of; the name of an evaluation set may stand before the figure's."""
    parts = metric.split("_")
    names = ["_".join(parts[place:]) for place in range(len(parts))]
    return next((task for name in names for task in TASKS.values() if task.owns(name)), None)


def label(metric: str) -> str:
    """A figure in words."""
    owner = next((task for task in TASKS.values() if task.owns(metric)), None)
    return owner.label(metric) if owner else metric.replace("_", " ")


class WrittenTask(Task):
    """A task that a record tells of and that is not registered here: how it is called, where its figures are shown,
    and no more."""

    def __init__(self, name: str, words: TaskWords | None, figures: Sequence[Figure]):
        words = words or TaskWords(name, name, ("other", name))
        self.name, self.title, self.phrase, self.hub_type = name, words.title, words.phrase, words.hub_type
        self._figures = {figure.metric: figure for figure in figures}
        self.pattern = "|".join(map(re.escape, self._figures))

    def measure(self, given: Given) -> Outcome:
        raise InputError(f"the task {self.name} is not registered: import the module that does")

    def label(self, metric: str) -> str:
        return self._said(metric, "label") or super().label(metric)

    def in_card(self, metric: str) -> bool:
        said = self._said(metric, "in_card")
        return super().in_card(metric) if said is None else said

    def on_hub(self, metric: str) -> bool:
        said = self._said(metric, "on_hub")
        return super().on_hub(metric) if said is None else said

    def hub_metric(self, metric: str) -> str:
        return self._said(metric, "hub_metric") or super().hub_metric(metric)

    def lower_is_better(self, metric: str) -> bool:
        said = self._said(metric, "lower_is_better")
        return super().lower_is_better(metric) if said is None else said

    def _said(self, metric: str, name: str) -> Any:
        """None: the record does not say."""
        return getattr(self._figures.get(metric), name, None)


def task_of(figures: Sequence[Figure], words: Mapping[str, TaskWords]) -> Task:
    """The task of figures that a record holds, as it is registered, or as the record tells of it.

    Args:
        figures: of one task.
        words: the record's, by task.
    """
    name = figures[0].task_name
    if name in TASKS:
        return TASKS[name]
    return WrittenTask(name, words.get(name), figures)


def suiting(captioned: bool, classes: bool) -> list[str]:
    """The tasks that are measured on such data where nobody says what to measure; see `Task.suits`."""
    return [name for name, task in TASKS.items() if task.suits(captioned, classes)]


def tasks_for(data: Source | EvaluationSet | Embeddings, named: bool = False) -> list[str]:
    """Retrieval where there are captions, zero-shot classification where there are labels of classes with names.

    Where the names of the classes are the captions, retrieval would only find pictures of the same class.

    Args:
        named: whether the classes have names, though the data may hold none.
    """
    if isinstance(data, Embeddings):
        labelled, captioned = data.labels is not None, len(data.caption_ids) > 0 and not data.captions_are_classes
    else:
        labelled, captioned = bool(data.label_column), bool(data.caption_column)
    return suiting(captioned, labelled and (named or bool(data.class_names)))


def measure(
    task: str,
    model: HFClipModel,
    processor: HFClipProcessor,
    embeddings: Embeddings,
    protocol: Protocol | None = None,
    *,
    temperature: tuple[Tensor, Tensor | None] | None = None,
    **learned_from: Embeddings | None,
) -> Outcome:
    """Measures one task on embedded data.

    Args:
        task: one of `TASKS`.
        embeddings: of the data to measure on.
        temperature: (logit_scale, logit_bias) on the CPU; default: the model's.
        learned_from: `train` and `validation`, labelled embeddings, for a task that learns from them; without `train`
            the probe is trained on a part of the data itself, and neighbors are the other images of the data.

    Raises:
        InputError: no such task; data that lack what it needs; a figure that is no finite number.
    """
    found = find_task(task)
    found.check_installed()
    given = Given(model, processor, embeddings, protocol or Protocol(), temperature=temperature, **learned_from)
    return found.measure(given).checked(found.name)
