"""InfoNCE, CLIP's loss: each image is to find its caption among those of the batch, and each caption its image.

It has two forms that give the same: the formula, over a matrix of all logits, and the same in tiles of it.
"""

from .requirements_hf_clip import TRANSFORMERS  # noqa: F401 – checks the release, before what an older one lacks

# isort: split

import math

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import cross_entropy

from .loss_hf_clip import GlobalBatch, Loss, check_pairs, score
from .tiles_hf_clip import Tiles, add_products, scale_by, tiles_of, to_inputs, widened


def contrastive_loss(
    image_embeds: Tensor,
    text_embeds: Tensor,
    logit_scale: Tensor,
    logit_bias: Tensor | None = None,
    batch: GlobalBatch | None = None,
    tile_size: int | None = None,
) -> Tensor:
    """Symmetric InfoNCE (CLIP, arXiv:2103.00020, figure 3), summed over these pairs, in fp32.

    Divide by the number of pairs for the usual mean. Pairs that share an image or a caption leave each other's
    denominators: they are no negatives, and not made positives.

    Args:
        image_embeds, text_embeds, logit_scale, batch: as in [`Loss`].
        logit_bias: without effect: a softmax loses what is added to all scores.
        tile_size: as in `tiles_of`. Only logits that are made whole have a gradient that can be differentiated again.

    Returns:
        A scalar: sum over the pairs of (image→text + text→image cross-entropy) / 2.

    Raises:
        ValueError: tensors, an offset or a tile size that do not fit together.
    """
    batch = GlobalBatch(image_embeds, text_embeds) if batch is None else batch
    whole = batch.image_embeds is image_embeds and batch.text_embeds is text_embeds
    check_pairs(image_embeds, text_embeds, batch)
    if tiles := tiles_of(batch, tile_size):
        if whole:  # row i against all columns and column i against all rows, from the same tiles
            return _TiledCrossEntropy.apply(image_embeds, text_embeds, logit_scale, tiles, True) / 2
        image_loss = _TiledCrossEntropy.apply(image_embeds, batch.text_embeds, logit_scale, tiles, False)
        text_loss = _TiledCrossEntropy.apply(text_embeds, batch.image_embeds, logit_scale, tiles, False)
        return (image_loss + text_loss) / 2
    rows = batch.own_rows(image_embeds)
    logits_per_image = score(image_embeds, batch.text_embeds, logit_scale)  # (batch, world)
    logits_per_text = logits_per_image.T if whole else score(text_embeds, batch.image_embeds, logit_scale)
    if (mask := batch.no_negatives(rows)) is not None:
        logits_per_image = logits_per_image.masked_fill(mask, float("-inf"))
        logits_per_text = logits_per_text.masked_fill(mask, float("-inf"))
    image_loss = cross_entropy(logits_per_image, rows, reduction="sum")
    text_loss = cross_entropy(logits_per_text, rows, reduction="sum")
    return (image_loss + text_loss) / 2


class _TiledCrossEntropy(torch.autograd.Function):
    """Cross-entropy of every row with its own column, summed; with `both`, of every column with its own row, too.

    The normalisers come of a first walk; the second, in the backward pass, makes each tile again and its gradient.
    """

    @staticmethod
    def forward(ctx, queries, candidates, logit_scale, tiles: Tiles, both: bool) -> Tensor:  # type: ignore[override]
        scaled, wide = scale_by(queries, logit_scale), widened(candidates)
        by_row, by_column = (scaled.new_full((len(embeds),), float("-inf")) for embeds in (queries, candidates))
        own_logits = torch.zeros_like(by_row)
        with torch.autocast(queries.device.type, enabled=False):
            for rows, columns, logits, own in tiles.walk(scaled, wide):
                by_row[rows] = torch.logaddexp(by_row[rows], logits.logsumexp(1))
                if both:
                    by_column[columns] = torch.logaddexp(by_column[columns], logits.logsumexp(0))
                own_logits[rows][own[0]] = logits[own]
        ctx.save_for_backward(queries, candidates, logit_scale, by_row, by_column)
        ctx.tiles, ctx.both = tiles, both
        return (by_row - own_logits).sum() + ((by_column - own_logits).sum() if both else 0)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple:  # type: ignore[override]
        queries, candidates, logit_scale, by_row, by_column = ctx.saved_tensors
        scaled, wide = scale_by(queries, logit_scale), widened(candidates)
        grads = torch.zeros_like(scaled), torch.zeros_like(wide)
        with torch.autocast(queries.device.type, enabled=False):
            for rows, columns, logits, own in ctx.tiles.walk(scaled, wide):
                share = (logits - by_row[rows, None]).exp_()
                if ctx.both:
                    share += logits.sub_(by_column[columns]).exp_()
                share[own] -= 1 + ctx.both
                add_products(grads, share, scaled, wide, rows, columns)
        return *to_inputs(grads, grad, queries, candidates, logit_scale), None, None


INFONCE = Loss(
    name="infonce",
    function=contrastive_loss,
    probabilities="softmax",
    logit_scale_init_value=math.log(1 / 0.07),  # CLIP, §2.5
    logit_scale_max=math.log(100),
    label="InfoNCE over the batch",
    sentence="",  # CLIP's own: nothing that a reader of the card would not expect
    citations=("infonce",),
)

__all__ = ["INFONCE", "contrastive_loss"]
