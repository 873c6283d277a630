"""A loss from outside the package: a squared hinge of every image × caption, each with an answer of its own."""

import torch
from torch import Tensor

from hf_clip import Loss
from hf_clip.models.loss_hf_clip import GlobalBatch, score

CITATION = "@misc{toy,\n  title = {A Toy of a Loss},\n  url   = {https://example.org/toys/loss},\n}"


def squared_hinge(
    image_embeds: Tensor, text_embeds: Tensor, logit_scale: Tensor, logit_bias: Tensor, batch: GlobalBatch
) -> Tensor:
    rows = batch.own_rows(image_embeds)
    signs = -torch.ones(len(rows), len(batch.text_embeds), dtype=image_embeds.dtype)
    signs[torch.arange(len(rows)), rows] = 1
    losses = (1 - signs * score(image_embeds, batch.text_embeds, logit_scale, logit_bias)).clamp(min=0).square()
    same = batch.no_negatives(rows)
    return (losses if same is None else losses.masked_fill(same, 0)).sum()


TOY = Loss(
    name="toy_hinge",
    function=squared_hinge,
    probabilities="sigmoid",
    logit_scale_init_value=1.0,
    logit_scale_max=1.01,
    logit_bias_init_value=-0.5,
    label="squared hinge of every pair",
    sentence="The model was trained with a toy of a loss, of every pair",
    citations=(CITATION,),
)
