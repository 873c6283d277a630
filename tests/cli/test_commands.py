"""A command is a file and a line: what comes with it. What the list of all costs to load, test_init.py says."""

import json
import sys
from types import ModuleType

import pytest

from hf_clip.cli import commands, main
from hf_clip.cli.command import Command
from hf_clip.cli.commands import COMMANDS, find_command
from hf_clip.core.errors import InputError


@pytest.mark.parametrize("name", COMMANDS)
def test_each_stands_in_the_file_of_its_name(name):
    command = find_command(name)
    assert command.name == name
    assert command.help[0].islower() or command.help.startswith("CLIP")
    assert not command.help.endswith(".")


class Shout(Command):
    name, help = "shout", "say it louder"

    def add_arguments(self, parser):
        parser.add_argument("words", nargs="+")
        parser.add_flag("--twice", help="once more")

    def run(self, settings, printer):
        if "quiet" in settings.words:
            raise InputError("words hold 'quiet', which cannot be shouted: leave it out")
        said = " ".join(settings.words).upper() * (1 + settings.twice)
        if settings.json:
            printer.json({"said": said})
        else:
            printer.line(said)


@pytest.fixture
def _shout(monkeypatch):
    """A file `shout.py`, and its line."""
    file = ModuleType("hf_clip.cli.shout", "Says it louder.")
    file.COMMAND = Shout()
    monkeypatch.setitem(sys.modules, "hf_clip.cli.shout", file)
    for module in (commands, main):
        monkeypatch.setattr(module, "COMMANDS", (*COMMANDS, "shout"))


@pytest.mark.usefixtures("_shout")
def test_all_that_commands_have_in_common_comes_with_the_object(tmp_path, capsys):
    assert main.main(["--help"]) == 0
    assert "\n  shout      say it louder\n" in capsys.readouterr().out
    assert main.main(["shout", "a", "b", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"said": "A B"}
    (tmp_path / "settings.yaml").write_text("twice: yes\nwords: [a]\n")
    assert main.main(["shout", "--config", str(tmp_path / "settings.yaml")]) == 0
    assert capsys.readouterr().out == "AA\n"
    for arguments, line in (
        (["a", "quiet"], "words hold 'quiet', which cannot be shouted: leave it out"),
        (["a", "--twcie"], "unknown setting --twcie: did you mean --twice? (see --help)"),
    ):
        assert main.main(["shout", *arguments]) == 2
        assert capsys.readouterr() == ("", f"hf-clip shout: {line}\n")
