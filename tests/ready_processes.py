"""Processes that are ready at once: copies of one that has imported torch, transformers and hf_clip."""

import functools
import os
import subprocess
import sys
import tempfile
from multiprocessing import forkserver, get_context
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

_MODULES = ["killed_run", "processes"]
_COMMAND = "import sys; from hf_clip.cli.main import main; sys.exit(main())"


@functools.cache
def ready_context() -> ForkServerContext:
    """What starts such a process, on one thread and with the environment of the first call."""
    context = get_context("forkserver")
    context.set_forkserver_preload(_MODULES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)  # the server looks for them there
        patch.setenv("OMP_NUM_THREADS", "1")
        forkserver.ensure_running()
    return context


def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`hf-clip` with these arguments, in a process of its own."""
    return run_code(_COMMAND, *arguments)


def run_code(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -c code arguments`, but that the process has imported already, and is not taken apart at its end."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = (Path(folder, name) for name in ("out", "err"))
        process = ready_context().Process(target=_run, args=(code, arguments, out, err))
        process.start()
        process.join()
        return subprocess.CompletedProcess([code, *arguments], process.exitcode, out.read_text(), err.read_text())


def _run(code: str, arguments: tuple[str, ...], out: Path, err: Path) -> None:
    for number, file in ((1, out), (2, err)):
        os.dup2(os.open(file, os.O_CREAT | os.O_WRONLY), number)
    sys.argv = ["-c", *arguments]
    exec(code, {"__name__": "__main__"})
