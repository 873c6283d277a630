"""The tasks by name; a task of one's own joins them."""

from typing import Any

from torch import Tensor

from ...core.errors import InputError
from ...data.evaluation_set import EvaluationSet
from ...data.sources import Source
from ...embeddings.encode import Embeddings
from ...models.modeling_hf_clip import HFClipModel
from ...models.processing_hf_clip import HFClipProcessor
from ..outcome import Outcome
from .linear_probe import LinearProbe
from .nearest_neighbors import NearestNeighbors
from .retrieval import Retrieval
from .task import Given, Protocol, Task
from .zero_shot import ZeroShot

TASKS: dict[str, Task] = {task.name: task for task in (Retrieval(), ZeroShot(), NearestNeighbors(), LinearProbe())}


def register(task: Task) -> None:
    """Makes a task known by its name: to evaluations, reports, cards and `metric_for_best_model`.

    Raises:
        ValueError: another task has the name.
    """
    if type(TASKS.get(task.name, task)) is not type(task):
        raise ValueError(f"there is a task {task.name!r} already: give it another name")
    TASKS[task.name] = task


def find_task(name: str) -> Task:
    """The task of a name; of a language's, as in "retrieval/zh", the task.

    Raises:
        InputError: there is none.
    """
    task = TASKS.get(name.partition("/")[0])
    if task is None:
        raise InputError(f"no task {name!r}: choose one of {', '.join(TASKS)}")
    return task


def tasks_for(data: Source | EvaluationSet | Embeddings) -> list[str]:
    """Retrieval where there are captions, zero-shot classification where there are labels of classes with names.

    Where the names of the classes are the captions, retrieval would only find pictures of the same class.
    """
    if not isinstance(data, Embeddings):
        captioned, classes = bool(data.caption_column), data.class_names if data.label_column else None
    else:
        classes = data.class_names if data.labels is not None else None
        captioned = len(data.caption_ids) > 0 and not data.captions_are_classes
    return [name for name, task in TASKS.items() if task.suits(captioned, bool(classes))]


def measure(
    task: str,
    model: HFClipModel,
    processor: HFClipProcessor,
    embeddings: Embeddings,
    protocol: Protocol | None = None,
    *,
    temperature: tuple[Tensor, Tensor | None] | None = None,
    **learned_from: Any,
) -> Outcome:
    """Measures one task on embedded data.

    Args:
        task: one of `TASKS`.
        embeddings: of the data to measure on.
        temperature: (logit_scale, logit_bias) on the CPU; default: the model's.
        learned_from: `train` and `validation`, labelled embeddings, for a task that learns from them; without `train`
            the probe is trained on a part of the data itself, and neighbors are the other images of the data.

    Raises:
        InputError: no such task; data that lack what it needs.
    """
    found = find_task(task)
    found.check_installed()
    return found.measure(
        Given(model, processor, embeddings, protocol or Protocol(), temperature=temperature, **learned_from)
    )
