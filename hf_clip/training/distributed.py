"""The loss of the global batch, whatever the number of processes."""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from ..models.loss_hf_clip import GlobalBatch, LossFunction
from ..models.modeling_hf_clip import HFClipOutput
from .processes import process_count


@dataclass
class GatheredBatch(GlobalBatch):
    """The pairs of all processes, in the order of their ranks; gradients flow back to the process of each row.

    Args:
        processes: how many there are.
    """

    processes: int = 1


def global_contrastive_loss(
    output: HFClipOutput,
    loss: LossFunction,
    image_ids: Tensor | None = None,
    caption_ids: Tensor | None = None,
    tile_size: int | None = None,
) -> Tensor:
    """The mean loss of the pairs of all processes, for `loss.backward()` under DDP, FSDP or in one process.

    Every process gets the value of the global batch. Its gradients are those of its own rows' share, multiplied by
    the number of processes, because DDP and FSDP average: after their averaging every parameter, `logit_scale`
    included, has the gradient that one process would have computed on all pairs. Batches may differ in size, and be
    empty.

    Args:
        output: of the model (or its DDP wrapper), called with `return_logits=False`.
        loss: `model.get_loss()`.
        image_ids, caption_ids: (batch,) int64 digests; pairs that share one leave each other's denominators.
        tile_size: as in `models.tiles_hf_clip.tiles_of`.
    """
    world = gather_batch(output.image_embeds, output.text_embeds, image_ids, caption_ids)
    return loss_of_global_batch(output, loss, world, tile_size)


def loss_of_global_batch(
    output: HFClipOutput, loss: LossFunction, world: GatheredBatch, tile_size: int | None = None
) -> Tensor:
    """`global_contrastive_loss` of a batch that is already gathered."""
    own = (output.image_embeds, output.text_embeds, output.logit_scale, output.logit_bias)
    total = loss(*own, world, tile_size)
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
) -> GatheredBatch:
    """Gathers embeddings and ids from all processes; batches of unequal size are padded on the way and cut again."""
    if process_count() == 1:
        return GatheredBatch(image_embeds, text_embeds, image_ids, caption_ids)
    sizes = _gather_sizes(image_embeds)
    embeds = _gather_rows(torch.stack([image_embeds, text_embeds], dim=1), sizes)  # (world, 2, dim)
    return GatheredBatch(
        image_embeds=embeds[:, 0],
        text_embeds=embeds[:, 1],
        image_ids=None if image_ids is None else _gather_rows(image_ids, sizes),
        caption_ids=None if caption_ids is None else _gather_rows(caption_ids, sizes),
        offset=sum(sizes[: dist.get_rank()]),
        processes=dist.get_world_size(),
    )


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
