"""The loss of the global batch, whatever the number of processes. Nothing else here knows of processes."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from accelerate.utils import parse_flag_from_env
from torch import Tensor, nn
from torch._dynamo import OptimizedModule
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel
from transformers import TrainingArguments

from ..core.errors import InputError
from ..embeddings.encode import split_rows
from ..embeddings.store import flattened
from ..models.checkpointing_hf_clip import repeated_blocks
from ..models.loss_hf_clip import contrastive_loss, sigmoid_loss
from ..models.modeling_hf_clip import HFClipModel, HFClipOutput


@dataclass
class GlobalBatch:
    """The pairs of all processes, in the order of their ranks.

    Args:
        image_embeds, text_embeds: (world, dim); gradients flow back to the process that each row came from.
        image_ids, caption_ids: (world,) content digests, or None.
        offset: where this process's rows begin.
        processes: how many there are.
    """

    image_embeds: Tensor
    text_embeds: Tensor
    image_ids: Tensor | None
    caption_ids: Tensor | None
    offset: int = 0
    processes: int = 1


def global_contrastive_loss(
    output: HFClipOutput,
    image_ids: Tensor | None = None,
    caption_ids: Tensor | None = None,
    tile_size: int | None = None,
) -> Tensor:
    """The mean loss of the pairs of all processes, for `loss.backward()` under DDP, FSDP or in one process: the
    sigmoid loss of a model with a `logit_bias`, InfoNCE of any other.

    Every process gets the value of the global batch. Its gradients are those of its own rows' share, multiplied by
    the number of processes, because DDP and FSDP average: after their averaging every parameter, `logit_scale`
    included, has the gradient that one process would have computed on all pairs. Batches may differ in size, and be
    empty.

    Args:
        output: of the model (or its DDP wrapper), called with `return_logits=False`.
        image_ids, caption_ids: (batch,) int64 digests; pairs that share one leave each other's denominators.
        tile_size: as in `contrastive_loss`.
    """
    world = gather_batch(output.image_embeds, output.text_embeds, image_ids, caption_ids)
    return loss_of_global_batch(output, world, tile_size)


def loss_of_global_batch(output: HFClipOutput, world: GlobalBatch, tile_size: int | None = None) -> Tensor:
    """`global_contrastive_loss` of a batch that is already gathered."""
    own = (output.image_embeds, output.text_embeds, output.logit_scale)
    others: dict[str, Any] = {
        "all_text_embeds": world.text_embeds,
        "image_ids": world.image_ids,
        "caption_ids": world.caption_ids,
        "offset": world.offset,
        "tile_size": tile_size,
    }
    if output.logit_bias is not None:
        total = sigmoid_loss(*own, output.logit_bias, **others)
    else:
        total = contrastive_loss(*own, all_image_embeds=world.image_embeds, **others)
    share = total / max(len(world.image_embeds), 1)
    if world.processes == 1:
        return share
    value = share.detach().clone()
    dist.all_reduce(value)
    for_gradient = share * world.processes
    return value + (for_gradient - for_gradient.detach())


def gather_batch(
    image_embeds: Tensor,
    text_embeds: Tensor,
    image_ids: Tensor | None = None,
    caption_ids: Tensor | None = None,
) -> GlobalBatch:
    """Gathers embeddings and ids from all processes; batches of unequal size are padded on the way and cut again."""
    if _process_count() == 1:
        return GlobalBatch(image_embeds, text_embeds, image_ids, caption_ids)
    sizes = _gather_sizes(image_embeds)
    embeds = _gather_rows(torch.stack([image_embeds, text_embeds], dim=1), sizes)  # (world, 2, dim)
    return GlobalBatch(
        image_embeds=embeds[:, 0],
        text_embeds=embeds[:, 1],
        image_ids=None if image_ids is None else _gather_rows(image_ids, sizes),
        caption_ids=None if caption_ids is None else _gather_rows(caption_ids, sizes),
        offset=sum(sizes[: dist.get_rank()]),
        processes=dist.get_world_size(),
    )


def mean_of_processes(value: Tensor, processes: int) -> Tensor:
    """Every process gets the mean; its gradient is its own, of which DDP and FSDP take the mean."""
    if processes == 1:
        return value
    mean = value.detach().clone()
    dist.all_reduce(mean)
    return mean / processes + (value - value.detach())


def _gather_sizes(rows: Tensor) -> list[int]:
    own = torch.tensor([len(rows)], device=rows.device)
    sizes = [torch.zeros_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, own)
    return [int(size) for size in sizes]


def _gather_rows(rows: Tensor, sizes: list[int]) -> Tensor:
    """(batch, …) of each process → (world, …); differentiable where the rows are."""
    padding = rows.new_zeros((max(sizes) - len(rows), *rows.shape[1:]))
    gathered = _AllGather.apply(torch.cat([rows, padding]))  # (processes, longest, …)
    return torch.cat([part[:size] for part, size in zip(gathered, sizes, strict=True)])


class _AllGather(torch.autograd.Function):
    """All processes' tensors, stacked; backward sums what every process's loss says of this process's tensor."""

    @staticmethod
    def forward(ctx, tensor: Tensor) -> Tensor:  # type: ignore[override]
        gathered = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
        dist.all_gather(gathered, tensor.contiguous())
        return torch.stack(gathered)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:  # type: ignore[override]
        grad = grad.contiguous()
        dist.all_reduce(grad)
        return grad[dist.get_rank()]


def in_batch_accuracy(world: GlobalBatch, pictures: int) -> Tensor:
    """How many of this process's first pictures have their own caption scored highest among all captions."""
    rows = torch.arange(world.offset, world.offset + pictures, device=world.image_embeds.device)
    with torch.no_grad():
        scores = world.image_embeds[rows].float() @ world.text_embeds.float().T  # (pictures, world)
        own = scores.gather(1, rows[:, None])  # (pictures, 1)
        return ((scores >= own).sum(1) == 1).float().sum()


def _process_count() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


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


def share_statistics(model: nn.Module) -> None:
    """Gives every process the first one's running statistics, which are what is saved: each has moved its own."""
    if _process_count() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def batches_of_process(rows: int, size: int, process: int, processes: int) -> list[range]:
    """One process's batches of rows in their order. Each process has as many as the others: where the batches do not
    come out even, the last one comes again, which is known by its rows."""
    batches = split_rows(range(rows), size)
    rounds = -(-len(batches) // processes)
    return [batches[min(i, len(batches) - 1)] for i in range(process, rounds * processes, processes)]


def gather_objects(value: object) -> list:
    """One picklable value of each process, in the order of their ranks."""
    if _process_count() == 1:
        return [value]
    values: list = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def largest_of_processes(number: int, device: torch.device) -> int:
    if _process_count() == 1:
        return number
    largest = torch.tensor(number, device=device)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return int(largest)


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


def shard_by_blocks(model: HFClipModel) -> None:
    """Has accelerate's FSDP gather a tower's weights block by block, unless the user has named other modules.

    By itself it would go by `_no_split_modules`, which for BERT are its embeddings too; those within them it then
    shards a second time, and fails.
    """
    blocks = repeated_blocks(model.text_model) + repeated_blocks(model.vision_model)
    if blocks:
        names = ",".join(sorted({type(block).__name__ for block in blocks}))
        os.environ.setdefault("FSDP_TRANSFORMER_CLS_TO_WRAP", names)


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


def check_same_settings(args: TrainingArguments, model: HFClipModel, others: dict[str, Any]) -> None:
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
