"""Runs a question to the Hub in a process of its own, which can be ended: threads that wait for a server cannot."""

import io
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from huggingface_hub import constants
from huggingface_hub.utils import are_progress_bars_disabled

from ..core.public import without_secrets

# Both packages are declared, not imported: of them the process needs a few small modules, and torch takes seconds.
_PROGRAM = """
import importlib, sys, types
for name, folder in (("hf_clip", sys.argv[1]), ("hf_clip.publishing", sys.argv[1] + "/publishing")):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [folder]
importlib.import_module("hf_clip.publishing.hub_client").main()
"""
_PACKAGE = str(Path(__file__).resolve().parents[1])
_running: set[subprocess.Popen] = set()


class OutOfTime(Exception):
    """The process was ended before its answer; the message says what it was doing."""


class GivenUp(OutOfTime):
    """`end_all` was called."""


def ask_in_a_process(question: dict[str, Any], timeout: float) -> dict[str, Any]:
    """`hub_client.answer`, within a time.

    The token goes to the process by a pipe; neither its arguments nor its environment name it. Whatever ends the wait
    (Ctrl-C among it) ends the process, and so does the end of this one.

    Args:
        timeout: seconds.

    Raises:
        OutOfTime: there is no answer in that time.
        RuntimeError: the process broke off; its traceback is on stderr.
    """
    with _process(question["hub"]) as process:
        told: list[dict[str, Any]] = []
        hearing = _started(_hear, process.stdout, told)
        showing = _started(_show, process.stderr, question["token"])
        assert process.stdin is not None, "it has a pipe"
        with suppress(BrokenPipeError):
            process.stdin.write(json.dumps(question).encode() + b"\n")
            process.stdin.flush()  # not closed: that would say that this process has ended
        try:
            end = time.monotonic() + timeout
            while hearing.is_alive() and time.monotonic() < end:
                hearing.join(min(0.2, end - time.monotonic()))  # in between Python hears of Ctrl-C, whoever got it
            in_time, given_up = not hearing.is_alive(), process not in _running
        finally:
            process.kill()
            showing.join()  # before anything else is written to stderr
    said = told[-1] if told else {"doing": "starting"}
    if "doing" not in said:
        return said
    if given_up:
        raise GivenUp(said["doing"])
    if not in_time:
        raise OutOfTime(said["doing"])
    raise RuntimeError(f"the process that speaks to {question['hub']} broke off while {said['doing']}")


def end_all() -> None:
    """Ends every such process; whoever waits for one hears `GivenUp`."""
    while _running:
        with suppress(KeyError):
            _running.pop().kill()


@contextmanager
def _process(hub: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", _PROGRAM, _PACKAGE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=_environment(hub),
        start_new_session=True,  # Ctrl-C comes to this process, which decides
    )
    _running.add(process)
    try:
        yield process
    finally:
        _running.discard(process)
        process.kill()
        process.wait()
        for pipe in filter(None, (process.stdin, process.stdout)):
            with suppress(BrokenPipeError):
                pipe.close()


def _environment(hub: str) -> dict[str, str]:
    """This process's settings, as they are now; no token."""
    unwanted = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "TRANSFORMERS_OFFLINE")
    shows_bars = sys.stderr.isatty() and not are_progress_bars_disabled()
    return {name: value for name, value in os.environ.items() if name not in unwanted} | {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PYTHONIOENCODING": "utf-8",
        "HF_ENDPOINT": hub,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": str(int(constants.HF_HUB_DISABLE_XET)),
        "HF_HUB_DISABLE_PROGRESS_BARS": str(int(not shows_bars)),
        "TQDM_POSITION": "-1",  # shows bars where stderr is a pipe
        "COLUMNS": str(shutil.get_terminal_size().columns),
    }


def _started(function: Callable[..., None], *arguments: object) -> threading.Thread:
    thread = threading.Thread(target=function, args=arguments, daemon=True)
    thread.start()
    return thread


def _hear(pipe: IO[bytes], told: list[dict[str, Any]]) -> None:
    with suppress(ValueError):  # a line cut by the end, or a pipe that is closed
        for line in pipe:
            told.append(json.loads(line))


def _show(pipe: io.BufferedReader, token: str) -> None:
    """What the process says on stderr, on this one's, without secrets; a progress bar that was cut ends its line."""
    waiting, last = b"", b"\n"
    with pipe:
        while part := pipe.read1(1 << 16):
            lines, waiting = _whole_lines(waiting + part)
            last = _write(lines, token) or last
    last = _write(waiting, token) or last
    if last != b"\n":
        _write(b"\n", token)


def _whole_lines(text: bytes) -> tuple[bytes, bytes]:
    end = max(text.rfind(b"\n"), text.rfind(b"\r")) + 1
    return text[:end], text[end:]


def _write(text: bytes, token: str) -> bytes:
    """The last byte that was written."""
    if text:
        sys.stderr.write(without_secrets(text.decode("utf-8", errors="replace"), token))
        sys.stderr.flush()
    return text[-1:]
