"""`hf-clip evaluate`: how good trained models are on captioned or labelled pictures."""

import argparse
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import InputError
from .command import Command
from .output import Printer
from .parsing import Parser, add_data_settings, add_shared_settings, embed_options, positive_int

if TYPE_CHECKING:
    from ..evaluation.data import EvaluationSettings
    from ..evaluation.records import Results


class Evaluate(Command):
    name, help = "evaluate", "measure a trained model on captioned pictures"

    def add_arguments(self, parser: Parser) -> None:
        add_shared_settings(parser, several_models=True)
        add_data_settings(parser, ", or a folder that `hf-clip embed` wrote")
        parser.add_argument(
            "--task",
            nargs="+",
            help="such as retrieval, zero-shot, knn, linear-probe, or module:Class of a task of your own; a name that "
            "is none is answered with those that are; default: retrieval where there are captions, zero-shot with "
            "classes",
        )
        parser.add_argument(
            "--output", default="hf_clip_evaluation", help="folder for results.json, report.md, pictures"
        )
        parser.add_argument(
            "--k", type=positive_int, nargs="+", help="of recall@k; default: 1 5 10, as far as they go"
        )
        parser.add_argument(
            "--languages",
            nargs="+",
            default=[],
            metavar="LANGUAGE=COLUMN",
            help="retrieval by language: zh=captions.zh …",
        )
        parser.add_argument(
            "--class_names",
            help="file of the classes in order: .txt with a class a line (names apart by |), .json, .yaml",
        )
        parser.add_argument(
            "--templates", default="photo", help="a named set, a file, open_clip/NAME, or a sentence with {} in it"
        )
        parser.add_argument(
            "--train_data", help="labelled pictures for knn and linear-probe; default: parts of --data"
        )
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

    def run(self, settings: argparse.Namespace, printer: Printer) -> None:
        from ..evaluation.evaluate import evaluate
        from ..evaluation.report import PAGE, skipped_lines

        results = evaluate(
            settings.model,
            settings.data,
            _settings_of(settings),
            output=settings.output,
            options=embed_options(settings),
        )
        if settings.json:
            printer.json(results.to_json() | {"output": settings.output})
            return
        _print(printer, results)
        for line in skipped_lines(results):
            printer.line(f"skipped {line}")
        printer.line(f"figures, protocol and pictures: {Path(settings.output) / PAGE}")


def _settings_of(settings: argparse.Namespace) -> "EvaluationSettings":
    """What the command line says of the data."""
    from ..evaluation.data import EvaluationSettings

    own = {"tasks": settings.task or (), "ks": settings.k, "languages": _pairs(settings.languages)}
    shared = {field.name: vars(settings)[field.name] for field in fields(EvaluationSettings) if field.name not in own}
    return EvaluationSettings(**shared, **own)


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


COMMAND = Evaluate()
