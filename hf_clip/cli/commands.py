"""The commands by name."""

import importlib

from .command import Command

# In the order of `hf-clip --help`. A command lies in the file of its name, with _ where that has a dash.
COMMANDS = (
    "demo",
    "train",
    "embed",
    "evaluate",
    "analyze",
    "classify",
    "convert",
    "export",
    "publish",
    "recipe",
)


def find_command(name: str) -> Command:
    """One of `COMMANDS`; of the others nothing is loaded."""
    command: Command = importlib.import_module(f".{name.replace('-', '_')}", __package__).COMMAND
    return command
