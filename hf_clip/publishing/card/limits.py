"""What an evaluation says against a model, in sentences for its card."""

from collections.abc import Iterator
from typing import Any

from ...core.families import Family, load
from ...evaluation.markdown import escaped
from ...evaluation.records import Figure
from ...evaluation.tasks.registry import find_task
from .evaluation import Evaluation, Figures, bracketed, label, largest_k, told_apart
from .family import FamilyCard

_OFTEN_WRONG = 0.05  # a calibration error above it is one to be warned of


def limits(evaluations: list[Evaluation], training: dict[str, Any], family: Family) -> list[str]:
    """Sentences, as Markdown: of what was measured, what was left out, and what was not measured at all."""
    said: list[str] = []
    for evaluation, apart in zip(evaluations, told_apart(evaluations), strict=True):
        data = escaped(apart or evaluation.data.name)
        said += (line if not apart or data in line else f"{data}: {line}" for line in _of_evaluation(evaluation, data))
    card = load(family.card)
    said += _not_measured(evaluations, family, card)
    if skipped := training.get("skipped_pictures"):
        said.append(f"In training, {counted(skipped, 'picture')} could not be read and {_were(skipped)} left out.")
    said.append(f"{card.learned_from} Try it on cases like yours before it decides anything about people.")
    return list(dict.fromkeys(said))


def _of_evaluation(evaluation: Evaluation, data: str) -> Iterator[str]:
    for task, figures in evaluation.by_task().items():
        if not task.startswith("retrieval/"):
            yield from _of_figures(figures, data)
    yield from _of_languages(evaluation)
    yield from _left_out(evaluation, data)


def _of_figures(figures: Figures, data: str) -> Iterator[str]:
    yield from _of_retrieval(figures, data)
    yield from _of_classes(figures, data)
    for name, figure in figures.items():
        yield from _beside_chance(label(name), figure)


def _of_retrieval(figures: Figures, data: str) -> Iterator[str]:
    k = largest_k(figures)
    if k is None:
        return
    to_image, to_text = (figures[f"{way}_retrieval_recall@{k}"] for way in ("image", "text"))
    images, captions = to_image.images, to_image.captions
    yield (
        f"Retrieval on {data}: given a caption, its picture is among the first {k} of {images:,} in "
        f"{percent(to_image.value)} of the cases, and in {percent(1 - to_image.value)} it is not; given a "
        f"picture, one of its captions is among the first {k} of {captions:,} in {percent(to_text.value)}."
    )
    if to_image.low is not None and to_text.low is not None and _apart(to_image, to_text):
        better, worse = ("pictures", "texts") if to_image.value > to_text.value else ("texts", "pictures")
        yield (
            f"It finds {better} clearly better than {worse}: recall@{k} is {bracketed(to_image)} for pictures and "
            f"{bracketed(to_text)} for texts."
        )
    ranks = [figures.get(f"{way}_retrieval_median_rank") for way in ("image", "text")]
    if all(ranks):
        yield (
            f"The median rank of the right picture is {ranks[0].value:g} of {images:,}, that of the right caption "
            f"{ranks[1].value:g} of {captions:,}."
        )


def _of_classes(figures: Figures, data: str) -> Iterator[str]:
    accuracy, recall = figures.get("zero_shot_acc1"), figures.get("zero_shot_mean_per_class_recall")
    if accuracy:
        yield (
            f"Zero-shot classification on {data}: of {accuracy.classes:,} classes the right one comes first for "
            f"{percent(accuracy.value)} of the pictures, and another for {percent(1 - accuracy.value)}."
        )
    if accuracy and recall and accuracy.value - recall.value > 0.01:
        yield (
            f"Every class counted alike, it is right in {percent(recall.value)}, which is less than over the "
            "pictures: rarer classes fare worse."
        )
    error = figures.get("zero_shot_calibration_error")
    if error:
        warning = ": do not take them for frequencies" if error.value > _OFTEN_WRONG else ""
        yield f"Its probabilities are off by {error.value:.3f} on average (expected calibration error){warning}."


def _beside_chance(name: str, figure: Figure) -> Iterator[str]:
    chance, ceiling = figure.chance, figure.ceiling
    if chance is not None and figure.low is not None and figure.low <= chance:
        verdict = "cannot be told from" if chance <= figure.high else "is below"
        yield f"{name}: {bracketed(figure)} {verdict} chance ({chance:.3f})."
    if ceiling is not None and ceiling < 1:
        yield f"{name}: no model can have more than {ceiling:.3f} here, as captions stand on several pictures."


def _of_languages(evaluation: Evaluation) -> Iterator[str]:
    found = {}
    for task, figures in evaluation.by_task().items():
        if task.startswith("retrieval/") and (k := largest_k(figures)):
            found[task.partition("/")[2]] = figures[f"image_retrieval_recall@{k}"]
    if len(found) > 1:
        best, worst = (choose(found, key=lambda name: found[name].value) for choose in (max, min))
        yield (
            f"Of {len(found)} languages it reads {escaped(best)} best and {escaped(worst)} worst: text → image "
            f"recall@{found[best].k} is {bracketed(found[best])} and {bracketed(found[worst])}."
        )
    for language, figure in found.items():
        yield from _beside_chance(f"{escaped(language)}, {label(figure.metric)}", figure)


def _left_out(evaluation: Evaluation, data: str) -> Iterator[str]:
    for where, notes in evaluation.notes.items():
        task = where.rpartition(" / ")[2]
        yield from (f"{escaped(task)}: {escaped(note)}." for note in notes)
    if skipped := evaluation.skipped:
        yield f"{counted(skipped, 'picture')} of {data} could not be read and {_were(skipped)} not asked about."


def _not_measured(evaluations: list[Evaluation], family: Family, card: FamilyCard) -> Iterator[str]:
    measured = {task.partition("/")[0] for evaluation in evaluations for task in evaluation.by_task()}
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


def _apart(one: Figure, other: Figure) -> bool:
    return one.low > other.high or other.low > one.high


def percent(share: float) -> str:
    """To two places that say something, and never a 0 or 100 that it is not."""
    return f"{100 * share:.0f} %" if share in (0, 1) or 0.1 <= share <= 0.9 else f"{100 * share:.1f} %"


def counted(number: float, noun: str, shown: str = ",") -> str:
    """1 step, 1,253 steps."""
    return f"{number:{shown}} {noun}{'' if number == 1 else 's'}"


def _were(number: int) -> str:
    return "was" if number == 1 else "were"
