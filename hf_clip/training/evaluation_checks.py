"""Refuses before training what the first evaluation would stumble over: tasks and metrics that a set cannot have."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..core.errors import InputError
from ..data.evaluation_set import EvaluationSet
from ..evaluation.tasks.registry import TASKS, find_task
from ..evaluation.tasks.task import Protocol
from .arguments import HFClipTrainingArguments
from .named_sets import of_no_set, set_of


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
        own = best.removeprefix(f"{name}_" if name else "") if name == chosen else ""
        for task in tasks:
            find_task(task).check(rows, called, args.protocol, own)
        if own and args.eval_strategy != "no" and not own_metrics:
            _check_best(own, tasks, rows, called, args.protocol)


def _check_best(metric: str, tasks: Sequence[str], rows: EvaluationSet, called: str, protocol: Protocol) -> None:
    """
    Args:
        metric: without the name of the set.
    """
    general = re.sub(r"@\d+$", "@K", metric)
    chosen = [figure for task in tasks for figure in find_task(task).choosable(rows, protocol)]
    measured = ["loss"] * rows.has_texts + chosen
    if general in measured:
        return
    wrong = f"{called}, whose eval_tasks are {', '.join(tasks) or 'none'}, has no metric_for_best_model {metric!r}"
    task = next((task for task in TASKS.values() if task.owns(metric)), None)
    if task is None or task.name in tasks:
        raise InputError(f"{wrong}: choose one of {', '.join(measured)}")
    try:
        task.check(rows, called, protocol)
    except InputError as lacking:
        raise InputError(f"{wrong}, and {lacking}") from lacking
    names = ", ".join(task.choosable(rows, protocol))
    raise InputError(
        f"{wrong}: add {task.name} to eval_tasks, which gives {names}, or choose one of {', '.join(measured)}"
    )
