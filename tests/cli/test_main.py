"""The command as such: help, version, and one clear line for whatever is wrong."""

import importlib.metadata
import os
import runpy
import subprocess
import sys

import pytest

import hf_clip
from hf_clip.cli.commands import COMMANDS, find_command
from hf_clip.cli.main import main
from hf_clip.core.errors import InputError


def instead_of_evaluate(monkeypatch, run) -> None:
    """The command does something else, of whatever settings."""
    command = find_command("evaluate")
    monkeypatch.setattr(command, "parse", list)
    monkeypatch.setattr(command, "run", run)


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]])
def test_help_lists_every_command(arguments, capsys):
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert all(f"\n  {name:10} {find_command(name).help}\n" in out for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_is_a_result(command, capsys):
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    printed = capsys.readouterr()
    assert left.value.code == 0
    assert f"usage: hf-clip {command}" in printed.out
    assert printed.err == ""


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == importlib.metadata.version("hf_clip") + "\n"


def test_an_unknown_command(capsys):
    assert main(["evalute"]) == 2
    out, line = capsys.readouterr()
    assert (out, line.count("\n")) == ("", 1)
    assert line.startswith("hf-clip: unknown command 'evalute': choose one of demo, train, embed, evaluate, ")


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("a.csv is empty:\n  give another"), 2, "hf-clip evaluate: a.csv is empty: give another\n"),
        (FloatingPointError("not finite"), 2, "hf-clip evaluate: not finite\n"),
        (KeyboardInterrupt(), 130, "hf-clip evaluate: interrupted\n"),
        (KeyboardInterrupt("stopped after step 3"), 130, "hf-clip evaluate: stopped after step 3\n"),
    ],
)
def test_what_went_wrong_is_one_line(error, code, line, monkeypatch, capsys):
    def fail(settings, printer):
        raise error

    instead_of_evaluate(monkeypatch, fail)
    assert main(["evaluate"]) == code
    assert capsys.readouterr() == ("", line)


def test_our_own_faults_keep_their_traceback(monkeypatch):
    instead_of_evaluate(monkeypatch, lambda settings, printer: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["evaluate"])


def test_only_results_go_to_stdout(monkeypatch, capsys):
    def run(settings, printer):
        print("a library's noise")
        printer.line(f"result of {settings}")

    instead_of_evaluate(monkeypatch, run)
    assert main(["evaluate", "--x"]) == 0
    assert capsys.readouterr() == ("result of ['--x']\n", "a library's noise\n")


def test_a_reader_that_leaves_early_gets_no_traceback():
    code = """
import sys
import hf_clip
from hf_clip.cli import evaluate
from hf_clip.cli.main import main

evaluate.COMMAND.parse = list
evaluate.COMMAND.run = lambda settings, printer: [printer.line("x" * 999) for _ in range(999)]
sys.exit(main(["evaluate"]))
"""
    reading, writing = os.pipe()
    os.close(reading)
    process = subprocess.run([sys.executable, "-c", code], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (process.returncode, process.stderr) == (1, "")


def test_the_shell_s_command_leaves_at_once_with_its_code_and_after_what_is_due_at_the_end():
    code = (
        "import atexit, sys\n"
        "from hf_clip.cli.main import console\n"
        "class Slow:\n    def __del__(self): print('taken apart')\n"
        "kept = Slow()\n"
        "sys.argv[1:] = ['nope']\n"
        "import hf_clip.cli.main as module\n"
        "run = module.main\n"
        "module.main = lambda: (atexit.register(print, 'at the end'), run())[1]\n"
        "console()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "at the end\n")
    assert "unknown command 'nope'" in done.stderr


def test_the_package_is_the_command(monkeypatch, capsys):
    for argv, code in ((["--version"], 0), (["nothing"], 2)):
        ended = []
        monkeypatch.setattr(sys, "argv", ["hf_clip", *argv])
        monkeypatch.setattr("hf_clip.cli.main.console", lambda ended=ended: ended.append(main()))
        runpy.run_module("hf_clip", run_name="__main__")
        assert ended == [code]
    assert capsys.readouterr().out.strip() == hf_clip.__version__
