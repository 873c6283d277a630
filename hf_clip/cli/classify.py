"""`hf-clip classify`: chooses among labels, for each picture, the one that fits best."""

import argparse
from itertools import islice
from typing import TYPE_CHECKING

from .command import Command
from .output import Printer
from .parsing import Parser, add_shared_settings, positive_int

if TYPE_CHECKING:
    from ..evaluation.classify import Classifications


class Classify(Command):
    name, help = "classify", "choose the label that fits a picture best"

    def add_arguments(self, parser: Parser) -> None:
        parser.add_argument("images", nargs="+", metavar="IMAGE")
        add_shared_settings(parser)
        parser.add_argument(
            "--labels",
            required=True,
            help="what a picture may show: 'a cat, a dog', or a .txt file with a label a line",
        )
        parser.add_argument("--template", default="{}", help="a sentence around the label, such as 'a photo of {}'")
        parser.add_argument("--top", type=positive_int, default=3, help="labels shown a picture")

    def run(self, settings: argparse.Namespace, printer: Printer) -> None:
        from ..evaluation.classify import classify

        found = classify(settings.model, settings.images, settings.labels, template=settings.template)
        if settings.json:
            results = [{"image": each.image, "scores": each.scores} for each in found]
            told = {"skipped": found.skipped, "independent": found[0].independent, "notes": found.notes}
            printer.json({"results": results, **told})
        else:
            _print(printer, found, settings.top)


def _print(printer: Printer, found: "Classifications", top: int) -> None:
    rows = []
    for each in found:
        best = islice(each.ranked().items(), top)
        rows += [[each.image if place == 0 else "", *entry] for place, entry in enumerate(best)]
    printer.table(["picture", "label", "probability (each alone)" if found[0].independent else "probability"], rows)
    for note in found.notes:
        printer.line(note)
    for file, reason in found.skipped.items():
        printer.line(f"skipped {file}: {reason}")


COMMAND = Classify()
