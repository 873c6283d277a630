"""The sigmoid loss, SigLIP's: of each image × caption it asks whether they are a pair.

It has two forms that give the same: the formula, over a matrix of all logits, and the same in tiles of it.
"""

from .requirements_hf_clip import TRANSFORMERS  # noqa: F401 – checks the release, before what an older one lacks

# isort: split

import math

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import logsigmoid

from .loss_hf_clip import GlobalBatch, Loss, check_pairs, score
from .tiles_hf_clip import Tiles, add_products, scale_by, tiles_of, to_inputs, widened


def sigmoid_loss(
    image_embeds: Tensor,
    text_embeds: Tensor,
    logit_scale: Tensor,
    logit_bias: Tensor,
    batch: GlobalBatch | None = None,
    tile_size: int | None = None,
) -> Tensor:
    """The sigmoid loss (SigLIP, arXiv:2303.15343, equation 1), summed over these images, in fp32.

    Every image × caption is a yes-or-no question of its own, yes for the pairs. Divide by the number of pairs for the
    paper's value. Of pairs that share an image or a caption, neither image is asked about the other's caption.

    Args:
        image_embeds, text_embeds, logit_scale, logit_bias, batch: as in [`Loss`].
        tile_size: as in `tiles_of`. Only logits that are made whole have a gradient that can be differentiated again.

    Raises:
        ValueError: tensors, an offset or a tile size that do not fit together; no bias.
    """
    if logit_bias is None:
        raise ValueError("the sigmoid loss needs a logit_bias, and the model has none: give the loss by its name")
    batch = GlobalBatch(image_embeds, text_embeds) if batch is None else batch
    check_pairs(image_embeds, text_embeds, batch)
    if tiles := tiles_of(batch, tile_size):
        return _TiledSigmoid.apply(image_embeds, batch.text_embeds, logit_scale, logit_bias, tiles)
    rows = batch.own_rows(image_embeds)
    logits = score(image_embeds, batch.text_embeds, logit_scale, logit_bias)  # (batch, world)
    columns = torch.arange(logits.shape[1], device=logits.device)
    losses = -logsigmoid(torch.where(rows[:, None] == columns, logits, -logits))  # (batch, world)
    if (mask := batch.no_negatives(rows)) is not None:
        losses = losses.masked_fill(mask, 0)
    return losses.sum()


class _TiledSigmoid(torch.autograd.Function):
    """`sigmoid_loss`: nothing is to be known of other tiles, so each one's gradient is taken in the same walk."""

    @staticmethod
    def forward(ctx, images, texts, logit_scale, logit_bias, tiles: Tiles) -> Tensor:  # type: ignore[override]
        scaled, wide = scale_by(images, logit_scale), widened(texts)
        grads = torch.zeros_like(scaled), torch.zeros_like(wide)
        total, bias_grad = scaled.new_zeros(()), scaled.new_zeros(())
        with torch.autocast(images.device.type, enabled=False):
            for rows, columns, logits, own in tiles.walk(scaled, wide):
                logits += logit_bias.to(logits.dtype)
                logits[own] *= -1  # of a pair the answer is yes
                total -= logsigmoid(-logits).sum()
                if any(ctx.needs_input_grad):
                    share = logits.sigmoid_()
                    share[own] *= -1
                    bias_grad += share.sum()
                    add_products(grads, share, scaled, wide, rows, columns)
        ctx.save_for_backward(images, texts, logit_scale, logit_bias, bias_grad, *grads)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple:  # type: ignore[override]
        images, texts, logit_scale, logit_bias, bias_grad, *grads = ctx.saved_tensors
        bias_grad = (bias_grad * grad).expand_as(logit_bias).to(logit_bias.dtype)
        grads = [saved.clone() for saved in grads]
        return *to_inputs(grads, grad, images, texts, logit_scale), bias_grad, None


SIGMOID = Loss(
    name="sigmoid",
    function=sigmoid_loss,
    probabilities="sigmoid",
    logit_scale_init_value=math.log(10),  # SigLIP, §3.2, which caps nothing
    logit_scale_max=None,
    logit_bias_init_value=-10.0,
    label="sigmoid loss of every pair",
    sentence="The model was trained with the sigmoid loss",
    citations=("siglip",),
)

__all__ = ["SIGMOID", "sigmoid_loss"]
