"""The processes that train together: what they tell each other, and what must be the same in all of them."""

import contextlib
import os
from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from accelerate.utils import parse_flag_from_env
from torch import Tensor, nn
from torch._dynamo import OptimizedModule
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedModel, TrainingArguments

from ..core.errors import InputError
from ..core.json_files import flattened

_BLOCKS = "FSDP_TRANSFORMER_CLS_TO_WRAP"  # where accelerate looks for names of modules


def process_count() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather_objects(value: object) -> list:
    """One picklable value of each process, in the order of their ranks."""
    if process_count() == 1:
        return [value]
    values: list = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def largest_of_processes(number: int, device: torch.device) -> int:
    if process_count() == 1:
        return number
    largest = torch.tensor(number, device=device)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return int(largest)


def holds_everywhere(flag: Tensor) -> bool:
    """Whether a boolean, (), is true in every process; all of them ask at the same time."""
    if process_count() > 1:
        flag = flag.to(torch.int32)
        dist.all_reduce(flag, dist.ReduceOp.MIN)
    return bool(flag)


def share_statistics(model: nn.Module) -> None:
    """Gives every process the first one's running statistics, which are what is saved: each has moved its own."""
    if process_count() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


@contextlib.contextmanager
def without_gradient_sync(model: nn.Module) -> Iterator[None]:
    """Backward passes add to this process's gradients alone; DDP and FSDP2 share them out after one outside."""
    module = model._orig_mod if isinstance(model, OptimizedModule) else model
    if isinstance(module, DistributedDataParallel):
        with module.no_sync():
            yield
    elif isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            module.set_requires_gradient_sync(True)
    else:
        yield


def mean_of_processes(value: Tensor, processes: int) -> Tensor:
    """Every process gets the mean; its gradient is its own, of which DDP and FSDP take the mean."""
    if processes == 1:
        return value
    mean = value.detach().clone()
    dist.all_reduce(mean)
    return mean / processes + (value - value.detach())


def check_ranks() -> None:
    """Looks at what the launcher left in the environment, before the processes wait for each other.

    Raises:
        InputError: RANK, WORLD_SIZE and LOCAL_RANK are no numbers, or do not fit together.
    """
    given = {name: os.environ[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK") if name in os.environ}
    found = " ".join(f"{name}={value}" for name, value in given.items())
    mend = "start all processes with `torchrun` or `accelerate launch`, each machine with its own rank"
    try:
        ranks = {name: int(value) for name, value in given.items()}
    except ValueError as error:
        raise InputError(f"{found}: these must be numbers; {mend}") from error
    if "RANK" in ranks and not 0 <= ranks["RANK"] < ranks.get("WORLD_SIZE", 1):
        raise InputError(f"{found}: ranks count from 0 to WORLD_SIZE - 1; {mend}")
    if ranks.get("LOCAL_RANK", 0) > ranks.get("RANK", 0):
        raise InputError(f"{found}: a rank on one machine cannot be above that among all; {mend}")


def check_processes(args: TrainingArguments) -> None:
    """The processes that were started must be those that train together.

    Raises:
        InputError: they are not, or are to share out weights without a GPU.
    """
    if args.n_gpu > 1:
        raise InputError(
            f"one process sees {args.n_gpu} GPUs: start one process a GPU with `accelerate launch` or `torchrun`, "
            "or set CUDA_VISIBLE_DEVICES to one of them"
        )
    initialized = dist.is_available() and dist.is_initialized()
    started = dist.get_world_size() if initialized else int(os.environ.get("WORLD_SIZE", 1))
    if started != args.world_size:
        raise InputError(
            f"{started} processes were started, but this one trains with {args.world_size}: without GPUs, set use_cpu"
        )
    if wants_fsdp(args) and args.device.type == "cpu":
        raise InputError(
            "FSDP needs GPUs: on CPUs accelerate would leave the weights whole and not say so; leave FSDP out"
        )


def wants_fsdp(args: TrainingArguments) -> bool:
    """Asked for among the settings, or of `accelerate launch`."""
    return args.fsdp_plugin_args is not None or parse_flag_from_env("ACCELERATE_USE_FSDP")


@contextlib.contextmanager
def sharded_by(blocks: Iterable[str]) -> Iterator[None]:
    """Around the making of an `Accelerator`: FSDP gathers weights block by block, unless the user has named others.

    By itself it would go by `_no_split_modules`, which for BERT are its embeddings too; those within them it then
    shards a second time, and fails.

    Args:
        blocks: names of classes; none: nothing changes.
    """
    names = ",".join(sorted(set(blocks)))
    if not names or _BLOCKS in os.environ:
        yield
        return
    os.environ[_BLOCKS] = names
    try:
        yield
    finally:
        del os.environ[_BLOCKS]  # the next model has others


def whole(parameter: Tensor) -> Tensor:
    """A parameter as a plain tensor, also where FSDP2 has sharded it."""
    parameter = parameter.detach()
    return parameter.full_tensor() if isinstance(parameter, DTensor) else parameter


def check_same_rows(digest: str, called: str) -> None:
    """All processes compare the rows that they are about to share out.

    Raises:
        InputError: in every process, where `random_split`, say, has drawn others in each.
    """
    if len(set(gather_objects(digest))) > 1:
        raise InputError(
            f"{called} holds other rows in each process: draw them from a generator with the same seed, as in "
            "random_split(…, generator=torch.Generator().manual_seed(0))"
        )


# What each machine may have its own way.
_OF_ONE_MACHINE = {
    "_name_or_path",
    "dataloader_num_workers",
    "dataloader_persistent_workers",
    "dataloader_pin_memory",
    "dataloader_prefetch_factor",
    "disable_tqdm",
    "hub_token",
    "local_rank",
    "log_level",
    "log_level_replica",
    "output_dir",
    "report_to",
    "resume_from_checkpoint",
    "run_name",
}


def check_same_settings(args: TrainingArguments, model: PreTrainedModel, others: dict[str, Any]) -> None:
    """All processes compare what they were started with; to be called by all of them, before the first step.

    Args:
        others: what else must be the same, by name.

    Raises:
        InputError: in every process, naming the first setting that differs and two processes that have it differently.
    """
    settings = flattened(model.config.to_dict() | args.to_dict() | others)
    counting = {name: settings[name] for name in settings if name.rpartition(".")[2] not in _OF_ONE_MACHINE}
    first, *rest = gather_objects(counting)
    for rank, other in enumerate(rest, 1):
        for name in first | other:
            if first.get(name) != other.get(name):
                raise InputError(
                    f"{name} is {first.get(name)!r} in process 0 and {other.get(name)!r} in process {rank}: "
                    "start all processes with the same settings and data"
                )
