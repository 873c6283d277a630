"""What becomes here of every setting and argument of transformers' Trainer: it is inherited, ours, or refused.

The tables are the documentation. A setting that a new transformers brings has no line here until somebody has looked
whether our overrides pass it by: plain `pytest` then names it in a warning, and `.ci/run` fails.
"""

import dataclasses
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from transformers import Trainer, TrainingArguments

from ..core.errors import InputError


@dataclass(frozen=True)
class Inherited:
    """The Trainer does it, and no override of ours stands in its way.

    Args:
        note: what is not obvious about that.
    """

    note: str = ""


@dataclass(frozen=True)
class Ours:
    """An override of ours has to do it, or some of its values cannot be.

    Args:
        test: sees its effect; file and name, below `tests/`.
    """

    test: str


@dataclass(frozen=True)
class Refused:
    """Any value but the default is refused when the arguments, or the trainer, are made.

    Args:
        reason: ends the sentence that begins with the setting and its value.
    """

    reason: str


Verdict = Inherited | Ours | Refused

INHERITED = Inherited()
_FOR_SCRIPTS = Inherited("for scripts to read: no Trainer looks at it")
_ON_GPUS = Inherited("of accelerate and torch, around the model")

_TRAINER, _SETTINGS, _ARGUMENTS, _PUSHES = (
    f"training/test_{name}.py::test_" for name in ("contrastive", "settings", "arguments", "pushes")
)
_INHERITED, _LOSS, _SEARCH, _METRICS = (
    f"training/test_{name}.py::test_" for name in ("inherited", "own_loss", "search", "own_metrics")
)
_PARTS, _DISTRIBUTED, _EVALUATION, _BASE, _DATA = (
    f"training/test_{name}.py::test_" for name in ("parts", "distributed", "evaluation", "base", "data_sets")
)

SETTINGS: dict[str, Verdict] = {
    # How long, and how fast
    "output_dir": INHERITED,
    "num_train_epochs": INHERITED,
    "max_steps": INHERITED,
    "per_device_train_batch_size": Ours(_TRAINER + "a_batch_larger_than_the_data_is_all_of_them"),
    "learning_rate": Ours(_TRAINER + "learning_rates_and_decay_by_part"),
    "lr_scheduler_type": INHERITED,
    "lr_scheduler_kwargs": INHERITED,
    "warmup_steps": INHERITED,
    "optim": Ours(_TRAINER + "an_optimiser_that_steps_in_the_backward_pass_of_each_chunk_is_refused"),
    "optim_args": INHERITED,
    "weight_decay": Ours(_TRAINER + "learning_rates_and_decay_by_part"),
    "adam_beta1": INHERITED,
    "adam_beta2": INHERITED,
    "adam_epsilon": INHERITED,
    "optim_target_modules": Ours(_ARGUMENTS + "what_would_have_no_effect_is_refused"),
    "gradient_accumulation_steps": Ours(_TRAINER + "accumulation_says_once_that_it_adds_no_negatives"),
    "max_grad_norm": INHERITED,
    # Of losses over labels and tokens
    "label_smoothing_factor": Refused(
        "smooths class labels, and a contrastive loss has none: its targets are the pairs"
    ),
    "average_tokens_across_devices": Refused(
        "is about losses that are averaged over tokens: this one is always that of all processes' pairs"
    ),
    "neftune_noise_alpha": Refused(
        "adds noise to the word embeddings of a language model that learns to answer: here the text tower's dropout "
        "is for that"
    ),
    "label_names": Refused("names labels that the model takes, and a dual encoder takes none"),
    "use_liger_kernel": Refused("has no kernels for a dual encoder"),
    "liger_kernel_config": Refused("has no kernels for a dual encoder"),
    "use_cache": Refused("is for decoders that generate: encoders have no cache of keys and values"),
    "include_num_input_tokens_seen": Refused("counts tokens, and what is learned from here are pairs"),
    # Precision and memory
    "bf16": Ours(_SETTINGS + "bf16_trains_with_fp32_logits_and_weights"),
    "fp16": Ours(_ARGUMENTS + "fp16_without_a_gpu_is_refused"),
    "bf16_full_eval": Ours(_SETTINGS + "full_evaluation_in_half_precision_leaves_the_weights_as_they_were"),
    "fp16_full_eval": Ours(_SETTINGS + "full_evaluation_in_half_precision_leaves_the_weights_as_they_were"),
    "tf32": _ON_GPUS,
    "activation_checkpointing": Ours(_TRAINER + "checkpointing_in_the_trainer_trains_the_same_weights"),
    "activation_checkpointing_kwargs": INHERITED,
    "gradient_checkpointing": Inherited("the older name of activation_checkpointing"),
    "gradient_checkpointing_kwargs": Inherited("the older name of activation_checkpointing_kwargs"),
    "torch_compile": Ours(_SETTINGS + "torch_compile_trains_the_same_weights"),
    "torch_compile_backend": INHERITED,
    "torch_compile_mode": INHERITED,
    "torch_empty_cache_steps": _ON_GPUS,
    "auto_find_batch_size": Refused(
        "makes batches smaller when memory ends, and each pair's negatives fewer: gradient_cache_chunk_size fits a "
        "whole batch into little memory"
    ),
    "skip_memory_metrics": Ours(_SETTINGS + "memory_is_measured_in_training_and_evaluation"),
    "full_determinism": INHERITED,
    "use_cpu": INHERITED,
    # What is logged
    "logging_strategy": INHERITED,
    "logging_steps": INHERITED,
    "logging_first_step": INHERITED,
    "log_on_each_node": INHERITED,
    "logging_nan_inf_filter": Refused("would log a loss that is NaN, and here such a loss ends the run"),
    "log_level": INHERITED,
    "log_level_replica": INHERITED,
    "disable_tqdm": Ours(_SETTINGS + "progress_bars_are_shown_unless_disabled"),
    "report_to": Ours(_SETTINGS + "tensorboard_gets_what_is_logged"),
    "run_name": INHERITED,
    "project": INHERITED,
    "trackio_space_id": INHERITED,
    "trackio_bucket_id": INHERITED,
    "trackio_static_space_id": INHERITED,
    "debug": INHERITED,
    # Evaluation
    "eval_strategy": INHERITED,
    "eval_steps": INHERITED,
    "eval_delay": INHERITED,
    "eval_on_start": INHERITED,
    "per_device_eval_batch_size": Ours(_DISTRIBUTED + "three_processes_count_each_picture_once"),
    "prediction_loss_only": Ours(_METRICS + "prediction_loss_only_measures_the_loss_alone"),
    "include_for_metrics": Refused("would keep all pixels or a loss of each row: compute_metrics gets the embeddings"),
    "batch_eval_metrics": Refused("shows compute_metrics one batch at a time, and retrieval is of the whole set"),
    "eval_do_concat_batches": Refused("leaves predictions in batches, and retrieval is of the whole set"),
    "eval_use_gather_object": Ours(_METRICS + "predictions_are_gathered_as_objects_and_batch_by_batch_on_the_cpu"),
    "eval_accumulation_steps": Ours(_METRICS + "predictions_are_gathered_as_objects_and_batch_by_batch_on_the_cpu"),
    "load_best_model_at_end": INHERITED,
    "metric_for_best_model": Ours(_EVALUATION + "the_k_of_the_best_model_is_measured"),
    "greater_is_better": Ours(_SETTINGS + "the_lowest_median_rank_is_the_best"),
    # Checkpoints and resuming
    "save_only_model": INHERITED,
    "save_strategy": INHERITED,
    "save_steps": INHERITED,
    "save_on_each_node": INHERITED,
    "save_total_limit": Ours(_BASE + "save_total_limit"),
    "enable_jit_checkpoint": Ours(_SETTINGS + "a_checkpoint_at_the_scheduler_s_signal_is_whole"),
    "ignore_data_skip": INHERITED,
    "restore_callback_states_from_checkpoint": Ours(_SETTINGS + "early_stopping"),
    "resume_from_checkpoint": _FOR_SCRIPTS,
    # The Hub
    "push_to_hub": Ours(_PUSHES + "every_strategy"),
    "hub_token": Ours(_PUSHES + "a_token_that_may_not_write_is_refused_before_training"),
    "hub_private_repo": Ours(_PUSHES + "a_private_repository_and_another_branch"),
    "hub_model_id": Ours(_PUSHES + "every_strategy"),
    "hub_strategy": Ours(_PUSHES + "every_strategy"),
    "hub_always_push": Ours(_PUSHES + "whatever_fails_in_a_push_in_between_is_a_warning"),
    "hub_revision": Ours(_PUSHES + "a_private_repository_and_another_branch"),
    # Seeds and data
    "seed": Ours(_SETTINGS + "the_order_of_an_epoch_is_that_of_the_run_that_was_never_cut"),
    "data_seed": Ours(_SETTINGS + "data_seed_moves_the_order_of_rows_however_they_are_sampled"),
    "dataloader_drop_last": Inherited("of training alone: evaluation measures every row"),
    "dataloader_num_workers": Ours(_TRAINER + "each_epoch_draws_anew_in_the_process_and_in_workers"),
    "dataloader_pin_memory": Inherited("off without a GPU"),
    "dataloader_persistent_workers": Inherited("off without workers"),
    "dataloader_prefetch_factor": INHERITED,
    "dataloader_multiprocessing_context": Ours(_SETTINGS + "loaders_of_streams_have_the_settings_of_loaders"),
    "dataloader_in_order": Ours(_SETTINGS + "loaders_of_streams_have_the_settings_of_loaders"),
    "remove_unused_columns": Refused("would take rows, ids and captions out of the batch, which the loss needs"),
    "train_sampling_strategy": Ours(_SETTINGS + "grouped_by_length_captions_of_a_length_share_a_batch"),
    "length_column_name": Ours(_ARGUMENTS + "what_would_have_no_effect_is_refused"),
    # Processes
    "accelerator_config": Ours(_ARGUMENTS + "what_tears_batches_apart_is_refused_in_several_processes"),
    "parallelism_config": Refused("cuts one model or one text apart, and two encoders are small: leave it out"),
    "ddp_find_unused_parameters": _ON_GPUS,
    "ddp_bucket_cap_mb": _ON_GPUS,
    "ddp_broadcast_buffers": _ON_GPUS,
    "ddp_static_graph": _ON_GPUS,
    "ddp_backend": INHERITED,
    "ddp_timeout": INHERITED,
    "fsdp": Ours("training/test_sharded.py::test_sharded_training_is_that_of_one_process"),
    "fsdp_config": _ON_GPUS,
    "deepspeed": _ON_GPUS,
    "local_rank": Inherited("of launchers that are no more"),
    "do_train": _FOR_SCRIPTS,
    "do_eval": _FOR_SCRIPTS,
    "do_predict": _FOR_SCRIPTS,
}

# Of `Trainer.__init__`
ARGUMENTS: dict[str, Verdict] = {
    "model": Ours(_PARTS + "parts_of_another_kind_are_refused"),
    "args": Ours(_PARTS + "parts_of_another_kind_are_refused"),
    "data_collator": Ours(_PARTS + "a_collator_of_one_s_own_trains_what_ours_trains"),
    "train_dataset": Ours(_DATA + "the_training_set_is_that_of_its_source"),
    "eval_dataset": Ours(_EVALUATION + "several_named_sets_and_the_best_model_by_one_of_them"),
    "processing_class": Ours(_PARTS + "parts_of_another_kind_are_refused"),
    "model_init": Ours(_SEARCH + "each_training_gets_a_new_model_frozen_and_averaged_as_asked"),
    "compute_loss_func": Ours(_LOSS + "our_own_formula_as_a_loss_of_one_s_own_trains_the_same_weights"),
    "compute_metrics": Ours(_METRICS + "compute_metrics_gets_embeddings_and_each_caption_s_image"),
    "callbacks": INHERITED,
    "optimizers": Ours(_INHERITED + "rates_by_part_need_an_optimizer_of_ours"),
    "optimizer_cls_and_kwargs": Ours(_INHERITED + "an_optimizer_class_of_one_s_own_gets_our_groups"),
    "preprocess_logits_for_metrics": Refused(
        "shrinks logits, of which evaluation makes none: compute_metrics gets the embeddings"
    ),
}

# Of the methods that are called, by method and argument
CALLS: dict[str, Verdict] = {
    "train.resume_from_checkpoint": Ours(_TRAINER + "resumed_it_ends_with_the_weights_of_the_run_that_was_never_cut"),
    "train.trial": Ours(_SEARCH + "each_trial_is_a_run_of_its_own"),
    "train.ignore_keys_for_eval": Refused("leaves out of predictions what is not among them"),
    "evaluate.eval_dataset": Ours(_DATA + "evaluation_takes_what_the_constructor_takes"),
    "evaluate.ignore_keys": Refused("leaves out of predictions what is not among them"),
    "evaluate.metric_key_prefix": Ours(_METRICS + "compute_metrics_gets_embeddings_and_each_caption_s_image"),
    "predict.test_dataset": Ours(_DATA + "evaluation_takes_what_the_constructor_takes"),
    "predict.ignore_keys": Refused("leaves out of predictions what is not among them"),
    "predict.metric_key_prefix": Ours(_METRICS + "compute_metrics_gets_embeddings_and_each_caption_s_image"),
    "hyperparameter_search.hp_space": Ours(_SEARCH + "each_trial_is_a_run_of_its_own"),
    "hyperparameter_search.compute_objective": Ours(_SEARCH + "the_objective_is_the_metric_for_the_best_model"),
    "hyperparameter_search.n_trials": INHERITED,
    "hyperparameter_search.direction": Ours(_SEARCH + "the_objective_is_the_metric_for_the_best_model"),
    "hyperparameter_search.backend": INHERITED,
    "hyperparameter_search.hp_name": INHERITED,
    "hyperparameter_search.kwargs": Inherited("of the backend"),
}


def without_verdict() -> list[str]:
    """What the installed transformers has and no table here names."""
    return [name for name, known in _found() if not known]


def _found() -> Iterator[tuple[str, bool]]:
    for field in dataclasses.fields(TrainingArguments):
        yield f"TrainingArguments.{field.name}", field.name in SETTINGS
    for name in _arguments_of(Trainer.__init__):
        yield f"Trainer.{name}", name in ARGUMENTS
    for method in (Trainer.train, Trainer.evaluate, Trainer.predict, Trainer.hyperparameter_search):
        for name in _arguments_of(method):
            yield f"Trainer.{method.__name__}.{name}", f"{method.__name__}.{name}" in CALLS


def _arguments_of(function: Any) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != "self"]


def refuse_settings(args: TrainingArguments) -> None:
    """
    Raises:
        InputError: for a setting that is `Refused` and has not its default value.
    """
    for field in dataclasses.fields(args):
        verdict = SETTINGS.get(field.name)
        if isinstance(verdict, Refused):
            default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
            _refuse(field.name, getattr(args, field.name), default, verdict)


def refuse_arguments(given: dict[str, Any]) -> None:
    """
    Args:
        given: arguments of `Trainer`, by name, or of a method, by both.

    Raises:
        InputError: for one that is `Refused` and there.
    """
    for name, value in given.items():
        verdict = (ARGUMENTS | CALLS).get(name)
        if isinstance(verdict, Refused):
            _refuse(name, value, None, verdict)


def _refuse(name: str, value: Any, default: Any, verdict: Refused) -> None:
    unset = value == default or (default in (None, "no") and not value)
    if not unset:
        shown = f"{name} {value!r}" if isinstance(value, bool | int | float | str | list) else name
        raise InputError(f"{shown} is refused: it {verdict.reason}")
