"""The dual encoders' trainer: what is frozen, clamped, grouped, logged, saved and resumed."""

import copy
import logging
import math

import pytest
import torch
from conftest import tiny_model, tiny_vision_config, write_pictures
from torch.utils.data import ConcatDataset, Subset
from training_runs import make_trainer
from transformers import TrainerCallback, ViTConfig
from transformers.models.clip.modeling_clip import image_text_contrastive_loss

from hf_clip.core.errors import InputError
from hf_clip.training import contrastive


def weights_of(model) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


class Watch(TrainerCallback):
    """Notes what a function of (model, trainer's data set) gives after every step."""

    def __init__(self, look):
        self.look, self.seen = look, []

    def on_step_end(self, args, state, control, model=None, train_dataloader=None, **kwargs):
        self.seen.append(self.look(model, train_dataloader.dataset))


# ---- the step -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["text", "vision"])
def test_a_frozen_tower_is_bit_unchanged_and_its_head_is_not(side, tmp_path, pictures):
    model = tiny_model()  # BatchNorm statistics are buffers: they must not move either
    before = weights_of(model)
    watch = Watch(lambda model, data: (model.text_model.training, model.vision_model.training))
    trainer = make_trainer(
        tmp_path / "run", pictures, model=model, callbacks=[watch], num_train_epochs=2, **{f"freeze_{side}": True}
    )
    trainer.train()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    head, other = ("text_projection", "vision_model") if side == "text" else ("visual_projection", "text_model")
    assert not any(name.startswith(f"{side}_model") for name in changed)
    assert f"{head}.weight" in changed
    assert any(name.startswith(other) for name in changed)
    assert all(parameter.grad is None for parameter in getattr(model, f"{side}_model").parameters())
    assert set(watch.seen) == {(side != "text", side != "vision")}


def test_the_loss_is_clip_s(tmp_path, pictures):
    trainer = make_trainer(tmp_path / "run", pictures)
    batch = next(iter(trainer.get_train_dataloader()))
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids", "pixel_values")}
    inputs = trainer.normalized(inputs)
    model = trainer.model.eval()
    expected = image_text_contrastive_loss(model(**inputs).logits_per_text)
    torch.testing.assert_close(trainer.compute_loss(model, dict(batch)), expected)


def test_the_same_caption_is_masked_unless_told_otherwise(tmp_path):
    data = write_pictures(tmp_path / "pictures", count=4)
    (data / "metadata.jsonl").write_text(
        "".join(f'{{"file_name": "{i}.png", "caption": "{caption}"}}\n' for i, caption in enumerate("abca"))
    )
    losses = []
    for mask in (True, False):
        trainer = make_trainer(tmp_path / f"{mask}", data, mask_duplicates=mask)
        batch = next(iter(trainer.get_train_dataloader()))
        losses.append(trainer.compute_loss(trainer.model.eval(), batch).item())
    assert losses[0] < losses[1] - 0.01


def test_learning_rates_and_decay_by_part(tmp_path, pictures):
    rates = {"text_learning_rate": 1e-5, "vision_learning_rate": 2e-4, "head_learning_rate": 3e-3}
    trainer = make_trainer(tmp_path / "run", pictures, weight_decay=0.3, **rates)
    optimizer = trainer.create_optimizer()
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    settings = {
        names[id(p)]: (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]
    }
    assert settings.keys() == set(names.values())
    assert settings["text_model.embeddings.word_embeddings.weight"] == (1e-5, 0.3)
    assert settings["text_model.embeddings.LayerNorm.weight"] == (1e-5, 0.0)
    assert settings["text_model.encoder.layer.0.output.dense.bias"] == (1e-5, 0.0)
    assert settings["vision_model.embedder.embedder.convolution.weight"] == (2e-4, 0.3)
    assert settings["vision_model.embedder.embedder.normalization.weight"] == (2e-4, 0.0)
    assert settings["visual_projection.weight"] == (3e-3, 0.3)
    assert settings["logit_scale"] == (3e-3, 0.0)


@pytest.mark.parametrize(("cap", "expected"), [(1.0, 1.0), (None, 5.0)])
def test_the_temperature_is_clamped_after_the_step_unless_there_is_no_cap(cap, expected, tmp_path, pictures):
    model = tiny_model(logit_scale_init_value=5.0, logit_scale_max=cap)
    trainer = make_trainer(tmp_path / "run", pictures, model=model, max_steps=1)
    trainer.train()
    assert model.logit_scale.item() == pytest.approx(expected, abs=2e-3)


def test_convolutions_are_stored_channels_last_and_transformers_as_they_are(tmp_path, pictures):
    trainer = make_trainer(tmp_path / "run", pictures)
    kernel = trainer.model.vision_model.encoder.stages[1].layers[0].layer[0].convolution.weight
    assert kernel.is_contiguous(memory_format=torch.channels_last)
    assert not kernel.is_contiguous()
    vit = ViTConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=37, image_size=32, patch_size=8
    )
    trainer = make_trainer(tmp_path / "vit", pictures, model=tiny_model(vision_config=vit))
    assert trainer.model.vision_model.embeddings.patch_embeddings.projection.weight.is_contiguous()


def test_each_epoch_draws_anew_in_the_process_and_in_workers(tmp_path):
    data = write_pictures(tmp_path / "pictures", captions_each=3)
    results = []
    for workers in (0, 1):
        watch = Watch(lambda model, data: data.epoch)
        trainer = make_trainer(
            tmp_path / str(workers), data, num_train_epochs=3, dataloader_num_workers=workers, callbacks=[watch]
        )
        trainer.train()
        assert watch.seen == [0, 0, 1, 1, 2, 2]
        results.append(weights_of(trainer.model))
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


def test_accumulation_says_once_that_it_adds_no_negatives(tmp_path, pictures, monkeypatch):
    said = []
    monkeypatch.setattr(contrastive.logger, "warning", said.append)
    make_trainer(tmp_path / "run", pictures, gradient_accumulation_steps=2).train()
    assert len([line for line in said if "negatives of one batch only" in line]) == 1


def test_a_batch_larger_than_the_data_is_all_of_them(tmp_path, pictures, caplog):
    """By default an incomplete batch is left out, and nothing would be trained."""
    logging.Logger.warning_once.cache_clear()  # other tests may have had the line
    trainer = make_trainer(tmp_path / "run", pictures, per_device_train_batch_size=64, num_train_epochs=2)
    assert trainer.train().global_step == 2
    assert [len(batch["rows"]) for batch in trainer.get_train_dataloader()] == [8]
    assert "8 training rows make no whole batch of 64: each epoch is one of 8" in caplog.text


def test_one_image_that_batch_norm_cannot_take_is_a_line(tmp_path, pictures):
    settings = {"per_device_train_batch_size": 7, "dataloader_drop_last": False}
    with pytest.raises(
        InputError, match="this process has a batch of one image, of which BatchNorm has no statistics"
    ):
        make_trainer(tmp_path / "run", pictures, **settings).train()
    make_trainer(tmp_path / "frozen", pictures, freeze_vision=True, **settings).train()


def test_a_chunk_of_one_image_is_refused_where_batch_norm_learns(tmp_path, pictures):
    with pytest.raises(InputError, match="gradient_cache_chunk_size=1 shows BatchNorm one image at a time"):
        make_trainer(tmp_path / "run", pictures, gradient_cache_chunk_size=1)
    make_trainer(tmp_path / "frozen", pictures, gradient_cache_chunk_size=1, freeze_vision=True).train()


@pytest.mark.parametrize(("batch", "chunk"), [(3, 2), (5, 2), (7, 3), (8, 7)])
def test_no_chunk_is_of_one_image_where_batch_norm_learns(batch, chunk, tmp_path, pictures):
    trainer = make_trainer(
        tmp_path / "run", pictures, per_device_train_batch_size=batch, gradient_cache_chunk_size=chunk, max_steps=1
    )
    sizes = []
    trainer.model.vision_model.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(len(kwargs["pixel_values"])), with_kwargs=True
    )
    trainer.train()
    assert 2 <= min(sizes) <= max(sizes) <= chunk + 1
    assert sum(sizes) == 2 * batch


def test_checkpointing_in_the_trainer_trains_the_same_weights(tmp_path, pictures):
    runs = [
        make_trainer(tmp_path / str(on), pictures, activation_checkpointing=on, freeze_text=True)
        for on in (True, False)
    ]
    for trainer in runs:
        trainer.train()
    assert [trainer.model.is_gradient_checkpointing for trainer in runs] == [True, False]
    with_it, without = (weights_of(trainer.model) for trainer in runs)
    for name in without:
        torch.testing.assert_close(with_it[name], without[name], rtol=1e-4, atol=1e-5, msg=name)


# ---- what is logged -----------------------------------------------------------------------------------------------


def test_logs(tmp_path):
    data = write_pictures(tmp_path / "pictures", count=4)
    long = "a " * 30  # 30 words and two special tokens, of which 16 fit
    (data / "metadata.jsonl").write_text(
        "".join(f'{{"file_name": "{i}.png", "caption": "{text}"}}\n' for i, text in enumerate([long, "b", "c", "d"]))
    )
    trainer = make_trainer(tmp_path / "run", data, max_steps=1)
    batch = next(iter(trainer.get_train_dataloader()))
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids", "pixel_values")}
    trainer.model.train()
    with torch.no_grad():
        choices = copy.deepcopy(trainer.model)(**trainer.normalized(inputs)).logits_per_image.argmax(1)
    trainer.train()
    logs = trainer.state.log_history[0]
    assert logs["captions_cut"] == 0.25
    assert logs["temperature"] == pytest.approx(0.07, rel=0.01)
    # All four pairs are in the batch, so their order is of no matter.
    assert logs["in_batch_accuracy"] == (choices == torch.arange(4)).float().mean().item()
    assert logs["grad_norm"] > 0
    assert math.isfinite(logs["loss"])


def test_a_broken_picture_is_skipped_counted_and_named(tmp_path, pictures):
    (pictures / "2.png").write_bytes(b"not a picture")
    trainer = make_trainer(tmp_path / "run", pictures, num_train_epochs=2)
    trainer.train()
    assert set(trainer.skipped_images) == {2}
    name, reason = trainer.skipped_images[2]
    assert name == "2.png"
    assert "not a whole picture" in reason
    assert trainer.state.global_step == 4


# ---- torch's wrappers in training ---------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [
    {"dataloader_num_workers": 1, "dataloader_persistent_workers": True},
    {"train_sampling_strategy": "group_by_length", "gradient_accumulation_steps": 2},
])  # fmt: skip
def test_a_wrapped_set_trains_what_the_bare_one_does(settings, tmp_path):
    """Bit for bit, over three epochs of captions and augmentation; and resumed."""
    data = write_pictures(tmp_path / "pictures", captions_each=3)
    settings = settings | {"num_train_epochs": 3, "save_strategy": "steps", "save_steps": 1}
    bare = make_trainer(tmp_path / "bare", data, **settings)
    bare.train()

    def wrapped(name, model=None):
        trainer = make_trainer(tmp_path / name, data, model=model, **settings)
        first, second = Subset(trainer.train_dataset, range(3)), Subset(trainer.train_dataset, range(2, 8))
        trainer.train_dataset = ConcatDataset([first, Subset(second, range(1, 6))])
        return trainer

    trainer = wrapped("wrapped")
    trainer.train()
    resumed = wrapped("resumed", tiny_model(seed=1))
    steps = bare.state.global_step
    resumed.train(resume_from_checkpoint=str(tmp_path / "wrapped" / f"checkpoint-{steps // 2}"))
    for each in (trainer, resumed):
        for name, value in each.model.state_dict().items():
            assert torch.equal(value, bare.model.state_dict()[name]), name


def test_pictures_skipped_behind_wrappers_are_all_named(tmp_path):
    trainer = make_trainer(tmp_path / "run", write_pictures(tmp_path / "a", count=4))
    other = make_trainer(tmp_path / "other", write_pictures(tmp_path / "b", count=4))
    for name in "ab":
        (tmp_path / name / "1.png").write_bytes(b"")
    trainer.train_dataset = ConcatDataset([trainer.train_dataset, Subset(other.train_dataset, [0, 1, 1, 2])])
    trainer.train()
    assert trainer.skipped_images == {
        1: (f"{tmp_path / 'a'}: row 2: 1.png", "the file is empty"),
        5: (f"{tmp_path / 'b'}: row 2: 1.png", "the file is empty"),
    }


# ---- saving and going on ------------------------------------------------------------------------------------------


def test_resumed_it_ends_with_the_weights_of_the_run_that_was_never_cut(tmp_path):
    data = write_pictures(tmp_path / "pictures", captions_each=3)
    settings = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3}
    whole = make_trainer(tmp_path / "whole", data, **settings)
    whole.train()
    resumed = make_trainer(tmp_path / "whole", data, model=tiny_model(seed=1), **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
    expected = weights_of(whole.model)
    for name, value in resumed.model.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_bottleneck_towers_train(tmp_path, pictures):
    model = tiny_model(vision_config=tiny_vision_config("bottleneck"))
    before = weights_of(model)
    make_trainer(tmp_path / "run", pictures, model=model).train()
    unmoved = [n for n, p in model.named_parameters() if torch.equal(p, before[n]) and "key.bias" not in n]
    # Word and position vectors that no caption used, and nothing else, may stand still.
    assert unmoved == []


class Spoil(TrainerCallback):
    """Sets one weight of a module to NaN after a step."""

    def __init__(self, module: str, step: int):
        self.module, self.step = module, step

    def on_optimizer_step(self, args, state, control, model=None, **kwargs):
        if state.global_step + 1 == self.step:
            with torch.no_grad():
                next(model.get_submodule(self.module).parameters()).view(-1)[-1] = float("nan")


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("visual_projection", "step 4: the image tower's embeddings became NaN or infinite: lower learning_rate"),
        ("text_projection", "step 4: the text tower's embeddings became NaN or infinite: lower learning_rate"),
    ],
)
def test_embeddings_that_are_not_finite_stop_the_run(tmp_path, module, line):
    data = write_pictures(tmp_path / "pictures")
    trainer = make_trainer(
        tmp_path / "run", data, max_steps=6, save_strategy="steps", save_steps=2, callbacks=[Spoil(module, 3)]
    )
    with pytest.raises(InputError, match=line):
        trainer.train()
    assert trainer.state.global_step == 3


def test_an_optimiser_that_steps_in_the_backward_pass_of_each_chunk_is_refused(pictures, tmp_path):
    with pytest.raises(InputError, match="gradient_cache_chunk_size cannot go with optim=apollo_adamw_layerwise"):
        make_trainer(tmp_path / "run", pictures, gradient_cache_chunk_size=2, optim="apollo_adamw_layerwise")
