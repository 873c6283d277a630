"""`model_init` and `hyperparameter_search`: every training has a new model, made ready as the first one was."""

import json

import optuna
import pytest
import torch
from conftest import tiny_model, tiny_vision_config, write_pictures
from training_runs import make_trainer
from transformers import ViTConfig

from hf_clip.core.errors import InputError
from hf_clip.data.augmentation import Augmentation
from hf_clip.training.averaging import WeightAverage
from hf_clip.training.feature_cache import UseFrozenFeatures

optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.fixture
def data(tmp_path):
    return write_pictures(tmp_path / "pictures")


def weights_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


class Maker:
    """Makes tiny models, and remembers them."""

    def __init__(self):
        self.made = []

    def __call__(self):
        with torch.random.fork_rng():  # it seeds, and the order of rows is drawn after it
            self.made.append(tiny_model())
        return self.made[-1]


def test_each_training_gets_a_new_model_frozen_and_averaged_as_asked(tmp_path, data):
    """Two trainings of one trainer are one training of a trainer with such a model, to the bit."""
    settings = {"freeze_text": True, "ema_decay": 0.5, "num_train_epochs": 2}
    given = make_trainer(tmp_path / "given", data, **settings)
    given.train()
    expected = weights_of(given.model)
    make = Maker()
    trainer = make_trainer(tmp_path / "made", data, trainer={"model_init": make}, **settings)
    for _ in range(2):
        trainer.train()
        assert trainer.model is make.made[-1]
        kernel = trainer.model.vision_model.encoder.stages[1].layers[0].layer[0].convolution.weight
        assert kernel.is_contiguous(memory_format=torch.channels_last)
        assert not any(p.requires_grad for p in trainer.model.text_model.parameters())
        assert all(torch.equal(value, expected[name]) for name, value in weights_of(trainer.model).items())
    assert len(make.made) == 3, "one to look at, and one for each training"
    kinds = [type(callback).__name__ for callback in trainer.callback_handler.callbacks]
    assert len(kinds) == len(set(kinds))


def test_what_is_evaluated_before_training_is_the_first_model(tmp_path, data):
    trainer = make_trainer(tmp_path / "made", data, trainer={"model_init": lambda trial: tiny_model()})
    expected = make_trainer(tmp_path / "given", data).evaluate()["eval_loss"]
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected)


def test_an_average_of_a_model_that_broke_off_is_not_the_next_one_s(tmp_path, data):
    trainer = make_trainer(tmp_path / "run", data, ema_decay=0.5, trainer={"model_init": Maker()})
    trainer.train()
    expected = weights_of(trainer.model)
    loader, trainer.get_train_dataloader = trainer.get_train_dataloader, lambda: iter(())
    trainer.get_train_dataloader = loader
    step, trainer.training_step = trainer.training_step, None  # the second training breaks off in its first step
    with pytest.raises(TypeError):
        trainer.train()
    trainer.training_step = step
    trainer.train()
    assert all(torch.equal(value, expected[name]) for name, value in weights_of(trainer.model).items())


def space(trial):
    return {
        "learning_rate": trial.suggest_categorical("learning_rate", [1e-3, 1e-5]),
        "freeze_text": trial.suggest_categorical("freeze_text", [True, False]),
    }


def fixed(values):
    return {"sampler": optuna.samplers.GridSampler(values, seed=0)}


def test_each_trial_is_a_run_of_its_own(tmp_path, data):
    """Two trials, each the run that a trainer with these settings would have made; their folders have checkpoints."""
    grid = {"learning_rate": [1e-3, 1e-5], "freeze_text": [True, False]}
    settings = {"eval_strategy": "epoch", "save_strategy": "epoch", "num_train_epochs": 2}
    seen = []
    make = Maker()
    trainer = make_trainer(tmp_path / "search", data, trainer={"model_init": make}, ema_decay=0.9, **settings)
    objective = lambda metrics: seen.append(metrics["eval_loss"]) or seen[-1]  # noqa: E731
    best = trainer.hyperparameter_search(
        space, objective, n_trials=2, backend="optuna", hp_name=lambda trial: f"trial-{trial.number}", **fixed(grid)
    )
    folders = sorted((tmp_path / "search").iterdir())
    assert [folder.name for folder in folders] == [f"trial-{i}" for i in range(2)]
    assert len({id(model) for model in make.made}) == 3
    for folder in folders:
        state = json.loads((folder / "checkpoint-4" / "trainer_state.json").read_text())
        found = state["trial_params"]
        alone = make_trainer(tmp_path / "alone" / folder.name, data, ema_decay=0.9, **settings | found)
        alone.train()
        losses = [entry["eval_loss"] for entry in state["log_history"] if "eval_loss" in entry]
        expected = [entry["eval_loss"] for entry in alone.state.log_history if "eval_loss" in entry]
        assert losses == pytest.approx(expected, rel=1e-5), found
    assert best.objective == min(seen[1::2])
    assert best.hyperparameters.keys() == grid.keys()
    assert (trainer.args.learning_rate, trainer.args.freeze_text) == (1e-3, False), "as they were given"

    for name, value in best.hyperparameters.items():  # what people do next
        setattr(trainer.args, name, value)
    trainer.train()
    assert trainer.evaluate()["eval_loss"] == pytest.approx(best.objective, rel=1e-5)


def test_a_search_with_cached_features_patience_and_another_batch_size(tmp_path, data):
    """The cache follows what each trial freezes; patience that one trial has used up is not the next one's."""

    def space(trial):
        return {
            "per_device_train_batch_size": trial.suggest_categorical("per_device_train_batch_size", [4, 8]),
            "freeze_vision": trial.suggest_categorical("freeze_vision", [True, False]),
        }

    trainer = make_trainer(
        tmp_path / "search", data, augmentation=Augmentation(crop_scale=1), freeze_text=True, learning_rate=0.0,
        cache_frozen_features=True, feature_cache_dir=str(tmp_path / "cache"), num_train_epochs=3,
        eval_strategy="epoch", save_strategy="epoch", load_best_model_at_end=True, early_stopping_patience=1,
        metric_for_best_model="image_retrieval_recall@1", trainer={"model_init": Maker()}, ema_decay=0.9,
    )  # fmt: skip
    epochs = []
    end = trainer._finalize_training
    trainer._finalize_training = lambda *args: epochs.append(trainer.state.epoch) or end(*args)
    grid = {"per_device_train_batch_size": [4, 8], "freeze_vision": [True, False]}
    trainer.hyperparameter_search(space, n_trials=2, backend="optuna", **fixed(grid))
    assert len(epochs) == 2
    assert min(epochs) >= 2, "each trial evaluates twice before its patience ends"
    kinds = [type(callback) for callback in trainer.callback_handler.callbacks]
    assert (kinds.count(UseFrozenFeatures), kinds.count(WeightAverage)) == (1, 1)


def test_pruned_trials(tmp_path, data):
    class PruneSecond(optuna.pruners.BasePruner):
        def prune(self, study, trial):
            return trial.number == 1

    trainer = make_trainer(
        tmp_path / "search", data, trainer={"model_init": Maker()}, eval_strategy="epoch", ema_decay=0.9,
        num_train_epochs=2,
    )  # fmt: skip
    best = trainer.hyperparameter_search(
        lambda trial: {"learning_rate": trial.suggest_categorical("learning_rate", [1e-3])},
        n_trials=3, backend="optuna", pruner=PruneSecond(),
    )  # fmt: skip
    alone = make_trainer(tmp_path / "alone", data, eval_strategy="epoch", ema_decay=0.9, num_train_epochs=2)
    alone.train()
    assert best.objective == pytest.approx(alone.evaluate()["eval_loss"], rel=1e-5)
    assert trainer.objective == pytest.approx(best.objective), "the trial after the pruned one"


@pytest.mark.parametrize(
    ("metric", "better"), [(None, "minimize"), ("image_retrieval_median_rank", "minimize"),
                           ("eval_image_retrieval_recall@5", "maximize")]
)  # fmt: skip
def test_the_objective_is_the_metric_for_the_best_model(metric, better, tmp_path, data, monkeypatch):
    trainer = make_trainer(
        tmp_path / "run", data, metric_for_best_model=metric, trainer={"model_init": Maker()}, num_train_epochs=1
    )
    asked = {}
    create = optuna.create_study
    monkeypatch.setattr(optuna, "create_study", lambda **given: asked.update(given) or create(**given))
    best = trainer.hyperparameter_search(lambda trial: {}, n_trials=1, backend="optuna")
    assert asked["direction"] == better
    trainer.train()
    name = (metric or "loss").removeprefix("eval_")
    assert best.objective == pytest.approx(trainer.evaluate()[f"eval_{name}"])


def test_model_init_sees_the_trial(tmp_path, data):
    """Trials may be of another tower, whose layout is another."""
    vit = ViTConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=37, image_size=32, patch_size=8
    )
    towers = {"resnet": tiny_vision_config(), "vit": vit}
    seen = []

    def make(trial):
        tower = "resnet" if trial is None else trial.suggest_categorical("tower", list(towers))
        seen.append(tower)
        return tiny_model(vision_config=towers[tower])

    trainer = make_trainer(tmp_path / "run", data, trainer={"model_init": make}, gradient_cache_chunk_size=2)
    trainer.hyperparameter_search(lambda trial: {}, n_trials=2, backend="optuna", **fixed({"tower": list(towers)}))
    assert sorted(seen[1:]) == ["resnet", "vit"]


@pytest.mark.parametrize(
    ("trainer", "search", "message"),
    [
        ({}, {}, "a search trains a new model in each trial: give the trainer model_init"),
        ({"model_init": Maker(), "eval_dataset": None}, {}, "a search compares evaluations: give .* eval_dataset"),
        ({"model_init": Maker()}, {"n_jobs": 2}, "trials share this trainer: leave out n_jobs"),
    ],
)
def test_searches_that_cannot_be(trainer, search, message, tmp_path, data):
    with pytest.raises(InputError, match=message):
        make_trainer(tmp_path / "run", data, trainer=trainer).hyperparameter_search(backend="optuna", **search)


def test_what_a_trial_may_not_set_is_refused(tmp_path, data):
    trainer = make_trainer(tmp_path / "run", data, trainer={"model_init": Maker()})
    for settings, message in {
        ("label_smoothing_factor", 0.1): "label_smoothing_factor 0.1 is refused",
        ("gradient_cache_chunk_size", 5): "gradient_cache_chunk_size=5 is more than",
    }.items():
        with pytest.raises(InputError, match=message):
            trainer.hyperparameter_search(lambda trial: dict([settings]), n_trials=1, backend="optuna")  # noqa: B023


def test_nothing_to_train(tmp_path, data):
    with pytest.raises(InputError, match="there is nothing to train: give a model, or model_init"):
        make_trainer(tmp_path / "run", data, trainer={"model_init": None})


def test_after_a_search_there_is_nothing_to_evaluate_until_something_is_trained(tmp_path, data):
    trainer = make_trainer(tmp_path / "run", data, trainer={"model_init": Maker()})
    trainer.hyperparameter_search(lambda trial: {}, n_trials=1, backend="optuna")
    with pytest.raises(InputError, match="a search leaves no model to evaluate: call train"):
        trainer.evaluate()


def test_patience_of_one_training_is_not_the_next_one_s(tmp_path, data):
    trainer = make_trainer(
        tmp_path / "run", data, num_train_epochs=3, learning_rate=0.0, eval_strategy="epoch", save_strategy="epoch",
        load_best_model_at_end=True, metric_for_best_model="image_retrieval_recall@1", early_stopping_patience=1,
        freeze_vision=True,
    )  # fmt: skip
    for _ in range(2):
        assert trainer.train().global_step == 4
