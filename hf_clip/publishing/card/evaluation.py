"""The card's evaluation: what each report in a folder says of its first model, and the tables made of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from urllib.parse import quote

from huggingface_hub.dataclasses import strict

from ...core.records import Record
from ...evaluation.markdown import escaped, table
from ...evaluation.records import DataFacts, Figure, Results
from ...evaluation.report import PAGE, PICTURES, RESULTS
from ...evaluation.tasks.registry import find_task
from .words import cell, dataset_link, shown, without_empty

FOLDER = "evaluation"
Figures = dict[str, Figure]

_WAYS = {"image": "text → image", "text": "image → text"}
_COLUMNS = ["", "value", "95 % interval", "chance", "best possible"]


@strict
@dataclass
class Evaluation(Record):
    """What a card shows of a report; of the first model alone.

    Args:
        folder: where it lies under `evaluation`; ".": it is that folder.
        skipped: how many images could not be read.
        page: the report in words, if it is there.
        pictures: the files that are there.
    """

    data: DataFacts
    folder: str
    intervals: str
    figures: list[Figure]
    notes: dict[str, list[str]]
    skipped: int
    page: str | None
    pictures: list[str]

    def by_task(self) -> dict[str, Figures]:
        """Its figures: by task, then by metric."""
        tasks: dict[str, Figures] = {}
        for figure in self.figures:
            tasks.setdefault(figure.task, {})[figure.metric] = figure
        return tasks


# ---- what a folder holds ------------------------------------------------------------------------------------------


def evaluations_in(folder: Path) -> list[Evaluation]:
    """Of the reports under `evaluation`; what two say alike is said once.

    Raises:
        InvalidRecord: a report that is none.
    """
    found: list[Evaluation] = []
    for file in sorted(folder.glob(f"{FOLDER}/**/{RESULTS}")):
        evaluation = _evaluation(Results.read(file), file.parent, folder)
        if not any(_says_the_same(evaluation, other) for other in found):
            found.append(evaluation)
    return found


def _evaluation(results: Results, place: Path, folder: Path) -> Evaluation:
    name, lies = results.models[0].name, place.relative_to(folder).as_posix()
    first = results.of_model(results.models[0], name)
    return Evaluation(
        data=first.data,
        folder=place.relative_to(folder / FOLDER).as_posix(),
        intervals=first.intervals,
        figures=first.figures,
        notes=first.notes,
        skipped=len(first.skipped),
        page=f"{lies}/{PAGE}" if (place / PAGE).is_file() else None,
        pictures=[f"{lies}/{PICTURES}/{each}" for each in first.pictures if (place / PICTURES / each).is_file()],
    )


def _says_the_same(one: Evaluation, other: Evaluation) -> bool:
    return all(
        getattr(one, name) == getattr(other, name) for name in ("data", "intervals", "figures", "notes", "skipped")
    )


def told_apart(evaluations: Sequence[Evaluation]) -> list[str]:
    """What tells each from others of the same task: its data, if need be its folder too; empty where no other is."""
    told = []
    for evaluation in evaluations:
        own = _headed(evaluation)
        rivals = [other.data.name for other in evaluations if other is not evaluation and own & _headed(other)]
        name = evaluation.data.name
        folder = evaluation.folder.removeprefix(".") if name in rivals else ""
        told.append(f"{name} ({folder})" if folder else name if rivals else "")
    return told


def _headed(evaluation: Evaluation) -> set[str]:
    """What its sections are of; all languages share one."""
    return {"languages" if figure.language else figure.task for figure in evaluation.figures}


# ---- in words -----------------------------------------------------------------------------------------------------


def label(metric: str) -> str:
    """A figure's name in words: `image_retrieval_recall@5` is "text → image, recall@5"."""
    way, found, rest = metric.partition("_retrieval_")
    if found:
        return f"{_WAYS[way]}, {rest.replace('_', ' ')}"
    words = metric.removeprefix("zero_shot_").replace("_", " ")
    words = "mean average precision" if words == "map" else words
    return words.replace("acc1", "top-1 accuracy").replace("acc5", "top-5 accuracy")


def largest_k(figures: Figures) -> int | None:
    ks = [figure.k for name, figure in figures.items() if name.startswith("image_retrieval_recall@") and figure.k]
    return max(ks, default=None)


def bracketed(figure: Figure) -> str:
    """0.510 [0.427, 0.594]."""
    return f"{figure.value:.3f}" + (" [{:.3f}, {:.3f}]".format(*figure.interval) if figure.interval else "")


def sections(evaluations: Sequence[Evaluation]) -> list[dict[str, str]]:
    """Of each task of each evaluation a title, a table and how it was measured."""
    return [
        section
        for evaluation, apart in zip(evaluations, told_apart(evaluations), strict=True)
        for section in _sections(evaluation, f" on {escaped(apart)}" if apart else "")
    ]


def _sections(evaluation: Evaluation, ending: str) -> Iterator[dict[str, str]]:
    """All languages in one.

    Args:
        ending: of the titles.
    """
    languages: dict[str, Figures] = {}
    for task, figures in evaluation.by_task().items():
        first = next(iter(figures.values()))
        if first.language:
            languages[first.language] = figures
            continue
        shown_here = {name: figure for name, figure in figures.items() if "_map@" not in name}
        rows = [[label(name), *_cells(name, figure)] for name, figure in shown_here.items()]
        if all(figure.ceiling in (None, 1) for figure in shown_here.values()):
            rows = [row[:-1] for row in rows]
        how = " ".join(_how(evaluation, list(figures.values()), _counts(first)))
        shown_table = without_empty(_COLUMNS[: len(rows[0])], rows)
        yield {"title": find_task(task).title + ending, "table": shown_table, "how": how}
    if languages:
        yield _by_language(languages, evaluation, ending)


def _by_language(languages: dict[str, Figures], evaluation: Evaluation, ending: str) -> dict[str, str]:
    """One row a language, with its counts where these differ."""
    counts = {language: _counts(next(iter(figures.values()))) for language, figures in languages.items()}
    first = next(iter(counts.values()))
    differing = {} if all(each == first for each in counts.values()) else dict.fromkeys(chain(*counts.values()))
    header = ["language", *differing, "k", "text → image recall@k", "chance", "image → text recall@k", "chance"]
    rows = []
    for language, figures in languages.items():
        k = largest_k(figures)
        of_both = (figures.get(f"{way}_retrieval_recall@{k}") for way in ("image", "text"))
        cells = [(bracketed(figure), cell(figure.chance)) if figure else ("", "") for figure in of_both]
        sizes = (cell(counts[language].get(word)) for word in differing)
        rows.append([escaped(language), *sizes, str(k), *chain(*cells)])
    every = [figure for figures in languages.values() for figure in figures.values()]
    how = " ".join(_how(evaluation, every, {} if differing else first))
    return {"title": f"Retrieval by language{ending}", "table": table(header, rows), "how": how}


def _cells(name: str, figure: Figure) -> list[str]:
    interval = "{:.3f} to {:.3f}".format(*figure.interval) if figure.interval else ""
    value = f"{figure.value:g}" if name.endswith("rank") else cell(figure.value)
    return [value, interval, cell(figure.chance), cell(figure.ceiling)]


def _counts(figure: Figure) -> dict[str, int]:
    """Of what a figure was measured on, by name."""
    words = {"images": "pictures", "captions": "captions", "classes": "classes"}
    return {word: figure.counts[name] for name, word in words.items() if name in figure.counts}


def _how(evaluation: Evaluation, figures: Sequence[Figure], counts: dict[str, int]) -> Iterator[str]:
    """What a reader must know to compare the figures with another's, in sentences."""
    first, data = figures[0], evaluation.data
    sizes = ", ".join(f"{count:,} {word}" for word, count in counts.items())
    revision = escaped(first.data_revision)
    counted_as = f": {sizes}" if sizes else ""
    yield f"Data: {dataset_link(data.name)}, {escaped(data.split)}, content {revision}{counted_as}."
    if any(figure.interval for figure in figures):
        yield f"Intervals: {escaped(evaluation.intervals)}."
    if first.protocol:
        said = (
            f"{escaped(name.replace('_', ' '))}: {_said(value)}"
            for name, value in first.protocol.items()
            if name != "language"  # which the table says
        )
        yield f"Protocol: {'; '.join(said)}."
    yield f"Weights: {escaped(first.revision)}, {escaped(first.precision)}."
    if evaluation.page:
        yield f"Every figure: [{escaped(evaluation.page)}]({quote(evaluation.page)})."


def _said(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(f"“{escaped(entry)}”" if isinstance(entry, str) else _said(entry) for entry in value)
    return shown(value)


def charts(evaluation: Evaluation) -> list[str]:
    """Its pictures but those of single languages, which its report has: they say little and are many."""
    languages = tuple(f"_{figure.language}.png" for figure in evaluation.figures if figure.language)
    return [name for name in evaluation.pictures if not (languages and name.endswith(languages))]
