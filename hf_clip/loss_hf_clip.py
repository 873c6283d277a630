"""The contrastive loss, a pure function of tensors: it knows an offset, never a process group."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


def contrastive_loss(
    image_embeds: Tensor,
    text_embeds: Tensor,
    logit_scale: Tensor,
    *,
    all_image_embeds: Tensor | None = None,
    all_text_embeds: Tensor | None = None,
    image_ids: Tensor | None = None,
    caption_ids: Tensor | None = None,
    offset: int = 0,
) -> Tensor:
    """Symmetric InfoNCE (CLIP, arXiv:2103.00020, figure 3), summed over this batch's pairs, in fp32.

    Divide by the number of pairs for the usual mean. Where the batch is a slice of a larger one, its rows score
    against all of it, and the slices' sums add up to the loss of the whole.

    Args:
        image_embeds, text_embeds: (batch, dim), unit length; row i of both is a pair.
        logit_scale: (1,), the log of 1/temperature.
        all_image_embeds, all_text_embeds: (world, dim), the larger batch; default: this batch.
        image_ids, caption_ids: (world,) integers. Pairs that share a picture or a caption leave each other's
            denominators: they are no negatives, and not made positives.
        offset: where this batch's rows begin in the larger batch.

    Returns:
        A scalar: sum over the pairs of (image→text + text→image cross-entropy) / 2.
    """
    all_image_embeds = image_embeds if all_image_embeds is None else all_image_embeds
    all_text_embeds = text_embeds if all_text_embeds is None else all_text_embeds
    rows = torch.arange(len(image_embeds), device=image_embeds.device) + offset  # (batch,)
    logits_per_image = score(image_embeds, all_text_embeds, logit_scale)  # (batch, world)
    logits_per_text = score(text_embeds, all_image_embeds, logit_scale)  # (batch, world)
    if image_ids is not None or caption_ids is not None:
        mask = _same_content(rows, image_ids, caption_ids)  # (batch, world)
        logits_per_image = logits_per_image.masked_fill(mask, float("-inf"))
        logits_per_text = logits_per_text.masked_fill(mask, float("-inf"))
    image_loss = cross_entropy(logits_per_image, rows, reduction="sum")
    text_loss = cross_entropy(logits_per_text, rows, reduction="sum")
    return (image_loss + text_loss) / 2


def score(queries: Tensor, candidates: Tensor, logit_scale: Tensor) -> Tensor:
    """exp(logit_scale) · cosine, (queries, candidates), in fp32 or better: bf16 would tie a fifth of the first ranks.

    Args:
        queries, candidates: (queries, dim), (candidates, dim), unit length.
    """
    with torch.autocast(queries.device.type, enabled=False):
        dtype = torch.promote_types(queries.dtype, torch.float32)
        return logit_scale.to(dtype).exp() * queries.to(dtype) @ candidates.to(dtype).T


def _same_content(rows: Tensor, image_ids: Tensor | None, caption_ids: Tensor | None) -> Tensor:
    """(batch, world) booleans: true where two different pairs share a picture or a caption."""
    mask = torch.zeros(1, 1, dtype=torch.bool, device=rows.device)
    for ids in (image_ids, caption_ids):
        if ids is not None:
            mask = mask | (ids[rows, None] == ids[None, :])
    columns = torch.arange(mask.shape[1], device=rows.device)
    return mask & (rows[:, None] != columns[None, :])


__all__ = ["contrastive_loss", "score"]
