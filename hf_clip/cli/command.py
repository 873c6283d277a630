"""A command as `hf-clip` knows it: its name, what `--help` says of it, its settings, and what it does."""

import sys
from abc import ABC, abstractmethod
from argparse import Namespace
from collections.abc import Sequence
from typing import ClassVar

from .output import Printer
from .parsing import Parser


class Command(ABC):
    """A subclass stands in a file of its own, which ends in `COMMAND = …()`; `commands.COMMANDS` makes it known.

    `--json` and `--config` come with it. An `InputError` is one line on stderr and exit code 2; what libraries print
    on stdout goes to stderr. At the top of its file are no imports that take time: `hf-clip --help` reads them all.

    Args:
        name: as the shell has it.
        help: one line, for `hf-clip --help`; the first line of the file is for the command's own.
    """

    name: ClassVar[str]
    help: ClassVar[str]

    @abstractmethod
    def add_arguments(self, parser: Parser) -> None:
        """The command's settings beside the common ones."""

    @abstractmethod
    def run(self, settings: Namespace, printer: Printer) -> None:
        """Does it, and prints a short table, or with `settings.json` one JSON object.

        Raises:
            InputError: for what is the input's fault.
        """

    def parse(self, arguments: Sequence[str]) -> Namespace:
        """
        Raises:
            InputError: for what cannot be; a misspelt setting with the nearest right one.
        """
        parser = Parser(f"hf-clip {self.name}", description=sys.modules[type(self).__module__].__doc__)
        self.add_arguments(parser)
        parser.add_flag("--json", help="one JSON object on stdout")
        return parser.parse_args(arguments)
