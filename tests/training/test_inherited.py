"""Every setting and argument of the installed Trainer has a verdict: refused ones are, those of ours have tests."""

import ast
import dataclasses
import os
import warnings
from pathlib import Path

import pytest
import torch
from conftest import tiny_model
from training_runs import make_trainer
from transformers import Trainer, TrainingArguments

from hf_clip import HFClipTrainingArguments
from hf_clip.core.errors import InputError
from hf_clip.training import inherited
from hf_clip.training.inherited import ARGUMENTS, CALLS, SETTINGS, Ours, Refused, without_verdict

TESTS = Path(__file__).parents[1]


def test_every_setting_and_argument_has_a_verdict():
    """What a new transformers brings is named in a warning; `.ci/run` sets the variable that makes it a failure."""
    if unknown := without_verdict():
        line = f"no verdict in hf_clip/training/inherited.py on {', '.join(unknown)}"
        if os.environ.get("HF_CLIP_EVERY_SETTING"):
            pytest.fail(line)
        warnings.warn(line, stacklevel=1)


def test_a_new_one_is_noticed_and_one_that_is_gone_is_none(monkeypatch):
    monkeypatch.delitem(SETTINGS, "seed")
    monkeypatch.delitem(ARGUMENTS, "model_init")
    monkeypatch.delitem(CALLS, "evaluate.ignore_keys")
    monkeypatch.setitem(SETTINGS, "no_cuda", Refused("was of version 4"))
    missing = ["TrainingArguments.seed", "Trainer.model_init", "Trainer.evaluate.ignore_keys"]
    assert [name for name in without_verdict() if name in missing] == missing
    assert "TrainingArguments.no_cuda" not in without_verdict()
    inherited.refuse_settings(HFClipTrainingArguments("unused", use_cpu=True))


@pytest.mark.parametrize(
    "test", sorted({v.test for t in (SETTINGS, ARGUMENTS, CALLS) for v in t.values() if isinstance(v, Ours)})
)
def test_what_is_ours_has_a_test(test):
    file, _, name = test.partition("::")
    assert name in {
        node.name for node in ast.parse((TESTS / file).read_text()).body if isinstance(node, ast.FunctionDef)
    }


# Of every setting that is refused, values that are not its default.
REFUSED = {
    "label_smoothing_factor": [0.3],
    "average_tokens_across_devices": [False],
    "neftune_noise_alpha": [5.0],
    "label_names": [["labels"]],
    "use_liger_kernel": [True],
    "liger_kernel_config": [{"rope": True}],
    "use_cache": [True],
    "include_num_input_tokens_seen": [True, "all", "non_padding"],
    "auto_find_batch_size": [True],
    "logging_nan_inf_filter": [False],
    "include_for_metrics": [["inputs"], ["loss"]],
    "batch_eval_metrics": [True],
    "eval_do_concat_batches": [False],
    "remove_unused_columns": [True],
    "parallelism_config": [object()],
}


def test_the_list_above_is_whole():
    assert REFUSED.keys() == {name for name, verdict in SETTINGS.items() if isinstance(verdict, Refused)}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in REFUSED.items() for value in values])
def test_refused_settings_are_named_when_they_are_given_and_when_they_are_set(name, value):
    if name not in [field.name for field in dataclasses.fields(TrainingArguments)]:
        pytest.skip("this transformers does not have it")
    with pytest.raises(InputError, match=f"^{name} .*is refused: it ") as raised:
        HFClipTrainingArguments("unused", use_cpu=True, **{name: value})
    assert "\n" not in str(raised.value)
    args = HFClipTrainingArguments("unused", use_cpu=True)
    setattr(args, name, value)
    with pytest.raises(InputError, match=f"^{name} "):
        args.check()


def test_a_setting_changed_after_it_was_made_is_refused_by_the_trainer(tmp_path, pictures):
    trainer = make_trainer(tmp_path / "run", pictures)
    trainer.args.label_smoothing_factor = 0.1
    parts = ("train_dataset", "data_collator", "processing_class")
    with pytest.raises(InputError, match=r"label_smoothing_factor 0\.1 is refused"):
        type(trainer)(trainer.model, trainer.args, **{name: getattr(trainer, name) for name in parts})


def test_refused_arguments_are_named(tmp_path, pictures):
    with pytest.raises(InputError, match="preprocess_logits_for_metrics is refused: it shrinks logits"):
        make_trainer(
            tmp_path / "run", pictures, trainer={"preprocess_logits_for_metrics": lambda logits, labels: logits}
        )
    trainer = make_trainer(tmp_path / "run", pictures)
    for call in (
        lambda: trainer.evaluate(ignore_keys=["text_embeds"]),
        lambda: trainer.predict(trainer.eval_dataset, ignore_keys=["text_embeds"]),
        lambda: trainer.train(ignore_keys_for_eval=["text_embeds"]),
    ):
        with pytest.raises(InputError, match=r"ignore_keys.* is refused: it leaves out"):
            call()
    trainer.evaluate(ignore_keys=[])


def test_rates_by_part_need_an_optimizer_of_ours(tmp_path, pictures):
    model = tiny_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(InputError, match="head_learning_rate is for the optimizer that the trainer makes"):
        make_trainer(
            tmp_path / "run", pictures, model=model, head_learning_rate=1.0, trainer={"optimizers": (optimizer, None)}
        )
    trainer = make_trainer(tmp_path / "run", pictures, model=model, trainer={"optimizers": (optimizer, None)})
    assert trainer.create_optimizer() is optimizer


def test_an_optimizer_class_of_one_s_own_gets_our_groups(tmp_path, pictures):
    trainer = make_trainer(
        tmp_path / "run", pictures, head_learning_rate=0.5, weight_decay=0.3,
        trainer={"optimizer_cls_and_kwargs": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9})},
    )  # fmt: skip
    optimizer = trainer.create_optimizer()
    assert isinstance(optimizer, torch.optim.SGD)
    settings = {(group["lr"], group["weight_decay"], group["momentum"]) for group in optimizer.param_groups}
    assert settings == {(0.5, 0.3, 0.9), (0.5, 0.0, 0.9), (0.1, 0.3, 0.9), (0.1, 0.0, 0.9)}


def test_defaults_of_ours_that_differ_are_no_refusals(tmp_path):
    HFClipTrainingArguments(
        str(tmp_path), use_cpu=True, remove_unused_columns=False, include_num_input_tokens_seen=False
    )
    assert Trainer
