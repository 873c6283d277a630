"""`hf-clip COMMAND …`: finds the command and turns the input's faults into one line and exit code 2."""

import atexit
import contextlib
import os
import sys
from collections.abc import Sequence

from ..core.errors import InputError
from .commands import COMMANDS, find_command
from .output import Printer


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; the process's exit code is returned."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return 0
    if arguments[0] == "--version":
        from ..core.version import __version__

        print(__version__)
        return 0
    if arguments[0] not in COMMANDS:
        print(f"hf-clip: unknown command {arguments[0]!r}: choose one of {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    # Libraries print on stdout too: only a command's result, or the help asked for, belongs there.
    asks_for_help = {"-h", "--help"}.intersection(arguments)
    with Printer() as printer, contextlib.redirect_stdout(sys.stdout if asks_for_help else sys.stderr):
        try:
            command = find_command(arguments[0])
            command.run(command.parse(arguments[1:]), printer)
            return 0
        except (InputError, FloatingPointError) as error:
            print(f"hf-clip {arguments[0]}: {' '.join(str(error).split())}", file=sys.stderr)
            return 2
        except KeyboardInterrupt as interruption:
            print(f"hf-clip {arguments[0]}: {str(interruption) or 'interrupted'}", file=sys.stderr)
            return 130
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            return 1


def console() -> None:
    """The command of the shell. Where `main` ends, this does too: taking torch apart takes Python seconds, which
    after Ctrl-C nobody waits for."""
    code: list[int] = []

    def leave() -> None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code[0])

    # As with `python -m`, a task from outside may lie here; last, where it hides nothing that is installed.
    sys.path.append(os.getcwd())
    # What was registered first is called last: whatever libraries have to do at the end, they do before.
    atexit.register(leave)
    try:
        code.append(main())
    finally:
        if not code:
            atexit.unregister(leave)


def _usage() -> str:
    lines = "\n".join(f"  {name:10} {find_command(name).help}" for name in COMMANDS)
    return f"usage: hf-clip COMMAND …\n\n{lines}\n\n`hf-clip COMMAND --help` lists a command's settings."


if __name__ == "__main__":
    console()
