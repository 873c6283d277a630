"""`hf-clip analyze`: what a model says of a data set: word pairs, agreement, likely mislabelled rows, outliers."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import InputError
from .command import Command
from .output import Printer
from .parsing import Parser, add_data_settings, add_shared_settings, embed_options, open_data, positive_int

if TYPE_CHECKING:
    from ..analysis.records import AnalysisResults

_OF_SOURCES = ("split", "data_config", "image_column", "caption_column", "label_column")


class Analyze(Command):
    name, help = "analyze", "find what stands out in a data set: word pairs, likely mislabelled rows, outliers"

    def add_arguments(self, parser: Parser) -> None:
        add_shared_settings(parser)
        add_data_settings(parser, ", or a folder that `hf-clip embed` wrote (without names, captions and drawings)")
        parser.add_argument(
            "--pairs",
            nargs="+",
            metavar="PAIR",
            help="opposites to score pictures by, 'a happy face / a sad face', or a .txt file with a pair a line",
        )
        parser.add_argument(
            "--output", default="hf_clip_analysis", help="folder for the report (default: %(default)s)"
        )
        parser.add_argument(
            "--top", type=positive_int, default=20, help="rows listed of each kind (default: %(default)s)"
        )

    def run(self, settings: argparse.Namespace, printer: Printer) -> None:
        from ..analysis.analyze import analyze
        from ..embeddings.manifest import MANIFEST

        stored = Path(settings.data, MANIFEST).is_file()
        if stored and (useless := [f"--{name}" for name in _OF_SOURCES if vars(settings)[name]]):
            raise InputError(
                f"{settings.data} holds embeddings, so {', '.join(useless)} can change nothing: leave out"
            )
        report = analyze(
            settings.model,
            settings.data if stored else open_data(settings, captions_required=False),
            settings.pairs or (),
            top=settings.top,
            output=settings.output,
            options=embed_options(settings),
        )
        if settings.json:
            printer.json(report.results().to_json())
        else:
            _print(printer, settings.output, report.results())


def _print(printer: Printer, folder: str, results: "AnalysisResults") -> None:
    from ..analysis import report as report
    from ..data.images import skipped_line

    metrics = results.metrics
    printer.line(report.counts_line(metrics))
    if "clip_score_mean" in metrics:
        printer.table(["CLIPScore", ""], report.agreement_rows(metrics))
        printer.line(report.estimate_line(metrics))
    if results.word_pairs:
        printer.table(report.PAIR_HEADER, report.pair_rows(results))
    for note in results.notes:
        printer.line(note)
    for row, name, reason in results.skipped:
        printer.line(f"skipped {skipped_line(row, name, reason)}")
    printer.line(f"report: {Path(folder) / report.PAGE}")


COMMAND = Analyze()
