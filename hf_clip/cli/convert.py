"""`hf-clip convert`: carries a CLIP, SigLIP or dual-encoder checkpoint of transformers over, with the same logits."""

import argparse

from .command import Command
from .output import Printer
from .parsing import Parser


class Convert(Command):
    name, help = "convert", "make a CLIP, SigLIP or dual encoder of transformers an hf_clip model"

    def add_arguments(self, parser: Parser) -> None:
        parser.add_argument(
            "--model", required=True, help="folder or Hub id of a CLIPModel, SiglipModel or VisionTextDualEncoderModel"
        )
        parser.add_argument("--output_dir", required=True, help="the folder to make")

    def run(self, settings: argparse.Namespace, printer: Printer) -> None:
        from ..models.conversion import convert_into

        found = convert_into(settings.output_dir, settings.model)
        if settings.json:
            told = {"source": settings.model, "class": found.kind, "output_dir": str(found.folder)}
            printer.json(told | {"difference": found.difference})
            return
        printer.line(f"{found.kind} {settings.model} → {found.folder}")
        least = f"the largest difference is {found.difference:.1e} of the largest"
        printer.line(f"its logits on an example are the same: {least}")
        printer.line(f"to go on: hf-clip train --model {found.folder} --train_data … --output_dir …")


COMMAND = Convert()
