"""A batch in chunks against the same batch at once: value, every gradient, statistics and random numbers."""

import pytest
import torch
from conftest import tiny_inputs, tiny_model, tiny_text_config, tiny_vision_config, write_pictures
from torch import nn
from training_runs import make_trainer

from hf_clip import HFClipTrainingArguments
from hf_clip.core.errors import InputError
from hf_clip.models.infonce_hf_clip import INFONCE
from hf_clip.training.distributed import global_contrastive_loss
from hf_clip.training.gradient_cache import GradientCache

IDS = {"image_ids": torch.tensor([1, 2, 3, 4, 5, 1, 7]), "caption_ids": torch.tensor([1, 2, 3, 4, 2, 6, 3])}


def gradients(model) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def plain_step(model, inputs, **ids):
    loss = global_contrastive_loss(model(**inputs, return_logits=False), model.get_loss(), **ids)
    loss.backward()
    return loss.detach(), gradients(model)


def cached_step(model, inputs, *sizes, tile_size=None, context=None, **ids):
    cache = GradientCache(inputs, *sizes, **({"context": context} if context else {}))
    loss = global_contrastive_loss(cache.embed(model), model.get_loss(), **ids, tile_size=tile_size)
    loss.backward()
    assert not gradients(model)  # so far it went as far as the embeddings
    cache.backward(model)
    return loss.detach(), gradients(model)


def assert_same(step, expected, rtol=1e-5):
    assert step[0].item() == pytest.approx(expected[0].item(), rel=rtol)
    assert step[1].keys() == expected[1].keys()
    for name, grad in expected[1].items():
        assert (step[1][name] - grad).norm() <= rtol * grad.norm() + 1e-8, name


@pytest.mark.parametrize("sizes", [(7,), (3,), (1,), (2, 5), (4, 1)], ids=str)
@pytest.mark.parametrize("loss", ["infonce", "sigmoid"])
def test_chunks_give_the_plain_steps_gradients(loss, sizes):
    expected = plain_step(tiny_model(loss=loss).eval(), tiny_inputs(7), **IDS)
    assert_same(cached_step(tiny_model(loss=loss).eval(), tiny_inputs(7), *sizes, **IDS), expected)
    tiled = cached_step(tiny_model(loss=loss).eval(), tiny_inputs(7), *sizes, tile_size=2, **IDS)
    assert_same(tiled, expected)
    assert expected[1]["logit_scale"].abs() > 1e-3


def test_chunks_differ_by_one_row_and_end_with_both_sides():
    seen = []

    class Spy(nn.Module):
        def forward(self, pixel_values=None, input_ids=None, **kwargs):
            seen.append(tuple(None if x is None else len(x) for x in (pixel_values, input_ids)))
            raise_stop = len(seen) == 3
            if raise_stop:
                raise StopIteration
            return {}

    with pytest.raises(StopIteration):
        GradientCache(tiny_inputs(7), 3, 4).embed(Spy())
    assert seen == [(3, None), (2, 4), (2, 3)]


def test_dropout_of_the_second_pass_is_that_of_the_first():
    """Against the same chunks with their graphs kept, embedded from the same random numbers."""
    text = tiny_text_config(hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)
    model = tiny_model(text_config=text).train()
    model.vision_model.eval()
    inputs = tiny_inputs(6)
    torch.manual_seed(5)
    outputs = [model(**{name: value[rows] for name, value in inputs.items()}, return_logits=False)
               for rows in (slice(0, 2), slice(2, 4), slice(4, 6))]  # fmt: skip
    whole = outputs[0]
    for name in ("image_embeds", "text_embeds"):
        whole[name] = torch.cat([output[name] for output in outputs])
    loss = global_contrastive_loss(whole, INFONCE)
    loss.backward()
    after = torch.get_rng_state()
    expected = loss.detach(), gradients(model)
    model.zero_grad()
    torch.manual_seed(5)
    assert_same(cached_step(model, inputs, 2), expected)
    assert torch.equal(torch.get_rng_state(), after)


def test_running_statistics_move_once_towards_the_mean_of_the_chunks():
    inputs, model = tiny_inputs(7), tiny_model().train()
    norm = next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    seen = []
    hook = norm.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    cached_step(model, inputs, 3)
    hook.remove()
    assert [len(chunk) for chunk in seen] == [3, 2, 2] * 2
    means = torch.stack([chunk.mean((0, 2, 3)) for chunk in seen[:3]])
    variances = torch.stack([chunk.var((0, 2, 3)) for chunk in seen[:3]])
    shares = torch.tensor([3, 2, 2])[:, None] / 7
    torch.testing.assert_close(norm.running_mean, 0.1 * (shares * means).sum(0))
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * (shares * variances).sum(0))
    assert norm.num_batches_tracked == 1
    assert norm.momentum == 0.1


def test_one_chunk_moves_the_statistics_as_the_plain_step_does():
    plain, cached = tiny_model().train(), tiny_model().train()
    plain_step(plain, tiny_inputs(7))
    cached_step(cached, tiny_inputs(7), 7)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(cached.state_dict()[name], value, msg=name)


def test_a_cumulative_average_counts_batches_not_chunks():
    model = tiny_model().train()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
    first, second = tiny_inputs(6, seed=1), tiny_inputs(6, seed=2)
    chunk_means = []
    norms[0].register_forward_pre_hook(lambda module, args: chunk_means.append(args[0].detach().mean((0, 2, 3))))
    for inputs in (first, second):
        cached_step(model, inputs, 3)
        model.zero_grad()
    torch.testing.assert_close(norms[0].running_mean, torch.stack(chunk_means)[[0, 1, 4, 5]].mean(0))


@pytest.mark.parametrize("layer_type", ["basic", "bottleneck"])
def test_with_checkpointing_gradients_and_statistics_stay(layer_type):
    models = [tiny_model(vision_config=tiny_vision_config(layer_type)).train() for _ in range(2)]
    models[1].gradient_checkpointing_enable()
    steps = [cached_step(model, tiny_inputs(6), 2) for model in models]
    assert_same(steps[1], steps[0])
    for name, value in models[0].state_dict().items():
        torch.testing.assert_close(models[1].state_dict()[name], value, msg=name)


def test_in_mixed_precision_the_towers_compute_in_half_and_gradients_are_whole():
    def autocast():
        return torch.autocast("cpu", dtype=torch.bfloat16)

    plain, cached = tiny_model().eval(), tiny_model().eval()
    with autocast():
        loss = global_contrastive_loss(plain(**tiny_inputs(6), return_logits=False), plain.get_loss())
    loss.backward()
    step = cached_step(cached, tiny_inputs(6), 2, context=autocast)
    assert step[0].item() == pytest.approx(loss.item(), rel=1e-2)
    for name, grad in gradients(plain).items():
        assert (step[1][name] - grad).norm() <= 0.05 * grad.norm() + 1e-5, name


def test_frozen_towers_and_pooled_features():
    models = [tiny_model().eval() for _ in range(2)]
    for model in models:
        model.text_model.requires_grad_(False)
        model.vision_model.requires_grad_(False)
    inputs = tiny_inputs(6)
    pixels = inputs.pop("pixel_values")
    with torch.no_grad():
        pooled = {"pooled_image": models[0].pool_image(pixels), "pooled_text": models[0].pool_text(**inputs)}
    expected = plain_step(models[0], inputs | {"pixel_values": pixels})
    assert_same(cached_step(models[1], pooled, 4), expected)
    assert set(expected[1]) == {"text_projection.weight", "visual_projection.weight", "logit_scale"}


# ---- in the Trainer -----------------------------------------------------------------------------------------------


def train(tmp_path, name, **settings):
    trainer = make_trainer(tmp_path / name, write_pictures(tmp_path / "pictures"), max_steps=3, **settings)
    trainer.train()
    return trainer


@pytest.mark.parametrize(
    "settings",
    [{}, {"gradient_accumulation_steps": 2}, {"freeze_text": True}, {"bf16": True}, {"max_grad_norm": 0.1}],
    ids=str,
)
def test_the_trainer_ends_with_the_plain_runs_weights(tmp_path, settings):
    settings = settings | {"freeze_vision": True, "optim": "sgd", "learning_rate": 0.1}
    plain = train(tmp_path, "plain", **settings)
    cached = train(tmp_path, "cached", gradient_cache_chunk_size=3, gradient_cache_text_chunk_size=2, **settings)
    losses = [[entry["loss"] for entry in t.state.log_history if "loss" in entry] for t in (plain, cached)]
    tolerance = 1e-2 if "bf16" in settings else 1e-4
    assert losses[1] == pytest.approx(losses[0], rel=tolerance)
    for name, value in plain.model.state_dict().items():
        torch.testing.assert_close(cached.model.state_dict()[name], value, rtol=tolerance, atol=tolerance, msg=name)


def test_pixels_wait_as_bytes_and_are_normalised_a_chunk_at_a_time(tmp_path):
    seen = []
    trainer = make_trainer(
        tmp_path / "run", write_pictures(tmp_path / "pictures"), per_device_train_batch_size=8, max_steps=1,
        gradient_cache_chunk_size=3,
    )  # fmt: skip
    normalize = trainer._normalize
    trainer._normalize = lambda pixels: seen.append((len(pixels), pixels.dtype)) or normalize(pixels)
    trainer.train()
    assert seen == [(3, torch.uint8), (3, torch.uint8), (2, torch.uint8)] * 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gradient_cache_chunk_size": 0}, "gradient_cache_chunk_size must be 1 or more, not 0"),
        (
            {"gradient_cache_chunk_size": 65},
            "gradient_cache_chunk_size=65 is more than per_device_train_batch_size=64",
        ),
        ({"gradient_cache_text_chunk_size": 8}, "gradient_cache_text_chunk_size needs gradient_cache_chunk_size"),
        ({"loss_tile_size": 0}, "loss_tile_size must be 1 or more, not 0"),
    ],
)
def test_bad_sizes_are_refused(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        HFClipTrainingArguments(output_dir=str(tmp_path), **settings)


def test_a_batch_of_one_pair_is_refused(tmp_path, pictures):
    with pytest.raises(InputError, match="a batch of one pair has no negatives"):
        make_trainer(tmp_path / "run", pictures, per_device_train_batch_size=1)
