"""Refuses before training what the first evaluation would stumble over: tasks and metrics that a set cannot have."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..core.errors import InputError
from ..data.evaluation_set import EvaluationSet
from ..evaluation.tasks.registry import TASKS
from .arguments import HFClipTrainingArguments
from .named_sets import of_no_set, set_of

_FAMILIES = dict(zip(("(image|text)_retrieval_", "zero_shot_", r"knn\d*_", "linear_probe_"), TASKS, strict=True))


def check_evaluation(
    args: HFClipTrainingArguments,
    sets: Mapping[str, Any],
    tasks_of: Callable[[Any], Sequence[str]],
    own_metrics: bool = False,
) -> None:
    """
    Args:
        sets: by name; that of a single one may be empty. Of a data set of one's own it is not known what it holds.
        tasks_of: what is measured on a set.
        own_metrics: whether a `compute_metrics` adds figures, of names that are not known yet.

    Raises:
        InputError: a set that cannot be evaluated, lacks what a task needs, or has fewer pictures than a k;
            `metric_for_best_model` is of no set, or its set's tasks do not give it.
    """
    best = (args.metric_for_best_model or "").removeprefix("eval_")
    chosen = set_of(best, sets)
    if best and chosen is None and args.eval_strategy != "no":
        raise InputError(of_no_set(best, sets))
    for name, dataset in sets.items():
        if dataset is None:
            continue
        rows = EvaluationSet.of(dataset)
        tasks, called = tasks_of(rows), f"the evaluation set {name}".rstrip()
        if not rows.is_known:
            continue
        for task in tasks:
            _check_task(task, rows, called, args.eval_neighbours)
        own = best.removeprefix(f"{name}_" if name else "")
        if best and name == chosen and args.eval_strategy != "no" and not own_metrics:
            _check_best(own, tasks, rows, called, args)
        if "retrieval" in tasks:
            _check_ks(args.eval_k or (), own if name == chosen else "", len(rows), called)


def _check_task(task: str, source: EvaluationSet, called: str, neighbours: int) -> None:
    if task == "retrieval":
        if not _captioned(source):
            raise InputError(f"{called} has no captions, which retrieval needs: set caption_column or other tasks")
        return
    if not source.label_column:
        raise InputError(f"{called} has no labels, which {task} needs: set label_column, or other eval_tasks")
    if task == "zero-shot":
        if not source.class_names:
            raise InputError(
                f"the classes of {called} have no names, which zero-shot needs: put them into "
                f"{source.label_column!r} in place of numbers, or set other eval_tasks"
            )
    elif source.labels().ndim == 2:
        raise InputError(
            f"pictures of {called} have several labels, and {task} needs one: set other eval_tasks, such as zero-shot"
        )
    if task == "knn" and neighbours >= len(source):
        raise InputError(
            f"{neighbours} neighbours cannot be chosen from the {len(source) - 1} other pictures of {called}: "
            "set eval_neighbours to fewer"
        )


def _check_best(
    metric: str, tasks: Sequence[str], source: EvaluationSet, called: str, args: HFClipTrainingArguments
) -> None:
    """
    Args:
        metric: without the name of the set.
    """
    general = re.sub(r"@\d+$", "@K", metric)
    measured = ["loss"] * _captioned(source) + [name for task in tasks for name in _metrics_of(task, source, args)]
    if general in measured:
        return
    wrong = f"{called}, whose eval_tasks are {', '.join(tasks) or 'none'}, has no metric_for_best_model {metric!r}"
    task = next((task for family, task in _FAMILIES.items() if re.match(family, metric)), None)
    if task is None or task in tasks:
        raise InputError(f"{wrong}: choose one of {', '.join(measured)}")
    try:
        _check_task(task, source, called, args.eval_neighbours)
    except InputError as lacking:
        raise InputError(f"{wrong}, and {lacking}") from lacking
    names = ", ".join(_metrics_of(task, source, args))
    raise InputError(f"{wrong}: add {task} to eval_tasks, which gives {names}, or choose one of {', '.join(measured)}")


def _metrics_of(task: str, source: EvaluationSet, args: HFClipTrainingArguments) -> list[str]:
    """The figures that can choose a model."""
    if task == "retrieval":
        return [
            f"{way}_retrieval_{what}" for way in ("image", "text") for what in ("recall@K", "map@K", "median_rank")
        ]
    labels = source.labels()
    if labels.ndim == 2:
        return ["zero_shot_map"]
    classes = len(source.class_names or np.unique(labels))
    accuracies = ["acc1", *["acc5"] * (classes >= 5), "mean_per_class_recall"]
    if task == "zero-shot":
        return [f"zero_shot_{what}" for what in (*accuracies, "calibration_error")]
    if task == "knn":
        prefix = f"knn{args.eval_neighbours}_{args.eval_features}_leave_one_out"
        return [f"{prefix}_{what}" for what in ("acc1", "mean_per_class_recall")]
    return [f"linear_probe_{args.eval_features}_own_split_{what}" for what in accuracies]


def _check_ks(asked: Sequence[int], best: str, pictures: int, called: str) -> None:
    of_best = re.search(r"_retrieval_\w+@(\d+)$", best)
    k = max([*asked, int(of_best[1]) if of_best else 0])
    if k > pictures:
        raise InputError(
            f"recall@{k} of the {pictures} pictures of {called} is always 1: set eval_k and metric_for_best_model to "
            "a smaller k"
        )


def _captioned(source: EvaluationSet) -> bool:
    """Whether there are texts; names of classes are some."""
    return bool(source.caption_column or (source.label_column and source.class_names))
