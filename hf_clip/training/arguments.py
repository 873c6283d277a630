"""What can be set about a training run, on top of every `TrainingArguments` field."""

from dataclasses import dataclass, field

import torch
from transformers import TrainingArguments


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
    remember_frozen_text: bool = field(
        default=False,
        metadata={
            "help": "With freeze_text: embed each distinct caption once and keep it in memory (up to 100,000). It is "
            "faster, but a resumed run differs in the last bits."
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
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Must stay off: content ids and rows are for the loss, not for the model."}
    )

    def __post_init__(self):
        if (self.metric_for_best_model or "").endswith("median_rank") and self.greater_is_better is None:
            self.greater_is_better = False
        # A resumed run is as patient as the one that was cut.
        self.restore_callback_states_from_checkpoint |= self.early_stopping_patience is not None
        super().__post_init__()
        if self.remove_unused_columns:
            raise ValueError("remove_unused_columns must stay false: the loss needs columns that the model does not")
        if self.remember_frozen_text and not self.freeze_text:
            raise ValueError("remember_frozen_text needs freeze_text: a text tower that trains changes its outputs")
        for name, share in {"layer_decay": self.layer_decay, "ema_decay": self.ema_decay}.items():
            if share is not None and not 0 < share <= 1:
                raise ValueError(f"{name} must be more than 0 and at most 1, not {share}")
        if self.early_stopping_patience is not None and not self.load_best_model_at_end:
            raise ValueError("early_stopping_patience needs load_best_model_at_end and metric_for_best_model")
        self.label_names = []
        self.dataloader_pin_memory = self.dataloader_pin_memory and torch.cuda.is_available()
