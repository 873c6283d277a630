"""What can be set about a training run, on top of every `TrainingArguments` field."""

import re
from dataclasses import dataclass, field

import torch
from transformers import TrainingArguments
from transformers.training_args import OptimizerNames

from ..core.errors import InputError
from ..evaluation.prompts import TEMPLATES, open_templates
from ..evaluation.tasks.registry import TASKS, Protocol, check_installed
from ..evaluation.tasks.retrieval import KS
from .distributed import check_ranks
from .inherited import refuse_settings


@dataclass
class HFClipTrainingArguments(TrainingArguments):
    """`TrainingArguments` with the settings of a dual encoder, and CLIP's defaults (arXiv:2103.00020, table 18).

    Below 1, `warmup_steps` is the share of all steps; `learning_rate` is that of every part without one of its own.
    """

    text_learning_rate: float | None = field(
        default=None, metadata={"help": "Learning rate of the text tower; default: learning_rate."}
    )
    vision_learning_rate: float | None = field(
        default=None, metadata={"help": "Learning rate of the image tower; default: learning_rate."}
    )
    head_learning_rate: float | None = field(
        default=None, metadata={"help": "Learning rate of projections and temperature; default: learning_rate."}
    )
    freeze_text: bool = field(
        default=False, metadata={"help": "Train the text projection, but leave the text tower as it is."}
    )
    freeze_vision: bool = field(
        default=False, metadata={"help": "Train the image projection, but leave the image tower as it is."}
    )
    cache_frozen_features: bool = field(
        default=False,
        metadata={
            "help": "Run a frozen tower once over the training data and keep what it gives on disk, for this run and "
            "the next. With freeze_vision it needs crop_scale 1 and no other augmentation."
        },
    )
    feature_cache_dir: str | None = field(
        default=None, metadata={"help": "Where cache_frozen_features keeps it; default: hf_clip/features in HF_HOME."}
    )
    gradient_cache_chunk_size: int | None = field(
        default=None,
        metadata={
            "help": "Pairs that the towers see at a time, while the loss has the whole batch: activations of so many "
            "only, for one more forward pass (gradient cache)."
        },
    )
    gradient_cache_text_chunk_size: int | None = field(
        default=None, metadata={"help": "Captions at a time, where not as many as pictures."}
    )
    loss_tile_size: int | None = field(
        default=None,
        metadata={
            "help": "Rows and columns of the logits made at a time; default: 1,024 on a CPU, else 4,096. Of a smaller "
            "batch all are made at once."
        },
    )
    layer_decay: float | None = field(
        default=None,
        metadata={"help": "Learning rate of a tower's block as a share of the block's above it, such as 0.75."},
    )
    ema_decay: float | None = field(
        default=None,
        metadata={
            "help": "Evaluate and save an exponential moving average of the weights, such as 0.999, in place of the "
            "last ones; it is warmed up, as (1 + step) / (10 + step)."
        },
    )
    early_stopping_patience: int | None = field(
        default=None,
        metadata={"help": "Stop after so many evaluations without a better metric_for_best_model."},
    )
    eval_tasks: list[str] | None = field(
        default=None,
        metadata={
            "help": f"What evaluate() measures: {', '.join(TASKS)}. Default: retrieval of a set with captions, "
            "zero-shot of one with classes."
        },
    )
    eval_k: list[int] | None = field(
        default=None, metadata={"help": "The k of recall@k; default: 1, 5 and 10, as far as there are candidates."}
    )
    eval_templates: str = field(
        default="photo",
        metadata={"help": f"Sentences around the names of classes: {', '.join(TEMPLATES)}, a file, or one with {{}}."},
    )
    eval_features: str = field(
        default="projected",
        metadata={"help": "Of knn and linear-probe: projected, or pooled: what the image tower gives before it."},
    )
    eval_neighbours: int = field(default=20, metadata={"help": "Pictures that vote in knn."})
    hub_overwrite: bool = field(
        default=False,
        metadata={"help": "Push also into a repository that holds what hf_clip did not put there."},
    )
    hub_timeout: float | None = field(
        default=None,
        metadata={"help": "Seconds that a push may take in all; default: ten minutes, and one for each 100 kB."},
    )
    strict: bool = field(default=False, metadata={"help": "Stop at the first picture that cannot be read."})
    mask_duplicates: bool = field(
        default=True,
        metadata={"help": "Pairs that share a picture or a caption are no negatives of each other."},
    )
    channels_last: bool = field(
        default=True, metadata={"help": "Store convolutional towers channels-last, which is faster on CPU and GPU."}
    )
    per_device_train_batch_size: int = field(
        default=64, metadata={"help": "Pairs a process sees at a time: each is the others' negative."}
    )
    per_device_eval_batch_size: int = field(default=64, metadata={"help": "Pictures embedded at a time."})
    dataloader_drop_last: bool = field(
        default=True, metadata={"help": "Leave out a last, smaller batch: with fewer negatives its loss is another."}
    )
    logging_steps: float = field(default=0.02, metadata={"help": "Log every so many steps; below 1: share of all."})
    weight_decay: float = field(
        default=0.1, metadata={"help": "On weight matrices only: never on norms, biases or the temperature."}
    )
    adam_beta2: float = field(default=0.98, metadata={"help": "Beta2 of AdamW."})
    warmup_steps: float = field(
        default=0.1, metadata={"help": "Steps of linear warm-up; below 1 it is the share of all steps."}
    )
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "Shape of the learning rate after warm-up."})
    dataloader_persistent_workers: bool = field(
        default=True, metadata={"help": "Keep the loader's workers from epoch to epoch; without workers it is off."}
    )
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Must stay off: content ids and rows are for the loss, not for the model."}
    )

    def __post_init__(self):
        if (self.metric_for_best_model or "").endswith(("median_rank", "error")) and self.greater_is_better is None:
            self.greater_is_better = False
        # A resumed run is as patient as the one that was cut.
        self.restore_callback_states_from_checkpoint |= self.early_stopping_patience is not None
        check_ranks()
        refuse_settings(self)
        super().__post_init__()
        self.label_names = []
        self.dataloader_pin_memory &= torch.cuda.is_available()
        self.dataloader_persistent_workers &= self.dataloader_num_workers > 0
        self.check()

    def check(self) -> None:
        """To be called again where settings have changed since they were made, as a trial of a search changes them.

        Raises:
            InputError: a setting that is refused, or would have no effect.
            ValueError: values that cannot be, or not together.
        """
        refuse_settings(self)
        self._check_effects()
        if self.feature_cache_dir is not None and not self.cache_frozen_features:
            raise ValueError("feature_cache_dir is for cache_frozen_features: set that too, or leave it out")
        for name, share in {"layer_decay": self.layer_decay, "ema_decay": self.ema_decay}.items():
            if share is not None and not 0 < share <= 1:
                raise ValueError(f"{name} must be more than 0 and at most 1, not {share}")
        self._check_chunks()
        self._check_evaluation()
        if self.early_stopping_patience is not None and not self.load_best_model_at_end:
            raise ValueError("early_stopping_patience needs load_best_model_at_end and metric_for_best_model")

    def _check_effects(self) -> None:
        """Values that nothing would look at, of settings that are not refused altogether."""
        for is_wrong, reason in (
            (
                "fp16" in (self.mixed_precision, self.fp16 and "fp16") and self.device.type == "cpu",
                "fp16 needs a GPU, and would have no effect: leave it out, or set bf16, which CPUs have too",
            ),
            (
                (self.fp16 and self.mixed_precision != "fp16") or (self.bf16 and self.mixed_precision != "bf16"),
                "bf16 and fp16 have no effect once the arguments are made: set them when making them",
            ),
            (
                self.optim_target_modules and not re.match("galore|apollo", OptimizerNames(self.optim).value),
                f"optim_target_modules is for GaLore and APOLLO, not for optim={OptimizerNames(self.optim).value}",
            ),
            (
                self.train_sampling_strategy == "batch_rebalance",
                "train_sampling_strategy=batch_rebalance counts tokens of rows that are tokenised already, and these "
                "are not: set group_by_length",
            ),
            (
                self.prediction_loss_only and self.eval_tasks,
                "prediction_loss_only measures the loss alone, and none of eval_tasks: leave out one of them",
            ),
        ):
            if is_wrong:
                raise InputError(reason)

    def _check_evaluation(self) -> None:
        for task in self.eval_tasks or ():
            if task not in TASKS:
                raise ValueError(f"eval_tasks: no task {task!r}: choose of {', '.join(TASKS)}")
            check_installed(task)
        if min(self.eval_k or [1]) < 1:
            raise ValueError(f"eval_k must be 1 or more, not {min(self.eval_k)}")
        if self.eval_neighbours < 1:
            raise ValueError(f"eval_neighbours must be 1 or more, not {self.eval_neighbours}")
        best, _, k = (self.metric_for_best_model or "").rpartition("@")
        if "retrieval_" in best and k.isdecimal() and int(k) not in (self.eval_k or KS):
            # Beyond it there may be no candidates.
            self.eval_k = sorted({*(self.eval_k or (usual for usual in KS if usual < int(k))), int(k)})
        open_templates(self.eval_templates)
        Protocol(features=self.eval_features)

    def _check_chunks(self) -> None:
        for name in ("gradient_cache_chunk_size", "gradient_cache_text_chunk_size", "loss_tile_size"):
            size = getattr(self, name)
            if size is not None and size < 1:
                raise ValueError(f"{name} must be 1 or more, not {size}")
            if size is not None and name != "loss_tile_size" and size > self.per_device_train_batch_size:
                raise ValueError(
                    f"{name}={size} is more than per_device_train_batch_size={self.per_device_train_batch_size}: "
                    "a chunk is a part of the batch"
                )
        if self.gradient_cache_text_chunk_size and not self.gradient_cache_chunk_size:
            raise ValueError("gradient_cache_text_chunk_size needs gradient_cache_chunk_size")
