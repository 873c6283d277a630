"""What every trainer does, on a toy family of images alone: no text, no pairs, nothing of CLIP."""

import ast
import gc
import json
import math
import os
import weakref
from dataclasses import dataclass
from pathlib import Path

import optuna
import processes
import pytest
import torch
from conftest import write_pictures
from huggingface_hub.dataclasses import strict
from torch.utils.data import ConcatDataset, Subset
from toy_hf_clip import ToyConfig
from toy_images import ToyAutoencoder, toy_model, toy_trainer
from transformers import TrainerCallback

from hf_clip.core.errors import InputError, NotFinite
from hf_clip.core.training_record import TrainingRecord
from hf_clip.data.sources import open_source
from hf_clip.training import base
from hf_clip.training.base import BaseTrainer
from hf_clip.training.base_arguments import BaseTrainingArguments
from hf_clip.training.facts import Origin
from hf_clip.training.resumable import last_checkpoint

optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.fixture
def data(tmp_path):
    """Without captions or labels."""
    folder = write_pictures(tmp_path / "pictures")
    (folder / "metadata.jsonl").unlink()
    return folder


def same(model, other) -> bool:
    return all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())


def logged(trainer, name):
    return [entry[name] for entry in trainer.state.log_history if name in entry]


def test_a_model_of_images_trains_and_is_saved(tmp_path, data):
    trainer = toy_trainer(tmp_path / "run", data, num_train_epochs=8, eval_strategy="epoch")
    trainer.train()
    losses = logged(trainer, "eval_loss")
    assert losses[-1] < 0.8 * losses[0]
    trainer.save_model()
    assert same(trainer.model, ToyAutoencoder.from_pretrained(tmp_path / "run"))
    assert all(0 < share < 1 for share in logged(trainer, "data_wait"))


def test_the_loss_is_that_of_the_images(tmp_path, data):
    trainer = toy_trainer(tmp_path / "run", data)
    batch = next(iter(trainer.get_train_dataloader()))
    assert batch["pixel_values"].dtype == torch.uint8
    model = trainer.model.eval()
    expected = model(trainer.normalized(batch)["pixel_values"]).loss
    torch.testing.assert_close(trainer.compute_loss(model, batch), expected)


@pytest.mark.parametrize("settings", [{}, {"dataloader_num_workers": 1}], ids=str)
def test_resumed_it_is_the_run_that_was_never_cut(settings, tmp_path, data):
    """Dropout, augmentation, the order of rows, and which images were skipped."""
    (data / "2.png").write_bytes(b"not a picture")
    settings = {"num_train_epochs": 4, "save_strategy": "steps", "save_steps": 3} | settings
    whole = toy_trainer(tmp_path / "whole", data, **settings)
    whole.train()
    resumed = toy_trainer(tmp_path / "resumed", data, model=toy_model(seed=1), **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
    assert resumed.state.global_step == 8
    assert same(resumed.model, whole.model)
    assert resumed.skipped_images == whole.skipped_images


def test_a_run_that_was_cut_after_its_last_step_is_over(tmp_path, data):
    """In the middle of an epoch; it reads nothing more, and remembers what was skipped."""
    (data / "2.png").write_bytes(b"not a picture")
    settings = {"max_steps": 3, "save_strategy": "steps", "save_steps": 3}
    whole = toy_trainer(tmp_path / "run", data, **settings)
    whole.train()
    over = toy_trainer(tmp_path / "run", data, model=toy_model(seed=2), **settings)
    over.train(resume_from_checkpoint=True)
    assert over.state.global_step == 3
    assert same(over.model, whole.model)
    assert over.skipped_images == whole.skipped_images != {}


def test_a_picture_that_cannot_be_read_is_counted(tmp_path, data):
    (data / "2.png").write_bytes(b"not a picture")
    trainer = toy_trainer(tmp_path / "run", data, save_strategy="epoch")
    trainer.train()
    ((row, (name, reason)),) = trainer.skipped_images.items()
    assert (row, name) == (2, "2.png")
    assert "not a whole picture" in reason
    assert json.loads((tmp_path / "run" / "checkpoint-2" / "skipped_images.json").read_text()) == {
        "format_version": 1,
        "images": [[2, name, reason]],
    }
    with pytest.raises(InputError, match=r"row 3: 2.png: .*mend or remove it, or leave out strict"):
        toy_trainer(tmp_path / "strict", data, strict=True).train()


def test_a_picture_that_an_evaluation_cannot_read_is_named_once_and_no_sample(tmp_path, data, caplog):
    """In a batch of its own there is nothing to run; the loss is the mean over the seven that can be read."""
    (data / "2.png").write_bytes(b"not a picture")
    trainer = toy_trainer(tmp_path / "run", data, per_device_eval_batch_size=1)
    rows = [trainer.eval_dataset[row] for row in range(8) if row != 2]
    trainer.model.eval()
    expected = [trainer.model(item["pixel_values"][None]).loss.item() for item in rows]
    assert trainer.evaluate()["eval_loss"] == pytest.approx(sum(expected) / 7)
    predicted = trainer.evaluation_loop(trainer.get_eval_dataloader(), "again")
    assert predicted.num_samples == 7
    assert [record.message.partition(": not")[0] for record in caplog.records if "2.png" in record.message] == [
        "skipped in evaluation: row 3: 2.png"
    ]
    assert trainer.skipped_images == {}
    with pytest.raises(InputError, match=r"row 3: 2.png: .*mend or remove it, or leave out strict"):
        toy_trainer(tmp_path / "strict", data, strict=True).evaluate()
    for row in range(8):
        (data / f"{row}.png").write_bytes(b"not a picture")
    with pytest.raises(InputError, match=r"no image of the evaluation set can be read; the first, row 1: 0.png"):
        trainer.evaluate()


def test_a_loss_that_no_argument_asks_for_is_evaluated(tmp_path, data):
    class Plain(ToyAutoencoder):
        def forward(self, pixel_values):
            return super().forward(pixel_values)

    trainer = toy_trainer(tmp_path / "run", data, model=Plain(ToyConfig()))
    assert trainer.evaluate()["eval_loss"] > 0


def test_our_own_sets_have_the_collator_of_images(tmp_path, data):
    (data / "2.png").write_bytes(b"not a picture")
    trainer = toy_trainer(tmp_path / "run", data, data_collator=None)
    rows = trainer.train_dataset
    trainer.train()
    given = toy_trainer(tmp_path / "given", data)
    given.train()
    assert same(trainer.model, given.model)
    assert trainer.evaluate()["eval_loss"] == given.evaluate()["eval_loss"]
    named = {"some": Subset(rows, range(3))}
    trainer = toy_trainer(tmp_path / "run", data, data_collator=None, train_dataset=None, eval_dataset=named)
    assert "eval_some_loss" in trainer.evaluate()


def test_wrapped_sets_train_what_the_bare_one_does(tmp_path, data):
    bare = toy_trainer(tmp_path / "bare", data)
    bare.train()
    wrapped = toy_trainer(tmp_path / "wrapped", data)
    rows = wrapped.train_dataset
    wrapped.train_dataset = ConcatDataset([Subset(rows, range(3)), Subset(rows, range(3, 8))])
    wrapped.train()
    assert same(wrapped.model, bare.model)


# ---- checkpoints --------------------------------------------------------------------------------------------------


def test_a_checkpoint_that_breaks_off_is_never_there(tmp_path, data, monkeypatch):
    trainer = toy_trainer(tmp_path / "run", data, save_strategy="steps", save_steps=2)
    save = trainer._save_optimizer_and_scheduler

    def break_off(folder):
        if trainer.state.global_step == 4:
            raise OSError("no space left on device")
        save(folder)

    monkeypatch.setattr(trainer, "_save_optimizer_and_scheduler", break_off)
    with pytest.raises(InputError, match=r"checkpoint-4 could not be written .*no space"):
        trainer.train()
    assert last_checkpoint(tmp_path / "run") == str(tmp_path / "run" / "checkpoint-2")
    assert not (tmp_path / "run" / "checkpoint-4").exists()


def test_save_total_limit(tmp_path, data):
    toy_trainer(tmp_path / "run", data, num_train_epochs=3, save_strategy="epoch", save_total_limit=2).train()
    assert sorted(p.name for p in (tmp_path / "run").glob("*")) == ["checkpoint-4", "checkpoint-6"]


def test_a_trainer_goes_with_its_last_reference(tmp_path, data):
    """Left to the garbage collector, its loaders would wait five seconds for each of their workers."""
    trainer = toy_trainer(tmp_path / "run", data, max_steps=1, save_strategy="epoch")
    trainer.train()
    remembered = weakref.ref(trainer)
    gc.disable()
    try:
        del trainer
        assert remembered() is None
    finally:
        gc.enable()


class Spoil(TrainerCallback):
    """Sets a weight or a statistic to NaN after the second step."""

    def __init__(self, name: str):
        self.name = name

    def on_optimizer_step(self, args, state, control, model=None, **kwargs):
        if state.global_step == 1:
            model.state_dict()[self.name].fill_(math.nan)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("encoder.1.running_mean", "step 2: encoder.1.running_mean is NaN or infinite, and was not saved"),
        ("decoder.bias", "step 3: the loss became NaN or infinite: lower learning_rate"),
    ],
)
def test_what_is_not_finite_ends_the_run(name, line, tmp_path, data):
    steps = 2 if "saved" in line else 10
    trainer = toy_trainer(
        tmp_path / "run", data, callbacks=[Spoil(name)], save_strategy="steps", save_steps=steps, num_train_epochs=4
    )
    with pytest.raises(NotFinite, match=line):
        trainer.train()
    assert not list((tmp_path / "run").glob("checkpoint-*"))


def test_what_one_of_two_processes_finds_ends_both_runs(tmp_path, data):
    """A loss that is NaN in one; and an image that one cannot read is skipped in both, but where both gather more."""
    (data / "2.png").write_bytes(b"not a picture")
    processes.run(processes.train_with_one_loss_not_finite, 2, str(tmp_path), str(data))
    alone = toy_trainer(tmp_path / "alone", data, per_device_eval_batch_size=1).evaluate()["eval_loss"]
    for rank in range(2):
        loss, refused, stopped = torch.load(tmp_path / f"{rank}.pt")
        assert loss == pytest.approx(alone)
        assert refused.startswith("row 3: 2.png")
        assert "several processes that gather predictions" in refused
        assert stopped.startswith("step 2: the loss became NaN or infinite")


def test_what_is_frozen_stays_in_evaluation_mode(tmp_path, data):
    """A part of which nothing trains, and a BatchNorm alone within one that does; but no dropout."""
    for frozen, staying in (("encoder", ["encoder", "encoder.1", "encoder.2"]), ("encoder.1", ["encoder.1"])):
        model, modes = toy_model(), []
        model.get_submodule(frozen).requires_grad_(False)
        model.decoder.register_forward_hook(
            lambda module, args, output, model=model, modes=modes: modes.append(
                [name for name, each in model.named_modules() if not each.training and name != "encoder.0"]
            )
        )
        before = model.encoder[1].running_mean.clone()
        toy_trainer(tmp_path / "run", data, model=model, max_steps=1).train()
        assert modes == [staying]
        assert torch.equal(model.encoder[1].running_mean, before)


# ---- what a family adds -------------------------------------------------------------------------------------------


class Note(TrainerCallback):
    def __init__(self, seen):
        self.seen = seen

    def on_train_begin(self, args, state, control, **kwargs):
        self.seen.append("callback")


@strict
@dataclass
class ToyRecord(TrainingRecord):
    family: str = ""


class FamilyTrainer(BaseTrainer):
    """Overrides what a family may."""

    def __init__(self, *args, **kwargs):
        self.seen = []
        super().__init__(*args, **kwargs)

    def parts_for(self, model, given):
        self.seen.append("parts")
        return given

    def make_ready(self, model):
        self.seen.append("ready")
        return super().make_ready(model)

    def blocks_of(self, model):
        return [type(model.decoder).__name__]

    def own_callbacks(self):
        return [Note(self.seen)]

    def check_run(self):
        self.seen.append("check")

    def compute_loss(self, model, inputs, *args, **kwargs):
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        self.meter("doubled", 2 * loss * len(inputs["rows"]), len(inputs["rows"]))
        return loss

    def training_facts(self):
        return ToyRecord(**vars(super().training_facts()), family="toys")


def test_a_family_overrides_what_it_needs(tmp_path, data, monkeypatch):
    written = []
    monkeypatch.setattr("hf_clip.training.hub.write_card", lambda *args, **kwargs: written.append(args))
    trainer = toy_trainer(tmp_path / "run", data, FamilyTrainer, origin=Origin(data="toys of us"))
    trainer.train()
    assert trainer.seen == ["parts", "ready", "check", "callback"]
    assert logged(trainer, "doubled") == pytest.approx([2 * loss for loss in logged(trainer, "loss")])
    trainer.create_model_card()
    facts = json.loads((tmp_path / "run" / "training.json").read_text())
    assert (facts["family"], facts["steps"], facts["data"]) == (
        "toys", 4, [{"name": "toys of us", "weight": None, "pictures": 8}],
    )  # fmt: skip
    assert facts["parameters"] == {"model": 2 * 192 * 8 + 192 + 3 * 8, "trained": 2 * 192 * 8 + 192 + 3 * 8}
    assert len(written) == 1


class OwnFigure(BaseTrainer):
    """As a user adds one, which the Trainer's own `evaluate` knows nothing of."""

    def evaluate(self, *args, **kwargs):
        return super().evaluate(*args, **kwargs) | {"eval_own": -abs(self.state.global_step - 4)}


def test_a_figure_of_an_evaluate_of_ones_own_chooses_the_best_checkpoint(tmp_path, data):
    trainer = toy_trainer(
        tmp_path / "run", data, OwnFigure, num_train_epochs=3, eval_strategy="epoch", save_strategy="epoch",
        load_best_model_at_end=True, metric_for_best_model="own",
    )  # fmt: skip
    trainer.train()
    assert (trainer.state.best_metric, trainer.state.best_global_step) == (0, 4)


def test_blocks_are_told_to_fsdp_and_to_no_other_model(tmp_path, data, monkeypatch):
    seen, name = [], "FSDP_TRANSFORMER_CLS_TO_WRAP"
    make = base.Trainer.create_accelerator_and_postprocess
    monkeypatch.setattr(
        base.Trainer,
        "create_accelerator_and_postprocess",
        lambda self: (seen.append(os.environ.get(name)), make(self))[1],
    )
    toy_trainer(tmp_path / "run", data, FamilyTrainer)
    toy_trainer(tmp_path / "run", data)
    monkeypatch.setenv(name, "Block")
    toy_trainer(tmp_path / "run", data, FamilyTrainer)
    assert seen == ["Linear", None, "Block"]
    assert os.environ[name] == "Block"


def test_a_search_leaves_the_arguments_as_they_are(tmp_path, data):
    trainer = toy_trainer(tmp_path / "run", data, model_init=lambda: toy_model(), eval_strategy="epoch")
    args, before = trainer.args, dict(vars(trainer.args))
    seen = []
    check = trainer.check_run
    trainer.check_run = lambda: (seen.append((trainer.args.learning_rate, args.learning_rate)), check())
    trainer.hyperparameter_search(
        lambda trial: {"learning_rate": trial.suggest_categorical("learning_rate", [0.5])},
        n_trials=2,
        backend="optuna",
    )
    assert seen == [(0.5, 0.01)] * 2
    assert trainer.args is args
    assert vars(args) == before


# ---- what is refused ----------------------------------------------------------------------------------------------


def test_one_process_with_several_gpus_is_refused(tmp_path, data, monkeypatch):
    monkeypatch.setattr(BaseTrainingArguments, "n_gpu", property(lambda self: 2))
    with pytest.raises(ValueError, match=r"one process sees 2 GPUs: .*accelerate launch.*CUDA_VISIBLE_DEVICES"):
        toy_trainer(tmp_path / "run", data)


def test_parts_that_will_not_do(tmp_path, data):
    with pytest.raises(InputError, match="there is nothing to train: give a model, or model_init"):
        toy_trainer(tmp_path / "run", data, model_init=None)
    with pytest.raises(InputError, match="there is nothing to train on: give train_dataset"):
        toy_trainer(tmp_path / "run", data, train_dataset=None).get_train_dataloader()
    source = open_source(data, captions_required=False)
    for parts in ({"train_dataset": source}, {"eval_dataset": source}, {"eval_dataset": {"some": source}}):
        with pytest.raises(InputError, match=r"is a bare Source: to train, give TrainingImages.*ImageRows"):
            toy_trainer(tmp_path / "run", data, **parts)
    with pytest.raises(InputError, match="is a bare Source"):
        toy_trainer(tmp_path / "run", data).evaluate(source)
    with pytest.raises(InputError, match="remove_unused_columns would take out of the batch"):
        toy_trainer(tmp_path / "run", data, remove_unused_columns=True)
    with pytest.raises(InputError, match=r"is read without captions: leave out .*group_by_length"):
        toy_trainer(tmp_path / "run", data, train_sampling_strategy="group_by_length").train()
    with pytest.raises(InputError, match=r"metric_for_best_model 'beauty' is none of the figures: choose .*eval_loss"):
        toy_trainer(
            tmp_path / "run", data, eval_strategy="epoch", save_strategy="epoch", load_best_model_at_end=True,
            metric_for_best_model="beauty",
        ).train()  # fmt: skip


def test_a_push_of_a_model_of_no_family_is_refused_before_its_repository_is_made(tmp_path, data, monkeypatch):
    monkeypatch.setattr(ToyConfig, "model_type", "of_nobody")
    monkeypatch.setattr("hf_clip.training.hub.open_repository", lambda target: pytest.fail("it was made"))
    with pytest.raises(InputError, match="model type 'of_nobody' has no family"):
        toy_trainer(tmp_path / "run", data, push_to_hub=True)


def test_it_knows_no_clip():
    """Neither itself nor what it is put together from imports anything of a dual encoder."""
    waiting, seen = [Path(base.__file__)], set()
    while waiting:
        file = waiting.pop()
        seen.add(file)
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == 1:
                beside = file.with_name(f"{node.module}.py")
                waiting += [beside] if beside not in seen else []
            elif isinstance(node, ast.ImportFrom) and node.level == 2:
                names = [alias.name for alias in node.names]
                assert not [name for name in names if name.startswith("HFClip")], file
                assert not node.module.startswith(("models", "evaluation")), file
    assert {file.stem for file in seen} & {"contrastive", "distributed", "evaluation", "arguments"} == set()
