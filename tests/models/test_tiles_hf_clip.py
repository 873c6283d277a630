"""Losses in tiles against their formulas: value, every gradient, precision, and what is never made."""

import math

import pytest
import torch
from loss_inputs import unit_embeds
from torch.nn.functional import normalize

from hf_clip.models import tiles_hf_clip
from hf_clip.models.infonce_hf_clip import contrastive_loss
from hf_clip.models.loss_hf_clip import GlobalBatch
from hf_clip.models.losses_hf_clip import LOSSES

WHOLE = 100  # a tile that holds every batch of these tests: the formula itself
IDS = {
    "image_ids": torch.tensor([1, 2, 1, 4, 5, 6, 7, 1, 9]),
    "caption_ids": torch.tensor([1, 2, 3, 4, 2, 6, 7, 8, 8]),
}


def loss_and_grads(name: str, embeds, scale: float, **settings):
    """The loss of a whole batch, or of the rows of it that `settings["rows"]` names, and all its gradients."""
    inputs = [e.detach().clone().requires_grad_() for e in embeds]
    dtype = torch.promote_types(inputs[0].dtype, torch.float32)
    inputs.append(torch.tensor([math.log(scale)], dtype=dtype, requires_grad=True))
    if name == "sigmoid":
        inputs.append(torch.tensor([-3.0], dtype=dtype, requires_grad=True))
    images, texts, *temperature = inputs
    rows = settings.get("rows")
    batch = GlobalBatch(images, texts, settings.get("image_ids"), settings.get("caption_ids"))
    if rows is not None:
        batch.offset = rows.start
        images, texts = images[rows], texts[rows]
    bias = temperature[1] if name == "sigmoid" else None
    loss = LOSSES[name](images, texts, temperature[0], bias, batch, settings.get("tile_size"))
    return loss.detach(), torch.autograd.grad(loss * 1.7, inputs)


@pytest.mark.parametrize("rows", [None, slice(0, 4), slice(3, 9), slice(5, 5)], ids=str)
@pytest.mark.parametrize("ids", [{}, IDS], ids=["distinct", "duplicates"])
@pytest.mark.parametrize("tile_size", [1, 2, 4, 8])
@pytest.mark.parametrize("name", ["infonce", "sigmoid"])
def test_tiles_give_the_formulas_value_and_gradients(name, tile_size, ids, rows):
    embeds = unit_embeds(pairs=9, dtype=torch.float64)
    expected = loss_and_grads(name, embeds, 20.0, tile_size=WHOLE, rows=rows, **ids)
    tiled = loss_and_grads(name, embeds, 20.0, tile_size=tile_size, rows=rows, **ids)
    torch.testing.assert_close(tiled, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("scale", [1.0, 14.3, 100.0])
@pytest.mark.parametrize("name", ["infonce", "sigmoid"])
def test_tiles_in_fp32_are_as_exact_as_the_formula(name, scale):
    """Against the formula in float64; the positives stand out a little, as in training."""
    images, noise = unit_embeds(pairs=300, dim=64, dtype=torch.float64)
    embeds = [images.float(), normalize(images + 3 * noise, dim=-1).float()]
    expected = loss_and_grads(name, [e.double() for e in embeds], scale, tile_size=1000)
    tiled = loss_and_grads(name, embeds, scale, tile_size=64)
    assert tiled[0].item() == pytest.approx(expected[0].item(), rel=1e-5)
    for grad, exact in zip(tiled[1], expected[1], strict=True):
        assert (grad - exact).norm() <= 1e-5 * exact.norm()


@pytest.mark.parametrize("name", ["infonce", "sigmoid"])
def test_tiles_never_make_a_matrix_of_the_batch(name):
    """No tensor that autograd keeps, and none that is made on the way, has more than 64 × 64 or 512 × 8 elements."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        elements = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            sizes = [
                o.numel() for o in (out if isinstance(out, (tuple, list)) else [out]) if isinstance(o, torch.Tensor)
            ]
            self.elements = max(self.elements, *sizes, 0)
            return out

    with Largest() as largest:
        loss_and_grads(name, unit_embeds(pairs=512, dim=8), 10.0, tile_size=64, image_ids=torch.arange(512) // 2)
    assert largest.elements == 64 * 64


def test_tiles_score_half_precision_in_fp32_under_autocast():
    embeds = [e.bfloat16() for e in unit_embeds(pairs=9)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        tiled = loss_and_grads("infonce", embeds, 50.0, tile_size=4)
    expected = loss_and_grads("infonce", [e.double() for e in embeds], 50.0, tile_size=WHOLE)
    assert tiled[0].dtype == torch.float32
    assert tiled[0].item() == pytest.approx(expected[0].item(), rel=1e-5)
    assert [grad.dtype for grad in tiled[1]] == [torch.bfloat16, torch.bfloat16, torch.float32]


def test_large_batches_are_tiled_unless_told_otherwise(monkeypatch):
    walked = []
    monkeypatch.setattr(tiles_hf_clip.Tiles, "walk", lambda *args: walked.append(args) or iter(()))
    for pairs in (1024, 1025):
        contrastive_loss(*unit_embeds(pairs=pairs), torch.zeros(1))
        assert len(walked) == pairs - 1024


@pytest.mark.parametrize(
    ("offset", "tile_size", "message"),
    [
        (0, 0, "tile_size must be 1 or more, not 0"),
        (1, None, "offset 1: 6 pairs do not begin there in a batch of 6"),
        (-1, None, "offset -1"),
    ],
)
@pytest.mark.parametrize("name", ["infonce", "sigmoid"])
def test_what_does_not_fit_is_refused(name, offset, tile_size, message):
    embeds, one = unit_embeds(), torch.zeros(1)
    with pytest.raises(ValueError, match=message):
        LOSSES[name](*embeds, one, one, GlobalBatch(*embeds, offset=offset), tile_size)
    with pytest.raises(ValueError, match="6 images and 5 captions are no pairs"):
        LOSSES[name](embeds[0], embeds[1][:5], one, one)
