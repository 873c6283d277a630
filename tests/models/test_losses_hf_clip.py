"""Every loss of the registry keeps the contract, a new one too."""

import pytest
import torch
from loss_inputs import unit_embeds

from hf_clip import HFClipConfig
from hf_clip.models.loss_hf_clip import GlobalBatch
from hf_clip.models.losses_hf_clip import LOSSES, find_loss
from hf_clip.publishing.card.citations import is_citation

EVERY = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
IDS = {"image_ids": torch.tensor([1, 2, 1, 4, 5, 6, 7]), "caption_ids": torch.tensor([1, 2, 3, 4, 2, 6, 3])}


def test_those_that_there_are():
    assert {"infonce", "sigmoid"} <= LOSSES.keys()
    assert find_loss("sigmoid") is LOSSES["sigmoid"]
    with pytest.raises(ValueError, match=r"unknown loss 'sgmoid': choose one of .*infonce"):
        find_loss("sgmoid")


@EVERY
@pytest.mark.parametrize("ids", [{}, IDS], ids=["distinct", "duplicates"])
@pytest.mark.parametrize("tile_size", [None, 2])
def test_its_slices_add_up_in_value_and_gradient(loss, ids, tile_size):
    if tile_size and not loss.takes_tile_size:
        pytest.skip("it has no tiles")
    images, texts = inputs = [embeds.requires_grad_() for embeds in unit_embeds(pairs=7, dtype=torch.float64)]
    scale = torch.tensor([1.5], dtype=torch.float64, requires_grad=True)
    bias = None
    if loss.logit_bias_init_value is not None:
        bias = torch.tensor([-1.0], dtype=torch.float64, requires_grad=True)
    inputs = [*inputs, scale, *([] if bias is None else [bias])]
    whole = loss(images, texts, scale, bias, GlobalBatch(images, texts, **ids))
    parts = [
        loss(images[rows], texts[rows], scale, bias, GlobalBatch(images, texts, **ids, offset=rows.start), tile_size)
        for rows in (slice(0, 3), slice(3, 7), slice(7, 7))
    ]
    assert whole.shape == ()
    assert whole.isfinite()
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(whole, inputs, retain_graph=True))
    torch.testing.assert_close(sum(parts), whole)
    torch.testing.assert_close(torch.autograd.grad(sum(parts), inputs), torch.autograd.grad(whole, inputs))


@EVERY
def test_it_scores_half_precision_in_fp32_under_autocast(loss):
    embeds, scale, bias = [e.bfloat16() for e in unit_embeds()], torch.tensor([3.0]), torch.tensor([-2.0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(*embeds, scale, bias)
    expected = loss(*(e.double() for e in embeds), scale.double(), bias.double())
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


@EVERY
def test_a_configuration_has_its_settings_and_what_it_cites_is_known(loss):
    config = HFClipConfig(loss=loss.name)
    assert {name: getattr(config, name) for name in loss.settings()} == loss.settings()
    assert all(map(is_citation, loss.citations))
