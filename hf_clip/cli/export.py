"""`hf-clip export`: writes a trained model as ONNX graphs that need no torch."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import InputError
from .output import Printer, metric_rows
from .parsing import Parser, add_data_settings, add_shared_settings, embed_options, open_data, open_model

if TYPE_CHECKING:
    from ..publishing.onnx.record import OnnxRecord

_DATA_SETTINGS = ("data", "image_column", "caption_column", "strict")


def run(arguments: list[str], printer: Printer) -> None:
    settings = _parser().parse_args(arguments)
    _check_use(settings)

    from ..core.atomic import replaced
    from ..core.public import public_name
    from ..publishing.onnx.export import export_onnx, require_onnx
    from ..publishing.onnx.int8 import add_int8

    require_onnx()
    name = public_name(settings.model)
    output = _output(settings, name)
    source = open_data(settings) if settings.int8 else None
    model, processor = open_model(settings.model)
    with replaced(output) as folder:
        record = export_onnx(model, processor, folder, name=name)
        if source is not None:
            record = add_int8(folder, record, model, processor, source, embed_options(settings))
    _print(printer, settings, output, record)


def _check_use(settings: argparse.Namespace) -> None:
    """
    Raises:
        InputError: int8 without data to measure it on; settings that nothing would be done with.
    """
    if settings.int8 and not settings.data:
        raise InputError("--int8 needs --data, held-out pictures with captions: without, nobody knows what it costs")
    if not settings.int8 and (useless := [f"--{name}" for name in _DATA_SETTINGS if vars(settings)[name]]):
        raise InputError(f"{', '.join(useless)} can change nothing without --int8: leave out, or add it")


def _output(settings: argparse.Namespace, name: str) -> Path:
    """Where to, as the user would write it.

    Raises:
        InputError: it holds files that no export wrote, which would be lost.
    """
    from ..publishing.onnx.record import FILES

    beside = Path(settings.model, "onnx") if Path(settings.model).is_dir() else Path(f"{name.rpartition('/')[2]}_onnx")
    output = Path(settings.output) if settings.output else beside
    if output.exists() and not output.is_dir():
        raise InputError(f"--output {output} is a file: give a folder")
    foreign = sorted(file.name for file in output.iterdir() if file.name not in FILES) if output.exists() else []
    if foreign:
        raise InputError(f"{output} holds {foreign[0]}, which no export wrote: give another folder by --output")
    return output


def _print(printer: Printer, settings: argparse.Namespace, output: Path, record: "OnnxRecord") -> None:
    if settings.json:
        printer.json({"output": str(output), **record.to_json()})
        return
    sizes = [[file.name, f"{file.stat().st_size / 1e6:.1f}"] for file in sorted(output.iterdir())]
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
    printer.line(f"ONNX: {output}")


def _parser() -> Parser:
    parser = Parser("hf-clip export", description=__doc__)
    add_shared_settings(parser)
    parser.add_argument("--format", choices=["onnx"], default="onnx", help="what to write (default: onnx)")
    parser.add_argument(
        "--output", help="folder for the files; default: onnx in the model's own folder, or NAME_onnx for a Hub id"
    )
    parser.add_flag("--int8", help="also graphs with 8-bit weights, and the recall that they cost on --data")
    add_data_settings(parser, ", to measure --int8 on: held out", required=False)
    return parser
