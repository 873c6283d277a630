"""An evaluation in full: every figure with its interval and protocol, as JSON and as a page with pictures."""

import importlib.util
import itertools
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from urllib.parse import quote

from transformers import PreTrainedModel

from ..core.atomic import replace_file, write_text
from ..core.digests import weights_digest
from ..core.json_files import json_text
from ..core.version import __version__
from ..data.images import skipped_line
from .intervals import compare, confidence_interval, holm
from .markdown import escaped, table
from .outcome import Outcome
from .records import COUNTS, DataFacts, Difference, Figure, ModelFacts, Results, noted_by
from .tasks.registry import find_task, task_of

RESULTS, PAGE, PICTURES = "results.json", "report.md", "pictures"


@dataclass
class Measured:
    """One model on one task.

    Args:
        task: of `TASKS`; for a language, `retrieval/zh`.
        fingerprint: of what it was measured on; default: the report's data. A language's captions are data of its own.
    """

    model: ModelFacts
    task: str
    outcome: Outcome
    fingerprint: str | None = None

    @property
    def task_name(self) -> str:
        return self.task.partition("/")[0]


def model_facts(model: PreTrainedModel, name: str) -> ModelFacts:
    """What a figure must say of the model that reached it."""
    return ModelFacts(
        name=name,
        revision=getattr(model.config, "_commit_hash", None),
        digest=weights_digest(model),
        precision=str(model.dtype).removeprefix("torch."),
    )


@dataclass
class Report:
    """What was measured of one data set, and how sure it is.

    Args:
        measured: model by model, task by task.
        skipped: (row, name, reason) of the pictures that could not be read.
        skipped_of: the same of other data, by what they were for, as "train".
        resamples: of the bootstrap.
        pictures: file names, as `draw` left them; examples: those that show images of the data.
    """

    data: DataFacts
    measured: list[Measured]
    skipped: list[tuple[int, str, str]] = field(default_factory=list)
    skipped_of: dict[str, list[tuple[int, str, str]]] = field(default_factory=dict)
    resamples: int = 2000
    pictures: list[str] = field(default_factory=list)
    examples: list[str] = field(default_factory=list)

    def figures(self) -> list[Figure]:
        """Every figure with all that it depends on, so that each may be quoted alone."""
        return [figure for measured in self.measured for figure in self._figures_of(measured)]

    def _figures_of(self, measured: Measured) -> Iterator[Figure]:
        metrics, task = measured.outcome.metrics, find_task(measured.task_name)
        counts = {name: int(metrics[name]) for name in COUNTS if name in metrics}
        beside = {other for name in metrics for other in (task.chance(name), task.ceiling(name))}
        for name, value in metrics.items():
            if name in COUNTS or name in beside:
                continue
            share = measured.outcome.shares.get(name)
            low, high = confidence_interval(share, resamples=self.resamples) if share else (None, None)
            k = name.rpartition("@")[2] if "@" in name else None
            yield Figure(
                model=measured.model.name,
                task=measured.task,
                metric=name,
                value=value if isinstance(value, int) else float(value),
                low=low,
                high=high,
                chance=metrics.get(task.chance(name)),
                ceiling=metrics.get(task.ceiling(name)),
                k=int(k) if k else None,
                protocol=measured.outcome.protocol,
                data=self.data.name,
                split=self.data.split,
                data_revision=measured.fingerprint or self.data.fingerprint,
                revision=measured.model.revision or measured.model.digest,
                precision=measured.model.precision,
                **counts,
                label=task.label(name),
                in_card=task.in_card(name),
                on_hub=task.on_hub(name),
                hub_metric=task.hub_metric(name),
                lower_is_better=task.lower_is_better(name),
            )

    def differences(self) -> list[Difference]:
        """Of every other model from the first, figure by figure; p-values over all of them by Holm."""
        first = self.measured[0].model.name
        base = {m.task: m.outcome for m in self.measured if m.model.name == first}
        found = [
            (other, name, compare(base[other.task].shares[name], share, resamples=self.resamples))
            for other in self.measured
            if other.model.name != first
            for name, share in other.outcome.shares.items()
        ]
        adjusted = holm([change.p_value for *_, change in found])
        rows = []
        for (other, metric, change), p_value in zip(found, adjusted, strict=True):
            change = replace(change, p_value=p_value)
            to, task = other.model.name, other.task
            rows.append(Difference(first, to, task, metric, **vars(change), real=change.real))
        return rows

    def models(self) -> list[ModelFacts]:
        return list({m.model.name: m.model for m in self.measured}.values())

    def results(self) -> Results:
        """What `results.json` holds."""
        noted = {noted_by(m.model.name, m.task): m.outcome.notes for m in self.measured}
        return Results(
            hf_clip=__version__,
            models=self.models(),
            data=self.data,
            intervals=f"95 % over pictures, bootstrap, {self.resamples} resamples",
            figures=self.figures(),
            differences=self.differences(),
            notes={where: notes for where, notes in noted.items() if notes},
            skipped=_entries(self.skipped),
            skipped_of={role: _entries(skipped) for role, skipped in self.skipped_of.items()},
            pictures=self.pictures,
            examples=self.examples,
            tasks={task.name: task.words() for task in (find_task(m.task_name) for m in self.measured)},
        )

    def write(self, folder: Path, drawn: Path | None = None) -> Results:
        """Writes `results.json` and `report.md`, each whole or not at all, and puts the pictures beside them; removes
        those that only an earlier report in the folder has.

        Args:
            drawn: where the pictures were drawn; default: they are in their place.

        Returns:
            What `results.json` holds.

        Raises:
            ValueError: a figure that is no number.
        """
        before = written_pictures(folder / RESULTS)
        results = self.results()
        text = json_text(results.to_json())
        if drawn:
            place_pictures(self.pictures, drawn, folder / PICTURES)
        write_text(folder / PAGE, page(results))
        write_text(folder / RESULTS, text)
        remove_pictures(before - set(self.pictures), folder / PICTURES)
        return results


def skipped_lines(results: Results) -> list[str]:
    """A line for each picture that could not be read: "row 3: …", of other data "train: row 3: …"."""
    others = [f"{role}: {skipped_line(*each)}" for role, skipped in results.skipped_of.items() for each in skipped]
    return [skipped_line(*entry) for entry in results.skipped] + others


def _entries(skipped: Iterable[tuple[int, str, str]]) -> list[tuple[int, str, str]]:
    """Of a loader that pins memory they are lists."""
    return [(row, name, reason) for row, name, reason in skipped]


# ---- the page -----------------------------------------------------------------------------------------------------


def page(results: Results) -> str:
    """`results` as Markdown."""
    tasks = list(dict.fromkeys(figure.task for figure in results.figures))
    names = [model.name for model in results.models]
    parts = [f"# Evaluation of {escaped(', '.join(names))}", _about(results)]
    for task in tasks:
        figures = [figure for figure in results.figures if figure.task == task]
        parts += [f"## {_title(figures, results)}", _figure_table(figures, names), *_protocols(figures)]
        differences = [row for row in results.differences if row.task == task]
        if differences:
            parts += [f"### What differs from {escaped(names[0])}", _difference_table(differences)]
    if results.notes:
        lines = [f"- {escaped(where)}: {escaped(note)}" for where, notes in results.notes.items() for note in notes]
        parts += ["## What to know of these figures", "\n".join(lines)]
    parts += [
        f"![{escaped(Path(name).stem.replace('_', ' '))}]({PICTURES}/{quote(name)})" for name in results.pictures
    ]
    if skipped := skipped_lines(results):
        lines = [f"- {escaped(line)}" for line in skipped[:100]]
        more = len(skipped) - len(lines)
        parts += ["## Pictures that could not be read", "\n".join(lines) + (f"\n- and {more} more" if more else "")]
    return "\n\n".join(parts) + "\n"


def _about(results: Results) -> str:
    data, counted = results.data, results.figures[0].counts
    counts = ", ".join(f"{counted[name]:,} {name}" for name in ("images", "captions") if name in counted)
    others = "".join(f", {len(skipped)} of {role}" for role, skipped in results.skipped_of.items() if skipped)
    rows = [
        f"Data: {escaped(data.name)}, split {escaped(data.split)}, content {data.fingerprint}: {counts}; "
        f"{counted.get('skipped_images', 0)} pictures could not be read{others}.",
        *(
            f"Model {escaped(model.name)}: revision {model.revision or model.digest}, {model.precision}."
            for model in results.models
        ),
        *_about_intervals(results),
    ]
    return "\n".join(f"- {row}" for row in rows)


def _about_intervals(results: Results) -> Iterator[str]:
    """What the brackets are of, and which figures have none."""
    bracketed = {figure.metric: figure.interval is not None for figure in results.figures}
    said = (task_of([each], results.tasks).about_interval(each.metric) for each in results.figures if each.interval)
    more = "".join(f"; {escaped(words)}" for words in dict.fromkeys(said) if words)
    yield f"In brackets: {results.intervals}{more}. hf_clip {results.hf_clip}."
    if bare := [metric for metric, has in bracketed.items() if not has]:
        tested = " and no test of the difference" if len(results.models) > 1 else ""
        yield f"Without an interval{tested}: {', '.join(bare)}."


def _figure_table(figures: Sequence[Figure], names: Sequence[str]) -> str:
    metrics = list(dict.fromkeys(figure.metric for figure in figures))
    found = {(figure.metric, figure.model): figure for figure in figures}
    rows = []
    for metric in metrics:
        of_models = [found.get((metric, name)) for name in names]
        first = next(figure for figure in of_models if figure)
        rows.append([metric, *map(_value, of_models), _number(first.chance), _number(first.ceiling)])
    return table(["", *map(escaped, names), "chance", "ceiling"], rows)


def _difference_table(differences: Sequence[Difference]) -> str:
    rows = [
        [
            row.metric,
            escaped(row.to),
            f"{row.value:+.3f} [{row.low:+.3f}, {row.high:+.3f}]",
            f"{row.p_value:.3g}",
            "**yes**" if row.real else "not shown",
        ]
        for row in differences
    ]
    return table(["", "model", "difference", "p (Holm)", "more than chance?"], rows)


def _protocols(figures: Sequence[Figure]) -> list[str]:
    """What the models have in common, and of each what is its own."""
    by_model = {figure.model: figure.protocol for figure in figures}
    first, *others = by_model.values()
    common = {name: value for name, value in first.items() if all(other.get(name) == value for other in others)}
    lines = [f"Protocol: {_said(common)}."] if common or not others else []
    for model, protocol in by_model.items():
        if own := {name: value for name, value in protocol.items() if name not in common}:
            lines.append(f"Protocol of {escaped(model)}: {_said(own)}.")
    return lines


def _said(protocol: dict[str, object]) -> str:
    return "; ".join(escaped(f"{name.replace('_', ' ')}: {_shown(value)}") for name, value in protocol.items())


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(entry)}" for name, entry in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(f"“{entry}”" if isinstance(entry, str) else _shown(entry) for entry in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _value(figure: Figure | None) -> str:
    if figure is None:
        return ""
    return figure.bracketed if figure.interval else _number(figure.value)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}" if isinstance(value, float) else f"{value:,}"


def _title(figures: Sequence[Figure], results: Results) -> str:
    language = figures[0].language
    return escaped(task_of(figures, results.tasks).title) + (f": {escaped(language)}" if language else "")


# ---- pictures -----------------------------------------------------------------------------------------------------


def written_pictures(results: Path) -> set[str]:
    """File names of the pictures that a report names; none where there is no report."""
    try:
        named = json.loads(results.read_text(encoding="utf-8"))["pictures"]
    except (OSError, ValueError, KeyError, TypeError):
        return set()
    return {name for name in named if isinstance(name, str) and name and name == Path(name).name}


def place_pictures(names: Sequence[str], drawn: Path, folder: Path) -> None:
    """Copies pictures from where they were drawn, each whole or not at all."""
    if names:
        folder.mkdir(exist_ok=True)
    for name in names:
        replace_file(folder / name, partial(shutil.copyfile, drawn / name))


def remove_pictures(names: Iterable[str], folder: Path) -> None:
    for name in names:
        (folder / name).unlink(missing_ok=True)


def can_draw() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


def draw(measured: Sequence[Measured], folder: Path) -> list[str]:
    """The charts of all models together; their file names, in the order of the page."""
    names = []
    suffixes = chart_suffixes(m.task for m in measured)
    for task, suffix in suffixes.items():
        of_models = [m for m in measured if m.task == task]
        outcomes = {m.model.name: m.outcome for m in of_models}
        names += find_task(of_models[0].task_name).draw(outcomes, folder, suffix)
    return names


def chart_suffixes(tasks: Iterable[str]) -> dict[str, str]:
    """What the charts' names of each task end in, before ".png", all different: the languages "a/b" and "a_b" would
    else share theirs."""
    suffixes: dict[str, str] = {}
    for task in sorted(set(tasks)):
        plain = task.replace("/", "_").replace("-", "_")
        names = itertools.chain([plain], (f"{plain}_{number}" for number in itertools.count(2)))
        taken = {suffix.casefold() for suffix in suffixes.values()}
        suffixes[task] = next(name for name in names if name.casefold() not in taken)
    return suffixes
