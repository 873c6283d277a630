"""Defaults, and what is refused for having no effect."""

import pytest
from training_runs import make_trainer

from hf_clip import HFClipTrainingArguments
from hf_clip.core.errors import InputError


def test_warm_up_is_a_ratio(tmp_path):
    args = HFClipTrainingArguments(output_dir=str(tmp_path), warmup_steps=0.2)
    assert args.get_warmup_steps(50) == 10


def test_columns_must_stay(tmp_path):
    with pytest.raises(InputError, match="remove_unused_columns True is refused: it would take rows, ids"):
        HFClipTrainingArguments(output_dir=str(tmp_path), remove_unused_columns=True)


@pytest.mark.parametrize("launcher", [False, True])
def test_fp16_without_a_gpu_is_refused(launcher, tmp_path, monkeypatch):
    """Asked for among the settings, or of `accelerate launch`, which leaves it in the environment."""
    if launcher:
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    with pytest.raises(InputError, match="fp16 needs a GPU, and would have no effect"):
        HFClipTrainingArguments(str(tmp_path), use_cpu=True, fp16=not launcher)


def test_precision_that_is_set_too_late_is_refused(tmp_path, pictures):
    args = HFClipTrainingArguments(str(tmp_path), use_cpu=True)
    args.bf16 = True
    with pytest.raises(InputError, match="bf16 and fp16 have no effect once the arguments are made"):
        args.check()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"optim_target_modules": ["attn"]},
            "optim_target_modules is for GaLore and APOLLO, not for optim=adamw_torch",
        ),
        ({"train_sampling_strategy": "batch_rebalance"}, "train_sampling_strategy=batch_rebalance counts tokens"),
        ({"prediction_loss_only": True, "eval_tasks": ["knn"]}, "prediction_loss_only measures the loss alone"),
        ({"length_column_name": "words"}, "length_column_name is for a datasets.Dataset"),
    ],
)
def test_what_would_have_no_effect_is_refused(settings, message, tmp_path, pictures):
    with pytest.raises(InputError, match=message):
        make_trainer(tmp_path / "run", pictures, **settings)


@pytest.mark.parametrize("setting", [{"split_batches": True}, {"dispatch_batches": True}, {"even_batches": False}])
def test_what_tears_batches_apart_is_refused_in_several_processes(setting, tmp_path, pictures, monkeypatch):
    trainer = make_trainer(tmp_path / "run", pictures, accelerator_config=setting)
    trainer.get_train_dataloader()
    monkeypatch.setattr(HFClipTrainingArguments, "world_size", property(lambda self: 2))
    with pytest.raises(InputError, match="of accelerator_config would tear the batch of several processes apart"):
        trainer.get_train_dataloader()


def test_optim_target_modules_of_the_optimizers_that_have_some(tmp_path):
    args = HFClipTrainingArguments(
        str(tmp_path), use_cpu=True, optim="galore_adamw", optim_target_modules="all-linear"
    )
    assert args.optim_target_modules == "all-linear"


@pytest.mark.parametrize(
    ("metric", "asked", "measured"),
    [
        ("image_retrieval_map@3", None, [1, 3]),
        ("text_retrieval_recall@7", [10], [7, 10]),
        ("text_retrieval_recall@5", None, None),
        ("loss", [2], [2]),
    ],
)
def test_the_k_of_the_best_metric_is_measured_too_and_nothing_is_written_into_the_settings(metric, asked, measured):
    args = HFClipTrainingArguments("unused", use_cpu=True, metric_for_best_model=metric, eval_k=asked)
    assert (args.protocol.ks, args.eval_k) == (measured, asked)
