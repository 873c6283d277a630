"""What an evaluation says against a model, in sentences for its card."""

from collections.abc import Iterator, Sequence

from transformers.utils import logging

from ...core.families import Family, load
from ...evaluation.markdown import escaped
from ...evaluation.records import Figure, Figures
from ...evaluation.tasks.registry import WrittenTask, find_task
from ...evaluation.tasks.task import Task
from .evaluation import Evaluation, Measured, told_apart
from .family import FamilyCard
from .words import counted

logger = logging.get_logger(__name__)


def limits(evaluations: list[Evaluation], skipped: int, family: Family) -> list[str]:
    """Sentences, as Markdown: of what was measured, what was left out, and what was not measured at all.

    Args:
        skipped: images that training could not read.
    """
    said: list[str] = []
    for evaluation in evaluations:
        apart = told_apart(evaluation, evaluations)
        data = escaped(apart or evaluation.data.name)
        said += (line if not apart or data in line else f"{data}: {line}" for line in _of_evaluation(evaluation, data))
    card = load(family.card)
    said += _not_measured(evaluations, family, card)
    if skipped:
        said.append(f"In training, {counted(skipped, 'picture')} could not be read and {_were(skipped)} left out.")
    said.append(f"{card.learned_from} Try it on cases like yours before it decides anything about people.")
    return list(dict.fromkeys(said))


def _of_evaluation(evaluation: Evaluation, data: str) -> Iterator[str]:
    measured = evaluation.measured
    for each in measured:
        if not each.language:
            yield from _of_task(each.task, each.figures, data)
    for task in {each.task.name: each.task for each in measured}.values():
        yield from _of_languages(task, [each for each in measured if each.language and each.task.name == task.name])
    yield from _left_out(evaluation, data)


def _of_task(task: Task, figures: Figures, data: str) -> Iterator[str]:
    if isinstance(task, WrittenTask):
        logger.warning_once(
            f"the task {task.name} is not registered here: the card shows its figures, and not what they say of "
            "limits; to have that too, register it and publish from Python"
        )
    yield from task.limits(figures, data)
    for name, figure in figures.items():
        yield from _beside_chance(escaped(task.label(name)), figure, task)


def _beside_chance(name: str, figure: Figure, task: Task) -> Iterator[str]:
    chance, ceiling, interval = figure.chance, figure.ceiling, figure.interval
    if chance is not None and interval is not None:
        low, high = interval
        beside = "is below" if high < chance else "is above" if low > chance else "cannot be told from"
        if beside != ("is below" if task.lower_is_better(figure.metric) else "is above"):
            yield f"{name}: {figure.bracketed} {beside} chance ({chance:.3f})."
    if ceiling is not None and ceiling < 1:
        yield f"{name}: no model can have more than {ceiling:.3f} here, {task.why_ceiling}."


def _of_languages(task: Task, languages: Sequence[Measured]) -> Iterator[str]:
    found = {each.language: each.headline[0] for each in languages if each.headline}
    if len(found) > 1:
        ordered = sorted(found, key=lambda name: found[name].value)
        lowest, highest = ordered[0], ordered[-1]
        lower = task.lower_is_better(found[lowest].metric)
        best, worst = (lowest, highest) if lower else (highest, lowest)
        yield (
            f"Of {len(found)} languages it reads {escaped(best)} best and {escaped(worst)} worst: "
            f"{escaped(task.short_label(found[best].metric))} is {found[best].bracketed} and {found[worst].bracketed}."
        )
    for language, figure in found.items():
        yield from _beside_chance(f"{escaped(language)}, {escaped(task.label(figure.metric))}", figure, task)


def _left_out(evaluation: Evaluation, data: str) -> Iterator[str]:
    for measured in evaluation.measured:
        yield from (f"{escaped(measured.first.task)}: {escaped(note)}." for note in evaluation.notes_of(measured))
    if skipped := evaluation.skipped:
        yield f"{counted(skipped, 'picture')} of {data} could not be read and {_were(skipped)} not asked about."


def _not_measured(evaluations: list[Evaluation], family: Family, card: FamilyCard) -> Iterator[str]:
    measured = {figure.task_name for evaluation in evaluations for figure in evaluation.figures}
    if not measured:
        yield (
            "Nothing was measured: this model comes without an evaluation. How well it does, and for whom, is not "
            "known; measure it on data like yours (`hf-clip evaluate`) before you rely on it."
        )
        return
    lacking = [find_task(name).phrase for name in family.tasks if name not in measured]
    lacking.append(f"{card.inputs} of another kind than those above")
    lacking.append("differences between groups of people")
    yield f"Not measured: {'; '.join(lacking)}."


def _were(number: int) -> str:
    return "was" if number == 1 else "were"
