"""`hf-clip export`: writes a trained model as ONNX graphs that need no torch."""

import argparse
from typing import TYPE_CHECKING

from ..core.errors import InputError
from .command import Command
from .output import Printer, metric_rows
from .parsing import Parser, add_data_settings, add_shared_settings, embed_options, open_data

if TYPE_CHECKING:
    from ..publishing.export import Export

_DATA_SETTINGS = ("data", "image_column", "caption_column", "strict")


class ExportOnnx(Command):
    name, help = "export", "write a trained model as ONNX"

    def add_arguments(self, parser: Parser) -> None:
        add_shared_settings(parser)
        parser.add_argument("--format", choices=["onnx"], default="onnx", help="what to write (default: onnx)")
        parser.add_argument(
            "--output", help="folder for the files; default: onnx in the model's own folder, or NAME_onnx for a Hub id"
        )
        parser.add_flag("--int8", help="also graphs with 8-bit weights, and the recall that they cost on --data")
        add_data_settings(parser, ", to measure --int8 on: held out", required=False)

    def run(self, settings: argparse.Namespace, printer: Printer) -> None:
        _check_use(settings)

        from ..publishing.export import export

        source = open_data(settings) if settings.int8 else None
        found = export(settings.model, settings.output, int8_data=source, options=embed_options(settings))
        if settings.json:
            printer.json({"output": str(found.folder), **found.record.to_json()})
        else:
            _print(printer, found)


def _check_use(settings: argparse.Namespace) -> None:
    """
    Raises:
        InputError: int8 without data to measure it on; settings that nothing would be done with.
    """
    if settings.int8 and not settings.data:
        raise InputError("--int8 needs --data, held-out pictures with captions: without, nobody knows what it costs")
    if not settings.int8 and (useless := [f"--{name}" for name in _DATA_SETTINGS if vars(settings)[name]]):
        raise InputError(f"{', '.join(useless)} can change nothing without --int8: leave out, or add it")


def _print(printer: Printer, found: "Export") -> None:
    record = found.record
    sizes = [[name, f"{size / 1e6:.1f}"] for name, size in found.files.items()]
    printer.table(["file", "MB"], sizes)
    for embeds in ("text_embeds", "image_embeds"):
        printer.line(f"{embeds} differ from torch's by {vars(record.largest_difference)[embeds]:.1g} at the most")
    if record.int8:
        printer.line()
        recalls = record.int8.recall
        chances = {name.replace("recall", "chance"): recall.chance for name, recall in recalls.items()}
        whole, small = ({name: vars(recall)[kind] for name, recall in recalls.items()} for kind in ("fp32", "int8"))
        printer.table(["", "fp32", "int8", "chance"], metric_rows(whole | chances, small))
    for note in record.notes:
        printer.line(note)
    printer.line(f"ONNX: {found.folder}")


COMMAND = ExportOnnx()
