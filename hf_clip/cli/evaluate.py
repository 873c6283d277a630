"""`hf-clip evaluate`: how good trained models are on captioned or labelled pictures."""

import argparse
import importlib.util
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import InputError
from ..core.temporary import temporary_folder
from .output import Printer
from .parsing import Parser, add_data_settings, add_shared_settings, open_model, positive_int
from .report_folder import prepare_folder

if TYPE_CHECKING:
    from ..evaluation.data import EvaluationData, EvaluationSettings
    from ..evaluation.records import ModelFacts, Results
    from ..evaluation.report import Report

TASKS = ("retrieval", "zero-shot", "knn", "linear-probe")  # as evaluation has them, which `--help` need not import


def run(arguments: list[str], printer: Printer) -> None:
    settings = _parser().parse_args(arguments)

    from ..evaluation import report
    from ..evaluation.data import EvaluationData
    from ..evaluation.prompts import open_class_names, open_templates

    folder = prepare_folder(settings.output, report.RESULTS)
    classes = open_class_names(settings.class_names) if settings.class_names else None
    open_templates(settings.templates)  # before the work
    models = _names(settings.model)
    if len(models) > 1 and importlib.util.find_spec("scipy") is None:
        raise InputError('to compare models needs scipy: pip install "hf_clip[eval]"')
    data = EvaluationData(_settings_of(settings, classes))
    if len(models) > 1:  # not to find after hours that the last one cannot be opened
        for model_name in models.values():
            data.check(open_model(model_name)[0])
    evaluation = report.Report(data.facts, measured=[], resamples=settings.resamples)
    grids = []
    with temporary_folder() as aside:
        for name, model_name in models.items():
            grids += _measure(name, model_name, data, settings, evaluation, aside)
        if report.can_draw():
            evaluation.pictures = report.draw(evaluation.measured, aside) + grids
        else:
            print('no pictures without matplotlib: pip install "hf_clip[eval]"', file=sys.stderr)
        results = evaluation.write(folder, aside)
    if settings.json:
        printer.json(results.to_json() | {"output": settings.output})
        return
    _print(printer, results)
    for line in report.skipped_lines(results):
        printer.line(f"skipped {line}")
    printer.line(f"figures, protocol and pictures: {folder / report.PAGE}")


def _names(models: list[str]) -> dict[str, str]:
    """Folders and Hub ids by what they are called in the report; of folders of the same name, with those above them as
    far as it takes to tell them apart."""
    from ..core.public import public_name

    if len({Path(model).resolve() for model in models}) < len(models):
        raise InputError(f"--model {' '.join(models)} names a model twice: give each once")
    called, parts = [public_name(model) for model in models], 1
    while len(set(called)) < len(called):
        parts += 1
        called = [
            str(Path(*Path(model).resolve().parts[-parts:])) if called.count(name) > 1 else name
            for model, name in zip(models, called, strict=True)
        ]
    return dict(zip(called, models, strict=True))


def _settings_of(settings: argparse.Namespace, classes: list[list[str]] | None) -> "EvaluationSettings":
    """What the command line says of the data."""
    from ..evaluation.data import EvaluationSettings

    own = {
        "tasks": settings.task or (),
        "class_names": classes,
        "ks": settings.k,
        "languages": _pairs(settings.languages),
    }
    shared = {field.name: vars(settings)[field.name] for field in fields(EvaluationSettings) if field.name not in own}
    return EvaluationSettings(**shared, **own)


def _measure(
    name: str, model_name: str, data: "EvaluationData", settings: argparse.Namespace, report: "Report", folder: Path
) -> list[str]:
    """Adds what one model reaches to the report; the names of the pictures that show its captions."""
    from ..data.sources import Source
    from ..evaluation.report import Measured, can_draw, draw_best_and_worst, model_facts
    from ..evaluation.tasks.registry import find_task, measure

    model, processor = open_model(model_name)
    facts = model_facts(model, name)
    if not isinstance(data.test, Source | None):
        facts.precision += ", stored as float16"
    embeddings, others = data.embed(model, processor)
    grids: list[str] = []
    for task in data.tasks:
        outcome = measure(task, model, processor, embeddings, _protocol(settings, data), **others)  # type: ignore[arg-type]
        for role in find_task(task).learns_from:
            if role in others:
                outcome.protocol[f"{role}_data"] = data.facts_by_role[role].to_json()
        report.measured.append(Measured(facts, task, outcome))
        if task == "retrieval" and isinstance(data.test, Source) and can_draw():
            number = len(report.models()) if len(settings.model) > 1 else ""
            grids = draw_best_and_worst(data.test, embeddings, outcome, folder, number)
    report.skipped = embeddings.skipped if embeddings else []
    report.skipped_of = {role: other.skipped for role, other in others.items()}
    if data.languages:
        _measure_languages(model, processor, facts, data, report)
    return grids


def _protocol(settings: argparse.Namespace, data: "EvaluationData") -> Any:
    from ..evaluation.tasks.task import Protocol

    return Protocol(
        ks=settings.k,
        templates=settings.templates,
        class_names=data.settings.class_names,
        features=settings.features,
        neighbours=settings.neighbours,
        shots=settings.shots,
        seeds=settings.seeds,
    )


def _measure_languages(
    model: Any, processor: Any, facts: "ModelFacts", data: "EvaluationData", report: "Report"
) -> None:
    from ..evaluation.report import Measured
    from ..evaluation.tasks.languages import evaluate_languages

    settings = data.settings
    outcomes = evaluate_languages(
        model,
        processor,
        data.languages,
        settings.ks,
        batch_size=settings.batch_size,
        num_workers=settings.num_workers,
        strict=settings.strict,
    )
    for language, outcome in outcomes.items():
        report.measured.append(Measured(facts, f"retrieval/{language}", outcome, data.fingerprints[language]))
    skipped = next(iter(outcomes.values())).details["skipped"]
    if data.tasks:
        report.skipped_of["languages"] = skipped
    else:
        report.skipped = skipped


def _print(printer: Printer, results: "Results") -> None:
    """A table a task: the models side by side, beside chance."""
    names = [model.name for model in results.models]
    for task in dict.fromkeys(figure.task for figure in results.figures):
        figures = [figure for figure in results.figures if figure.task == task]
        counted = figures[0].counts
        counts = ", ".join(f"{counted[what]} {what}" for what in ("images", "captions") if what in counted)
        printer.line(f"{task}: {counts}")
        found = {(figure.metric, figure.model): figure.value for figure in figures}
        chance = {figure.metric: figure.chance for figure in figures}
        rows = [
            [metric, *(found.get((metric, name), "") for name in names), "" if by_chance is None else by_chance]
            for metric, by_chance in chance.items()
        ]
        printer.table(["", *(names if len(names) > 1 else ["model"]), "chance"], rows)
    for row in results.differences:
        if row.real:
            printer.line(f"{row.to} − {row.from_}, {row.metric}: {row.value:+.3f}, p {row.p_value:.2g}")
    if results.differences and not any(row.real for row in results.differences):
        printer.line("no difference between the models is more than chance would give")
    for where, notes in results.notes.items():
        for note in notes:
            printer.line(f"{where}: {note}")


def _parser() -> Parser:
    parser = Parser("hf-clip evaluate", description=__doc__)
    add_shared_settings(parser, several_models=True)
    add_data_settings(parser, ", or a folder that `hf-clip embed` wrote")
    parser.add_argument(
        "--task", choices=TASKS, nargs="+", help="default: retrieval where there are captions, zero-shot with classes"
    )
    parser.add_argument("--output", default="hf_clip_evaluation", help="folder for results.json, report.md, pictures")
    parser.add_argument("--k", type=positive_int, nargs="+", help="of recall@k; default: 1 5 10, as far as they go")
    parser.add_argument(
        "--languages", nargs="+", default=[], metavar="LANGUAGE=COLUMN", help="retrieval by language: zh=captions.zh …"
    )
    parser.add_argument(
        "--class_names", help="file of the classes in order: .txt with a class a line (names apart by |), .json, .yaml"
    )
    parser.add_argument(
        "--templates", default="photo", help="a named set, a file, open_clip/NAME, or a sentence with {} in it"
    )
    parser.add_argument("--train_data", help="labelled pictures for knn and linear-probe; default: parts of --data")
    parser.add_argument("--train_split", help="of train_data, where it has several; default: train")
    parser.add_argument("--validation_data", help="to choose the probe's strength; default: a part of train_data")
    parser.add_argument("--validation_split", help="of validation_data, where it has several; default: validation")
    parser.add_argument(
        "--features", choices=("projected", "pooled"), default="projected", help="of knn and linear-probe"
    )
    parser.add_argument("--neighbours", type=positive_int, default=20, help="that vote in knn")
    parser.add_argument(
        "--shots", type=positive_int, nargs="+", default=[], help="pictures a class of few-shot probes"
    )
    parser.add_argument("--seeds", type=positive_int, default=3, help="draws of each few-shot probe")
    parser.add_argument("--resamples", type=positive_int, default=2000, help="of the confidence intervals")
    return parser


def _pairs(settings: list[str]) -> dict[str, str]:
    """Columns by language."""
    pairs: dict[str, str] = {}
    for language, _, column in (setting.partition("=") for setting in settings):
        if not (language and column):
            raise InputError(f"--languages {language}: give language=column, as in zh=captions.zh")
        if language in pairs:
            raise InputError(f"--languages names {language} twice: give one column for each language")
        pairs[language] = column
    return pairs
