"""The card's evaluation: what each report in a folder says of its first model, and the tables made of it."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from urllib.parse import quote

from huggingface_hub.dataclasses import strict

from ...core.records import Record
from ...evaluation.markdown import escaped
from ...evaluation.records import DataFacts, Figure, Figures, Results, TaskWords, noted_by
from ...evaluation.report import PAGE, PICTURES, RESULTS, chart_suffixes
from ...evaluation.report_folder import FOLDER
from ...evaluation.tasks.registry import task_of
from ...evaluation.tasks.task import Task
from .words import cell, dataset_link, shown, without_empty

_COLUMNS = ["", "value", "95 % interval", "chance", "best possible"]


@dataclass
class Measured:
    """What was measured of one task, or of it on one language."""

    task: Task
    figures: Figures

    @property
    def first(self) -> Figure:
        return next(iter(self.figures.values()))

    @property
    def language(self) -> str:
        return self.first.language

    @property
    def headline(self) -> list[Figure]:
        """Those that stand for all."""
        return self.task.headline(self.figures)


@strict
@dataclass
class Evaluation(Record):
    """What a card shows of a report; of the first model alone.

    Args:
        folder: where it lies under `evaluation`; ".": it is that folder.
        skipped: how many images could not be read.
        page: the report in words, if it is there.
        pictures: the files that are there.
        tasks: how each is called.
    """

    data: DataFacts
    folder: str
    intervals: str
    figures: list[Figure]
    notes: dict[str, list[str]]
    skipped: int
    page: str | None
    pictures: list[str]
    tasks: dict[str, TaskWords] = field(default_factory=dict)

    @cached_property
    def measured(self) -> list[Measured]:
        """Its figures: by task, then by metric."""
        tasks: dict[str, Figures] = {}
        for figure in self.figures:
            tasks.setdefault(figure.task, {})[figure.metric] = figure
        return [Measured(task_of(list(figures.values()), self.tasks), figures) for figures in tasks.values()]

    @property
    def charts(self) -> list[str]:
        """Its pictures but those of single languages, which its report has: they say little and are many."""
        suffixes = chart_suffixes(figure.task for figure in self.figures)
        languages = tuple(f"{suffixes[figure.task]}.png" for figure in self.figures if figure.language)
        return [name for name in self.pictures if not name.endswith(languages)]

    def notes_of(self, measured: Measured) -> list[str]:
        return self.notes.get(noted_by(measured.first.model, measured.first.task), [])


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
        tasks=first.tasks,
    )


def _says_the_same(one: Evaluation, other: Evaluation) -> bool:
    return all(
        getattr(one, name) == getattr(other, name) for name in ("data", "intervals", "figures", "notes", "skipped")
    )


def told_apart(evaluation: Evaluation, among: Sequence[Evaluation]) -> str:
    """What tells it from others of the same task: its data, if need be its folder too; empty where no other is."""
    own, name = _headed(evaluation), evaluation.data.name
    rivals = [other.data.name for other in among if other is not evaluation and own & _headed(other)]
    folder = evaluation.folder.removeprefix(".") if name in rivals else ""
    return f"{name} ({folder})" if folder else name if rivals else ""


def _headed(evaluation: Evaluation) -> set[str]:
    """What its sections are of; all languages of a task share one."""
    return {f"{figure.task_name}/" if figure.language else figure.task for figure in evaluation.figures}


# ---- in words -----------------------------------------------------------------------------------------------------


def sections(evaluations: Sequence[Evaluation]) -> list[dict[str, str]]:
    """Of each task of each evaluation a title, a table and how it was measured."""
    return [section for evaluation in evaluations for section in _sections(evaluation, evaluations)]


def _sections(evaluation: Evaluation, among: Sequence[Evaluation]) -> Iterator[dict[str, str]]:
    """All languages of a task in one."""
    apart = told_apart(evaluation, among)
    ending = f" on {escaped(apart)}" if apart else ""
    by_language: dict[str, list[Measured]] = {}
    for measured in evaluation.measured:
        if measured.language:
            by_language.setdefault(measured.task.name, []).append(measured)
        else:
            how = " ".join(_how(evaluation, list(measured.figures.values()), _counts(measured.first)))
            yield {"title": escaped(measured.task.title) + ending, "table": _table(measured), "how": how}
    for languages in by_language.values():
        yield _by_language(languages, evaluation, ending)


def _table(measured: Measured) -> str:
    task = measured.task
    shown_here = {name: figure for name, figure in measured.figures.items() if task.in_card(name)}
    rows = [[escaped(task.label(name)), *_cells(task, figure)] for name, figure in shown_here.items()]
    limited = any(figure.ceiling not in (None, 1) for figure in shown_here.values())
    columns = len(_COLUMNS) if limited else len(_COLUMNS) - 1
    return without_empty(_COLUMNS[:columns], [row[:columns] for row in rows])


def _by_language(languages: Sequence[Measured], evaluation: Evaluation, ending: str) -> dict[str, str]:
    """One row a language, with its counts where these differ."""
    task, first = languages[0].task, _counts(languages[0].first)
    counts = [_counts(measured.first) for measured in languages]
    differing = [] if all(each == first for each in counts) else list(dict.fromkeys(chain(*counts)))
    columns = list(dict.fromkeys(_at_k(task, figure) for each in languages for figure in each.headline))
    rows = [_language_row(measured, differing, columns) for measured in languages]
    header = ["language", *differing, "k", *chain(*((column, "chance") for column in columns))]
    every = [figure for measured in languages for figure in measured.figures.values()]
    how = " ".join(_how(evaluation, every, {} if differing else first))
    return {"title": f"{escaped(task.title)} by language{ending}", "table": without_empty(header, rows), "how": how}


def _language_row(measured: Measured, sizes: Sequence[str], columns: Sequence[str]) -> list[str]:
    counts, headline = _counts(measured.first), measured.headline
    found = {_at_k(measured.task, figure): figure for figure in headline}
    cells = [(found[name].bracketed, cell(found[name].chance)) if name in found else ("", "") for name in columns]
    k = next((figure.k for figure in headline if figure.k), None)
    return [escaped(measured.language), *(cell(counts.get(word)) for word in sizes), cell(k), *chain(*cells)]


def _at_k(task: Task, figure: Figure) -> str:
    """A column's title, for figures of any k."""
    return escaped(re.sub(r"@\d+$", "@k", task.short_label(figure.metric)))


def _cells(task: Task, figure: Figure) -> list[str]:
    interval = "{:.3f} to {:.3f}".format(*figure.interval) if figure.interval else ""
    return [task.shown(figure.metric, figure.value), interval, cell(figure.chance), cell(figure.ceiling)]


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
