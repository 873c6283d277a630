"""The contrastive losses, pure functions of tensors: they know an offset, never a process group."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, logsigmoid


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


def sigmoid_loss(
    image_embeds: Tensor,
    text_embeds: Tensor,
    logit_scale: Tensor,
    logit_bias: Tensor,
    *,
    all_text_embeds: Tensor | None = None,
    image_ids: Tensor | None = None,
    caption_ids: Tensor | None = None,
    offset: int = 0,
) -> Tensor:
    """The sigmoid loss (SigLIP, arXiv:2303.15343, equation 1), summed over this batch's pictures, in fp32.

    Every picture × caption is a yes-or-no question of its own, yes for the pairs. Divide by the number of pairs for
    the paper's value. Where the batch is a slice of a larger one, its pictures meet all captions, and the slices'
    sums add up to the loss of the whole.

    Args:
        image_embeds, text_embeds: (batch, dim), unit length; row i of both is a pair.
        logit_scale, logit_bias: (1,) each; the log of 1/temperature, and what is added to every logit.
        all_text_embeds: (world, dim), the captions of the larger batch; default: this batch's.
        image_ids, caption_ids: (world,) integers. Of pairs that share a picture or a caption, neither picture is
            asked about the other's caption.
        offset: where this batch's rows begin in the larger batch.
    """
    all_text_embeds = text_embeds if all_text_embeds is None else all_text_embeds
    rows = torch.arange(len(image_embeds), device=image_embeds.device) + offset  # (batch,)
    logits = score(image_embeds, all_text_embeds, logit_scale, logit_bias)  # (batch, world)
    columns = torch.arange(logits.shape[1], device=logits.device)
    losses = -logsigmoid(torch.where(rows[:, None] == columns, logits, -logits))  # (batch, world)
    if image_ids is not None or caption_ids is not None:
        losses = losses.masked_fill(_same_content(rows, image_ids, caption_ids), 0)
    return losses.sum()


def score(queries: Tensor, candidates: Tensor, logit_scale: Tensor, logit_bias: Tensor | None = None) -> Tensor:
    """exp(logit_scale) · cosine (+ logit_bias), (queries, candidates), in fp32 or better: bf16 would tie a fifth of
    the first ranks.

    Args:
        queries, candidates: (queries, dim), (candidates, dim), unit length.
    """
    with torch.autocast(queries.device.type, enabled=False):
        dtype = torch.promote_types(queries.dtype, torch.float32)
        logits = logit_scale.to(dtype).exp() * queries.to(dtype) @ candidates.to(dtype).T
        return logits if logit_bias is None else logits + logit_bias.to(dtype)


def _same_content(rows: Tensor, image_ids: Tensor | None, caption_ids: Tensor | None) -> Tensor:
    """(batch, world) booleans: true where two different pairs share a picture or a caption."""
    mask = torch.zeros(1, 1, dtype=torch.bool, device=rows.device)
    for ids in (image_ids, caption_ids):
        if ids is not None:
            mask = mask | (ids[rows, None] == ids[None, :])
    columns = torch.arange(mask.shape[1], device=rows.device)
    return mask & (rows[:, None] != columns[None, :])


__all__ = ["contrastive_loss", "score", "sigmoid_loss"]
