"""The loss against transformers' CLIP, a float64 computation and sums worked out by hand."""

import math

import pytest
import torch
from torch.nn.functional import normalize
from transformers import SiglipConfig, SiglipModel
from transformers.models.clip.modeling_clip import image_text_contrastive_loss

from hf_clip.models import loss_hf_clip
from hf_clip.models.loss_hf_clip import contrastive_loss, sigmoid_loss


def unit_embeds(pairs: int = 6, dim: int = 5, seed: int = 0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return [normalize(torch.randn(pairs, dim, generator=generator, dtype=dtype), dim=-1) for _ in range(2)]


def reference(image_embeds, text_embeds, scale, masked=()):
    """Plain float64 InfoNCE, pair by pair; `masked` holds the (i, j) that are no negatives."""
    images, texts = image_embeds.double(), text_embeds.double()
    total = torch.zeros((), dtype=torch.float64)
    for i in range(len(images)):
        for queries, candidates in ((images, texts), (texts, images)):
            kept = [j for j in range(len(images)) if (i, j) not in masked]
            scores = {j: scale * queries[i] @ candidates[j] for j in kept}
            total = total - scores[i] + torch.stack(list(scores.values())).logsumexp(0)
    return total / 2


def test_is_the_clip_loss_of_transformers():
    image_embeds, text_embeds = unit_embeds()
    expected = image_text_contrastive_loss(text_embeds @ image_embeds.T / 0.07)
    loss = contrastive_loss(image_embeds, text_embeds, torch.tensor([math.log(1 / 0.07)])) / 6
    torch.testing.assert_close(loss, expected)


def test_by_hand():
    """Orthogonal pairs at scale ln 3: each row is log((3 + 1 + 1) / 3) both ways."""
    embeds = torch.eye(3)
    loss = contrastive_loss(embeds, embeds, torch.tensor([math.log(math.log(3))]))
    assert loss.item() == pytest.approx(3 * math.log(5 / 3), rel=1e-6)


def test_pairs_with_the_same_picture_or_caption_leave_each_others_denominators():
    image_embeds, text_embeds = unit_embeds()
    image_ids, caption_ids = torch.tensor([1, 2, 1, 4, 5, 6]), torch.tensor([1, 2, 3, 4, 2, 6])
    masked = {(0, 2), (2, 0), (1, 4), (4, 1)}
    loss = contrastive_loss(
        image_embeds, text_embeds, torch.tensor([1.5]), image_ids=image_ids, caption_ids=caption_ids
    )
    assert loss.item() == pytest.approx(reference(image_embeds, text_embeds, math.exp(1.5), masked).item(), rel=1e-6)


def test_all_duplicates_are_no_negatives_and_leave_no_loss():
    image_embeds, text_embeds = unit_embeds()
    assert contrastive_loss(image_embeds, text_embeds, torch.zeros(1), image_ids=torch.ones(6)).item() == 0


def test_slices_of_a_batch_add_up_in_value_and_gradient():
    whole = [embeds.requires_grad_() for embeds in unit_embeds()]
    scale = torch.tensor([2.0], requires_grad=True)
    ids = {"caption_ids": torch.tensor([1, 2, 3, 1, 5, 6])}
    expected = contrastive_loss(*whole, scale, **ids)
    expected_grads = torch.autograd.grad(expected, [*whole, scale])
    parts = [
        contrastive_loss(
            whole[0][rows], whole[1][rows], scale, all_image_embeds=whole[0], all_text_embeds=whole[1],
            offset=rows.start, **ids,
        )
        for rows in (slice(0, 1), slice(1, 4), slice(4, 6))
    ]  # fmt: skip
    torch.testing.assert_close(sum(parts), expected)
    torch.testing.assert_close(torch.autograd.grad(sum(parts), [*whole, scale]), expected_grads)


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_value_and_gradient_agree_with_float64(scale):
    embeds = [e.requires_grad_() for e in unit_embeds(pairs=8, dim=16)]
    log_scale = torch.tensor([math.log(scale)], requires_grad=True)
    loss = contrastive_loss(*embeds, log_scale)
    grads = torch.autograd.grad(loss, [*embeds, log_scale])
    exact = [e.detach().double().requires_grad_() for e in embeds]
    exact_scale = log_scale.detach().double().requires_grad_()
    expected = reference(*exact, exact_scale.exp().squeeze())
    expected_grads = torch.autograd.grad(expected, [*exact, exact_scale])
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(grad.double(), expected_grad, rtol=1e-4, atol=1e-4)


def test_half_precision_embeddings_are_scored_in_fp32_under_autocast():
    image_embeds, text_embeds = (embeds.bfloat16() for embeds in unit_embeds())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = contrastive_loss(image_embeds, text_embeds, torch.tensor([4.0]))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(reference(image_embeds, text_embeds, math.exp(4.0)).item(), rel=1e-5)


# ---- sigmoid ------------------------------------------------------------------------------------------------------


def test_sigmoid_is_the_loss_of_transformers_siglip():
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


def test_sigmoid_by_hand():
    """Orthogonal pairs at scale 1 and bias ln 2: on the diagonal the logit is 1 + ln 2, elsewhere ln 2."""
    embeds, bias = torch.eye(3), torch.tensor([math.log(2)])
    loss = sigmoid_loss(embeds, embeds, torch.zeros(1), bias)
    assert loss.item() == pytest.approx(3 * math.log(1 + math.exp(-1) / 2) + 6 * math.log(1 + 2), rel=1e-6)


def test_sigmoid_asks_nothing_about_pairs_with_the_same_picture_or_caption():
    image_embeds, text_embeds = unit_embeds(pairs=4)
    ids = {"image_ids": torch.tensor([1, 2, 1, 4]), "caption_ids": torch.tensor([1, 2, 3, 2])}
    left_out = {(0, 2), (2, 0), (1, 3), (3, 1)}
    expected = 0.0
    for i in range(4):
        for j in range(4):
            logit = math.exp(1.5) * (image_embeds[i].double() @ text_embeds[j].double()).item() - 1
            if (i, j) not in left_out:
                expected += math.log1p(math.exp(-logit if i == j else logit))
    loss = sigmoid_loss(image_embeds, text_embeds, torch.tensor([1.5]), torch.tensor([-1.0]), **ids)
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_sigmoid_slices_of_a_batch_add_up():
    image_embeds, text_embeds = unit_embeds()
    temperature = (torch.tensor([1.5]), torch.tensor([-1.0]))
    ids = {"image_ids": torch.tensor([1, 2, 1, 4, 5, 6]), "caption_ids": torch.tensor([1, 2, 3, 4, 2, 6])}
    whole = sigmoid_loss(image_embeds, text_embeds, *temperature, **ids)
    parts = [
        sigmoid_loss(
            image_embeds[rows], text_embeds[rows], *temperature,
            all_text_embeds=text_embeds, offset=rows.start, **ids,
        )
        for rows in (slice(0, 4), slice(4, 6), slice(6, 6))
    ]  # fmt: skip
    torch.testing.assert_close(sum(parts), whole)


# ---- tiles --------------------------------------------------------------------------------------------------------

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
    rows = settings.pop("rows", None)
    if rows is not None:
        settings |= {"all_text_embeds": texts, "offset": rows.start}
        settings |= {"all_image_embeds": images} if name == "infonce" else {}
        images, texts = images[rows], texts[rows]
    loss = (sigmoid_loss if name == "sigmoid" else contrastive_loss)(images, texts, *temperature, **settings)
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
    monkeypatch.setattr(loss_hf_clip._Tiles, "walk", lambda *args: walked.append(args) or iter(()))
    for pairs in (1024, 1025):
        contrastive_loss(*unit_embeds(pairs=pairs), torch.zeros(1))
        assert len(walked) == pairs - 1024


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tile_size": 0}, "tile_size must be 1 or more, not 0"),
        ({"offset": 1}, "offset 1: 6 pairs do not begin there in a batch of 6"),
        ({"offset": -1}, "offset -1"),
    ],
)
def test_what_does_not_fit_is_refused(settings, message):
    embeds = unit_embeds()
    with pytest.raises(ValueError, match=message):
        contrastive_loss(*embeds, torch.zeros(1), **settings)
    with pytest.raises(ValueError, match=message):
        sigmoid_loss(*embeds, torch.zeros(1), torch.zeros(1), **settings)
    with pytest.raises(ValueError, match="6 pictures and 5 captions are no pairs"):
        contrastive_loss(embeds[0], embeds[1][:5], torch.zeros(1))
