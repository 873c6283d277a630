"""`hf-clip convert`: carries a CLIP, SigLIP or dual-encoder checkpoint of transformers over, with the same logits."""

import os
from pathlib import Path

from ..core.errors import InputError
from .output import Printer
from .parsing import Parser


def run(arguments: list[str], printer: Printer) -> None:
    settings = _parser().parse_args(arguments)
    folder = _new_folder(settings.output_dir)

    from ..core.atomic import staged
    from ..models.conversion import convert_model, example_logits, open_source, relative_difference
    from ..models.towers import open_model_and_processor

    source, processor = open_source(settings.model)
    expected = example_logits(source, processor)
    model = convert_model(source)
    with staged(folder) as aside:
        model.save_pretrained(aside)
        processor.save_pretrained(aside)
        # What was saved, not what is in memory: that is what others will open.
        difference = relative_difference(example_logits(*open_model_and_processor(str(aside))), expected)
    kind = type(source).__name__
    if settings.json:
        result = {"source": settings.model, "class": kind, "output_dir": str(folder), "difference": difference}
        printer.json(result)
        return
    printer.line(f"{kind} {settings.model} → {folder}")
    printer.line(f"its logits on an example are the same: the largest difference is {difference:.1e} of the largest")
    printer.line(f"to go on: hf-clip train --model {folder} --train_data … --output_dir …")


def _new_folder(name: str) -> Path:
    """Refused before anything is loaded, rather than after."""
    folder = Path(name)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--output_dir {folder} is a file: give a folder")
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"--output_dir {folder} is not empty: give another, so that nothing in it is overwritten")
    above = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise InputError(f"--output_dir {folder} cannot be made: {above} is no folder that can be written to")
    return folder


def _parser() -> Parser:
    parser = Parser("hf-clip convert", description=__doc__)
    parser.add_argument(
        "--model", required=True, help="folder or Hub id of a CLIPModel, SiglipModel or VisionTextDualEncoderModel"
    )
    parser.add_argument("--output_dir", required=True, help="the folder to make")
    parser.add_flag("--json", help="one JSON object on stdout")
    return parser
