"""Settings of the Trainer that a dual encoder could break: each is used in a run."""

import json
import os
import signal
import time

import peft
import pytest
import torch
from conftest import tiny_model, tiny_text_config, write_pictures
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training_runs import make_trainer
from transformers import AutoModel, TrainerCallback
from transformers.trainer_jit_checkpoint import JITCheckpointCallback

from hf_clip import HFClipModel, HFClipTrainingArguments
from hf_clip.data import Augmentation, StreamedPairs, open_source


@pytest.fixture
def data(tmp_path):
    return write_pictures(tmp_path / "pictures")


def weights_of(model):
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def logged(trainer, name):
    return [entry[name] for entry in trainer.state.log_history if name in entry]


def test_bf16_trains_with_fp32_logits_and_weights(tmp_path, data):
    trainer = make_trainer(tmp_path / "run", data, bf16=True, num_train_epochs=2, eval_strategy="epoch")
    seen = []
    trainer.model.text_projection.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    trainer.train()
    assert torch.bfloat16 in seen
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}
    plain = make_trainer(tmp_path / "plain", data, num_train_epochs=2, eval_strategy="epoch")
    plain.train()
    first, expected = logged(trainer, "loss")[0], logged(plain, "loss")[0]
    assert first == pytest.approx(expected, rel=0.02)
    assert first != expected


def test_torch_compile_trains_the_same_weights(tmp_path, data):
    settings = {"max_steps": 2, "eval_strategy": "steps", "eval_steps": 1, "data_seed": 0}
    plain = make_trainer(tmp_path / "plain", data, **settings)
    plain.train()
    compiled = make_trainer(
        tmp_path / "compiled", data, torch_compile=True, torch_compile_backend="aot_eager", **settings
    )
    compiled.train()
    compiled.save_model()
    saved = HFClipModel.from_pretrained(tmp_path / "compiled").state_dict()  # without "_orig_mod." in the names
    for name, value in weights_of(plain.model).items():
        torch.testing.assert_close(saved[name], value, rtol=1e-3, atol=2e-5, msg=name)


def test_tensorboard_gets_what_is_logged(tmp_path, data, monkeypatch):
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    trainer = make_trainer(tmp_path / "run", data, report_to=["tensorboard"], eval_strategy="epoch")
    trainer.train()
    folder = next((tmp_path / "board").rglob("events.*")).parent
    board = EventAccumulator(str(folder)).Reload()
    temperatures = [event.value for event in board.Scalars("train/temperature")]
    assert temperatures == pytest.approx(logged(trainer, "temperature"), rel=1e-6)
    assert "eval/image_retrieval_recall@1" in board.Tags()["scalars"]


def test_early_stopping(tmp_path, data):
    """At a rate of zero nothing gets better after the first evaluation."""
    trainer = make_trainer(
        tmp_path / "run", data, num_train_epochs=9, learning_rate=0.0, eval_strategy="epoch", save_strategy="epoch",
        load_best_model_at_end=True, metric_for_best_model="image_retrieval_recall@1", early_stopping_patience=2,
        save_total_limit=1, freeze_vision=True,
    )  # fmt: skip
    trainer.train()
    assert trainer.state.epoch == 3
    assert [entry["epoch"] for entry in trainer.state.log_history if "eval_loss" in entry] == [1, 2, 3]
    assert len(logged(trainer, "eval_image_retrieval_recall@1")) == 3
    assert [path.name for path in (tmp_path / "run").glob("checkpoint-*")] == ["checkpoint-2"]


def test_grouped_by_length_captions_of_a_length_share_a_batch(tmp_path):
    """64 pictures, every other with a long caption. Sorted in fours of batches, one of each four may be mixed."""
    data = write_pictures(tmp_path / "pictures", count=64)
    rows = [{"file_name": f"{i}.png", "caption": "a " * (1 if i % 2 else 9)} for i in range(64)]
    (data / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    trainer = make_trainer(tmp_path / "run", data, train_sampling_strategy="group_by_length")
    lengths = [set(batch["attention_mask"].sum(1).tolist()) for batch in trainer.get_train_dataloader()]
    assert len(lengths) == 16
    assert sum(len(found) > 1 for found in lengths) <= 4
    trainer.train()


@pytest.mark.parametrize("sampling", ["random", "group_by_length"])
def test_the_order_of_an_epoch_is_that_of_the_run_that_was_never_cut(sampling, tmp_path):
    """Dropout draws from the same generator that an unseeded sampler would draw the third epoch's order from."""
    data = write_pictures(tmp_path / "pictures", count=24, captions_each=3)
    settings = {"num_train_epochs": 3, "save_steps": 8, "save_strategy": "steps", "train_sampling_strategy": sampling}

    def run(folder, **changes):
        model = tiny_model(text_config=tiny_text_config(hidden_dropout_prob=0.1))
        trainer = make_trainer(tmp_path / folder, data, model=model, **settings)
        trainer.train(**changes)
        return weights_of(trainer.model)

    whole = run("whole")
    resumed = run("resumed", resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-8"))
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())


def test_gradient_checkpointing_with_workers_and_a_sigmoid_loss(tmp_path, data):
    model = tiny_model(loss="sigmoid")
    before = weights_of(model)
    trainer = make_trainer(
        tmp_path / "run", data, model=model, gradient_checkpointing=True, dataloader_num_workers=2,
        dataloader_persistent_workers=True, num_train_epochs=2, eval_strategy="epoch",
    )  # fmt: skip
    trainer.train()
    assert model.is_gradient_checkpointing  # by the older name of the setting
    unchanged = [name for name, value in model.state_dict().items() if torch.equal(value, before[name])]
    assert unchanged == ["text_model.embeddings.position_embeddings.weight"] or not unchanged
    assert all(loss > 0 for loss in logged(trainer, "eval_loss"))


@pytest.mark.parametrize("side", ["text", "vision"])
def test_lora_trains_saves_loads_and_merges(side, tmp_path, data):
    layers = {"text": r"text_model\..*\.(query|value)", "vision": r"vision_model\..*\.convolution"}
    config = peft.LoraConfig(
        r=4, lora_alpha=8, target_modules=layers[side], modules_to_save=["text_projection", "visual_projection"]
    )
    base = tiny_model()
    model = peft.get_peft_model(base, config)
    before = weights_of(model)
    trainer = make_trainer(
        tmp_path / "run", data, model=model, num_train_epochs=2, eval_strategy="epoch", save_strategy="epoch",
        load_best_model_at_end=True, metric_for_best_model="eval_loss",
    )  # fmt: skip
    trainer.train()
    trainer.save_model()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert any("lora_B" in name for name in changed)
    assert any("text_projection.modules_to_save" in name for name in changed)
    assert not any(name.endswith("base_layer.weight") for name in changed)
    expected = trainer.evaluate()["eval_loss"]

    reloaded = peft.PeftModel.from_pretrained(tiny_model(), tmp_path / "run")
    assert make_trainer(tmp_path / "again", data, model=reloaded).evaluate()["eval_loss"] == pytest.approx(expected)
    reloaded.merge_and_unload().save_pretrained(tmp_path / "merged")
    merged = AutoModel.from_pretrained(tmp_path / "merged")
    assert make_trainer(tmp_path / "merged_run", data, model=merged).evaluate()["eval_loss"] == pytest.approx(
        expected, rel=1e-4
    )


class FourBrokenFirst(torch.utils.data.Dataset):
    """Items as a data set gives them that passes broken pictures on: the first batch has none that can be read."""

    def __init__(self, pairs):
        self.pairs = pairs

    def __len__(self):
        return 8

    def __getitem__(self, row):
        if row < 4:
            return {"row": row, "captions": ["a b"], "skipped": [(row, f"{row}.png", "broken")]}
        return self.pairs[row]

    def set_epoch(self, epoch):
        self.pairs.set_epoch(epoch)


def test_a_batch_without_a_picture_is_a_step_like_any_other(tmp_path, data):
    trainer = make_trainer(tmp_path / "run", data, train_sampling_strategy="sequential")
    trainer.train_dataset = FourBrokenFirst(trainer.train_dataset)
    statistics = trainer.model.vision_model.embedder.embedder.normalization.num_batches_tracked
    trainer.train()
    losses = logged(trainer, "loss")
    assert losses[0] == 0
    assert losses[1] > 0
    assert statistics == 1
    assert set(trainer.skipped_images) == {0, 1, 2, 3}


def test_the_lowest_median_rank_is_the_best():
    args = HFClipTrainingArguments("unused", use_cpu=True, metric_for_best_model="image_retrieval_median_rank")
    assert args.greater_is_better is False


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_full_evaluation_in_half_precision_leaves_the_weights_as_they_were(name, tmp_path, data):
    trainer = make_trainer(tmp_path / "run", data, eval_strategy="epoch", **{f"{name}_full_eval": True})
    before, seen = weights_of(trainer.model), []
    trainer.model.text_projection.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    half = trainer.predict(trainer.eval_dataset)
    assert set(seen) == {{"bf16": torch.bfloat16, "fp16": torch.float16}[name]}
    assert all(torch.equal(value, before[name]) for name, value in weights_of(trainer.model).items())
    plain = make_trainer(tmp_path / "plain", data)
    whole = plain.predict(plain.eval_dataset)
    assert half.metrics["test_loss"] == pytest.approx(whole.metrics["test_loss"], rel=0.02)
    assert half.metrics["test_loss"] != whole.metrics["test_loss"]
    seen.clear()
    trainer.train()  # as in the Trainer, what is measured in between is measured as it is trained
    assert set(seen) == {torch.float32}


def test_memory_is_measured_in_training_and_evaluation(tmp_path, data):
    pytest.importorskip("psutil")
    trainer = make_trainer(tmp_path / "run", data, skip_memory_metrics=False)
    assert "train_mem_cpu_alloc_delta" in trainer.train().metrics
    assert "eval_mem_cpu_alloc_delta" in trainer.evaluate()
    assert "test_mem_cpu_alloc_delta" in trainer.predict(trainer.eval_dataset).metrics


@pytest.mark.parametrize("disabled", [True, False])
def test_progress_bars_are_shown_unless_disabled(disabled, tmp_path, data, capsys):
    trainer = make_trainer(tmp_path / "run", data, disable_tqdm=disabled)
    trainer.evaluate()
    assert ("100%|" in capsys.readouterr().err) is not disabled


@pytest.mark.parametrize("sampling", ["random", "group_by_length"])
def test_data_seed_moves_the_order_of_rows_however_they_are_sampled(sampling, tmp_path):
    data = write_pictures(tmp_path / "pictures", count=16)

    def order(**seeds):
        trainer = make_trainer(tmp_path / "run", data, train_sampling_strategy=sampling, **seeds)
        return [row for batch in trainer.get_train_dataloader() for row in batch["rows"].tolist()]

    assert order(data_seed=1) == order(data_seed=1)
    assert order(data_seed=1) != order(data_seed=2)


def test_loaders_of_streams_have_the_settings_of_loaders(tmp_path, data):
    trainer = make_trainer(
        tmp_path / "run", data, max_steps=1, dataloader_num_workers=1, dataloader_prefetch_factor=3,
        dataloader_persistent_workers=True, dataloader_in_order=False, dataloader_multiprocessing_context="spawn",
    )  # fmt: skip
    source = open_source(data, streaming=True)
    trainer.train_dataset = StreamedPairs(source, trainer.processing_class.image_processor, Augmentation())
    loader = trainer.get_train_dataloader()
    assert (loader.num_workers, loader.prefetch_factor, loader.persistent_workers) == (1, 3, True)
    assert (loader.in_order, loader.multiprocessing_context.get_start_method()) == (False, "spawn")


class Terminate(TrainerCallback):
    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.2)  # the Trainer takes the signal up a moment later


def test_a_checkpoint_at_the_scheduler_s_signal_is_whole(tmp_path, data):
    before = signal.getsignal(signal.SIGTERM)
    trainer = make_trainer(tmp_path / "run", data, max_steps=8, enable_jit_checkpoint=True, callbacks=[Terminate()])
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, JITCheckpointCallback):
            callback.jit_manager.kill_wait = 0
    trainer.train()
    assert signal.getsignal(signal.SIGTERM) is before
    assert trainer.state.global_step < 8
    (checkpoint,) = (tmp_path / "run").glob("checkpoint-*")
    names = {file.name for file in checkpoint.iterdir()}
    assert {"model.safetensors", "optimizer.pt", "trainer_state.json"} <= names
    assert not any("incomplete" in name for name in names)
    resumed = make_trainer(tmp_path / "run", data, max_steps=8)
    assert resumed.train(resume_from_checkpoint=True).global_step == 8
