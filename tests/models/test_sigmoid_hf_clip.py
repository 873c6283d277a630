"""The sigmoid loss against transformers' SigLIP and sums worked out by hand."""

import math

import pytest
import torch
from loss_inputs import unit_embeds
from transformers import SiglipConfig, SiglipModel

from hf_clip.models.loss_hf_clip import GlobalBatch
from hf_clip.models.sigmoid_hf_clip import sigmoid_loss


def test_is_the_loss_of_transformers_siglip():
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = SiglipConfig(
        text_config=sizes | {"vocab_size": 9}, vision_config=sizes | {"image_size": 8, "patch_size": 4}
    )
    model = SiglipModel(config).eval()
    torch.nn.init.constant_(model.logit_scale, 1.3)
    torch.nn.init.constant_(model.logit_bias, -2.0)
    output = model(
        input_ids=torch.arange(15).reshape(5, 3) % 9, pixel_values=torch.randn(5, 3, 8, 8), return_loss=True
    )
    loss = sigmoid_loss(output.image_embeds, output.text_embeds, model.logit_scale, model.logit_bias) / 5
    torch.testing.assert_close(loss, output.loss)


def test_by_hand():
    """Orthogonal pairs at scale 1 and bias ln 2: on the diagonal the logit is 1 + ln 2, elsewhere ln 2."""
    embeds, bias = torch.eye(3), torch.tensor([math.log(2)])
    loss = sigmoid_loss(embeds, embeds, torch.zeros(1), bias)
    assert loss.item() == pytest.approx(3 * math.log(1 + math.exp(-1) / 2) + 6 * math.log(1 + 2), rel=1e-6)


def test_asks_nothing_about_pairs_with_the_same_picture_or_caption():
    image_embeds, text_embeds = unit_embeds(pairs=4)
    ids = {"image_ids": torch.tensor([1, 2, 1, 4]), "caption_ids": torch.tensor([1, 2, 3, 2])}
    left_out = {(0, 2), (2, 0), (1, 3), (3, 1)}
    expected = 0.0
    for i in range(4):
        for j in range(4):
            logit = math.exp(1.5) * (image_embeds[i].double() @ text_embeds[j].double()).item() - 1
            if (i, j) not in left_out:
                expected += math.log1p(math.exp(-logit if i == j else logit))
    loss = sigmoid_loss(
        image_embeds,
        text_embeds,
        torch.tensor([1.5]),
        torch.tensor([-1.0]),
        GlobalBatch(image_embeds, text_embeds, **ids),
    )
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_slices_of_a_batch_add_up():
    image_embeds, text_embeds = unit_embeds()
    temperature = (torch.tensor([1.5]), torch.tensor([-1.0]))
    ids = {"image_ids": torch.tensor([1, 2, 1, 4, 5, 6]), "caption_ids": torch.tensor([1, 2, 3, 4, 2, 6])}
    whole = sigmoid_loss(image_embeds, text_embeds, *temperature, GlobalBatch(image_embeds, text_embeds, **ids))
    parts = [
        sigmoid_loss(
            image_embeds[rows], text_embeds[rows], *temperature,
            GlobalBatch(image_embeds, text_embeds, offset=rows.start, **ids),
        )
        for rows in (slice(0, 4), slice(4, 6), slice(6, 6))
    ]  # fmt: skip
    torch.testing.assert_close(sum(parts), whole)
