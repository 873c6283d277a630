"""Processes that are ready at once: copies of one that has imported torch, transformers and hf_clip."""

import functools
import os
from multiprocessing import forkserver, get_context
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

_MODULES = ["killed_run", "processes"]


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
