"""Runs a function in several new processes of this machine, each with a GPU of its own or on the CPU."""

import contextlib
import os
import sys
from collections.abc import Callable
from typing import Any

import torch
from accelerate.utils import PrepareForLaunch, patch_environment
from accelerate.utils.other import get_free_port

from ..core.errors import InputError, first_line
from ..core.stdout import silence_below_python


def run_in_processes(work: Callable[..., None], arguments: tuple[Any, ...], count: int) -> None:
    """
    Args:
        work: of a module's top level; what it prints on stdout goes to stderr.
        arguments: of it; they can be pickled.

    Raises:
        InputError: the first error of any of them, with which the others end; fewer GPUs than processes.
    """
    if "WORLD_SIZE" in os.environ:
        raise InputError("a launcher has started several processes already: leave out num_processes")
    gpus = torch.cuda.device_count()
    if 0 < gpus < count:
        raise InputError(f"num_processes {count} is more than the {gpus} GPUs here")
    errors = torch.multiprocessing.get_context("spawn").SimpleQueue()
    start = PrepareForLaunch(_run_or_tell, distributed_type="MULTI_GPU" if gpus else "MULTI_CPU")
    world = {"world_size": count, "local_world_size": count}
    address = {"master_addr": "127.0.0.1", "master_port": str(get_free_port())}
    with patch_environment(**world, **address):
        try:
            torch.multiprocessing.spawn(start, (work, arguments, errors), nprocs=count)
        except torch.multiprocessing.ProcessExitedException as error:
            cause = f"{first_line(error)}: run it again, and it goes on" if errors.empty() else errors.get()
            raise InputError(cause) from error


def _run_or_tell(work: Callable[..., None], arguments: tuple[Any, ...], errors: Any) -> None:
    silence_below_python()
    with contextlib.redirect_stdout(sys.stderr):
        try:
            work(*arguments)
        except (InputError, FloatingPointError) as error:
            errors.put(str(error))
            sys.exit(2)
