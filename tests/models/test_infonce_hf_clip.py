"""InfoNCE against transformers' CLIP, a float64 computation and sums worked out by hand."""

import math

import pytest
import torch
from loss_inputs import unit_embeds
from transformers.models.clip.modeling_clip import image_text_contrastive_loss

from hf_clip.models.infonce_hf_clip import contrastive_loss
from hf_clip.models.loss_hf_clip import GlobalBatch


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
        image_embeds, text_embeds, torch.tensor([1.5]),
        batch=GlobalBatch(image_embeds, text_embeds, image_ids=image_ids, caption_ids=caption_ids),
    )  # fmt: skip
    assert loss.item() == pytest.approx(reference(image_embeds, text_embeds, math.exp(1.5), masked).item(), rel=1e-6)


def test_all_duplicates_are_no_negatives_and_leave_no_loss():
    image_embeds, text_embeds = unit_embeds()
    assert (
        contrastive_loss(
            image_embeds, text_embeds, torch.zeros(1), batch=GlobalBatch(image_embeds, text_embeds, torch.ones(6))
        ).item()
        == 0
    )


def test_slices_of_a_batch_add_up_in_value_and_gradient():
    whole = [embeds.requires_grad_() for embeds in unit_embeds()]
    scale = torch.tensor([2.0], requires_grad=True)
    ids = {"caption_ids": torch.tensor([1, 2, 3, 1, 5, 6])}
    expected = contrastive_loss(*whole, scale, batch=GlobalBatch(*whole, **ids))
    expected_grads = torch.autograd.grad(expected, [*whole, scale])
    parts = [
        contrastive_loss(
            whole[0][rows], whole[1][rows], scale, batch=GlobalBatch(*whole, offset=rows.start, **ids)
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
