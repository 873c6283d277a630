"""`hf-clip recipe`: lists the settings that were tried, and prints one of them or where its file lies."""

import argparse

from ..core.errors import InputError
from ..recipes import list_launches, list_recipes, summarize
from .command import Command
from .output import Printer
from .parsing import Parser


class Recipe(Command):
    name, help = "recipe", "list settings that were tried, for --recipe, and configurations for `accelerate launch`"

    def add_arguments(self, parser: Parser) -> None:
        parser.add_argument("name", nargs="?", help="of a recipe; default: all are listed")
        parser.add_flag("--path", help="print where the file lies, for accelerate launch")

    def run(self, settings: argparse.Namespace, printer: Printer) -> None:
        recipes, launches = list_recipes(), list_launches()
        if settings.name is None:
            if settings.path:
                raise InputError("--path needs the name of a recipe")
            if settings.json:
                printer.json({name: summarize(file) for name, file in (recipes | launches).items()})
                return
            for title, files in (
                ("hf-clip train --recipe NAME", recipes),
                ("accelerate launch --config_file $(hf-clip recipe NAME --path)", launches),
            ):
                printer.line(f"{title}:")
                for name, file in files.items():
                    printer.line(f"  {name:14} {summarize(file)}")
            return
        if settings.name not in recipes | launches:
            raise InputError(
                f"there is no recipe {settings.name!r}: choose one of {', '.join(recipes)}, or of "
                f"{', '.join(launches)} for accelerate launch"
            )
        file = (recipes | launches)[settings.name]
        text = file.read_text(encoding="utf-8")
        if settings.json:
            printer.json({"name": settings.name, "path": str(file), "text": text})
        else:
            printer.line(str(file) if settings.path else text.rstrip("\n"))


COMMAND = Recipe()
