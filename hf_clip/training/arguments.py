"""What can be set about the training of a dual encoder."""

from dataclasses import dataclass, field

from ..core.errors import InputError
from ..evaluation.prompts import TEMPLATES, open_templates
from ..evaluation.tasks.registry import TASKS, find_task, owner_of
from ..evaluation.tasks.task import Protocol
from .base_arguments import BaseTrainingArguments, check_share
from .inherited import refuse_settings


@dataclass
class HFClipTrainingArguments(BaseTrainingArguments):
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
    eval_tasks: list[str] | None = field(
        default=None,
        metadata={
            "help": f"What evaluate() measures: {', '.join(TASKS)}, or module:Class of a task of your own. Default: "
            "retrieval of a set with captions, zero-shot of one with classes."
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

    def __post_init__(self):
        if self.eval_tasks:  # those of one's own are known from here on
            self.eval_tasks = [find_task(task).name for task in self.eval_tasks]
        if self.greater_is_better is None and self._least_is_best():
            self.greater_is_better = False
        refuse_settings(self)
        super().__post_init__()
        self.label_names = []

    def _least_is_best(self) -> bool:
        best = self.metric_for_best_model or ""
        task = owner_of(best)
        return task.lower_is_better(best) if task else best.endswith(("median_rank", "error"))

    def check(self) -> None:
        """As `BaseTrainingArguments` has it.

        Raises:
            InputError: a setting that is refused, or would have no effect.
            ValueError: values that cannot be, or not together.
        """
        refuse_settings(self)
        super().check()
        if self.train_sampling_strategy == "batch_rebalance":
            raise InputError(
                "train_sampling_strategy=batch_rebalance counts tokens of rows that are tokenised already, and these "
                "are not: set group_by_length"
            )
        if self.prediction_loss_only and self.eval_tasks:
            raise InputError(
                "prediction_loss_only measures the loss alone, and none of eval_tasks: leave out one of them"
            )
        if self.feature_cache_dir is not None and not self.cache_frozen_features:
            raise ValueError("feature_cache_dir is for cache_frozen_features: set that too, or leave it out")
        check_share("layer_decay", self.layer_decay)
        self._check_chunks()
        self._check_evaluation()

    def _check_evaluation(self) -> None:
        for task in self.eval_tasks or ():
            find_task(task).check_installed()
        if min(self.eval_k or [1]) < 1:
            raise ValueError(f"eval_k must be 1 or more, not {min(self.eval_k)}")
        if self.eval_neighbours < 1:
            raise ValueError(f"eval_neighbours must be 1 or more, not {self.eval_neighbours}")
        open_templates(self.eval_templates)
        _ = self.protocol

    @property
    def protocol(self) -> Protocol:
        """How the evaluations of a training measure, `metric_for_best_model` among the rest.

        Raises:
            InputError: what is no kind of features.
        """
        protocol = Protocol(
            ks=self.eval_k,
            templates=self.eval_templates,
            features=self.eval_features,
            neighbours=self.eval_neighbours,
        )
        best = self.metric_for_best_model or ""
        task = owner_of(best)
        return task.with_best(protocol, best) if task else protocol

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
