"""The moving average of the weights against PyTorch's own, and through a resumed run."""

import pytest
import torch
from conftest import write_pictures
from torch.optim.swa_utils import AveragedModel
from toy_images import ToyAutoencoder, toy_model, toy_trainer
from transformers import TrainerCallback


class PyTorchsAverage(TrainerCallback):
    """The same average by torch.optim.swa_utils, and what the model's own weights were at the end."""

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.model = AveragedModel(model, use_buffers=True, multi_avg_fn=self.update)
        self.model.n_averaged += 1  # the weights at the start are the first of the average

    def on_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.step = state.global_step + 1
        self.model.update_parameters(model)
        self.last = {name: value.clone() for name, value in model.state_dict().items()}

    def update(self, averages, values, count):
        decay = min(0.5, (1 + self.step) / (10 + self.step))
        for average, value in zip(averages, values, strict=True):
            if average.is_floating_point():
                average.mul_(decay).add_(value, alpha=1 - decay)


@pytest.fixture
def data(tmp_path):
    return write_pictures(tmp_path / "pictures")


def test_what_is_left_and_saved_is_pytorchs_average(tmp_path, data):
    theirs = PyTorchsAverage()
    trainer = toy_trainer(tmp_path / "run", data, num_train_epochs=4, ema_decay=0.5, callbacks=[theirs])
    trainer.train()
    trainer.save_model()
    saved = ToyAutoencoder.from_pretrained(tmp_path / "run").state_dict()
    averaged = theirs.model.module.state_dict()
    moved = 0
    for name, value in trainer.model.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, averaged[name], rtol=1e-5, atol=1e-6, msg=name)
            torch.testing.assert_close(saved[name], value, msg=name)
            moved += not torch.equal(value, theirs.last[name])
    assert moved > 5


def test_evaluation_sees_the_average_and_training_goes_on_from_the_last_weights(tmp_path, data):
    """A decay of nearly 1 keeps what is evaluated where it began, while the run trains as it would have anyway."""
    settings = {"num_train_epochs": 3, "eval_strategy": "epoch"}
    plain = toy_trainer(tmp_path / "plain", data, **settings)
    plain.train()
    averaged = toy_trainer(tmp_path / "averaged", data, ema_decay=0.999, **settings)
    averaged.train()

    def logged(trainer, name):
        return [entry[name] for entry in trainer.state.log_history if name in entry]

    assert logged(averaged, "loss") == logged(plain, "loss")
    assert logged(averaged, "eval_loss") != logged(plain, "eval_loss")


def test_resumed_it_is_the_run_that_was_never_cut(tmp_path, data):
    settings = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3, "ema_decay": 0.9}
    whole = toy_trainer(tmp_path / "run", data, **settings)
    whole.train()
    resumed = toy_trainer(tmp_path / "run", data, model=toy_model(seed=1), **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-3"))
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name


def test_the_best_checkpoint_is_the_average_that_was_measured(tmp_path, data):
    trainer = toy_trainer(
        tmp_path / "run", data, num_train_epochs=3, ema_decay=0.9, eval_strategy="epoch", save_strategy="epoch",
        load_best_model_at_end=True, metric_for_best_model="eval_loss",
    )  # fmt: skip
    trainer.train()
    measured = {entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry}
    assert trainer.evaluate()["eval_loss"] == pytest.approx(min(measured), rel=1e-6)
