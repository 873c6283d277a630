"""What can be set about a training run of any family, on top of every `TrainingArguments` field."""

import re
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import TrainingArguments
from transformers.training_args import OptimizerNames

from ..core.errors import InputError
from .processes import check_ranks


@dataclass
class BaseTrainingArguments(TrainingArguments):
    """`TrainingArguments` with the settings of a `BaseTrainer`. A family's own inherit from it, and extend `check`."""

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
    hub_overwrite: bool = field(
        default=False,
        metadata={"help": "Push also into a repository that holds what hf_clip did not put there."},
    )
    hub_timeout: float | None = field(
        default=None,
        metadata={"help": "Seconds that a push may take in all; default: ten minutes, and one for each 100 kB."},
    )
    strict: bool = field(default=False, metadata={"help": "Stop at the first picture that cannot be read."})
    dataloader_persistent_workers: bool = field(
        default=True, metadata={"help": "Keep the loader's workers from epoch to epoch; without workers it is off."}
    )
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Must stay off: content ids and rows are for the loss, not for the model."}
    )

    def __post_init__(self):
        # A resumed run is as patient as the one that was cut.
        self.restore_callback_states_from_checkpoint |= self.early_stopping_patience is not None
        check_ranks()
        super().__post_init__()
        self.dataloader_pin_memory &= torch.cuda.is_available()
        self.dataloader_persistent_workers &= self.dataloader_num_workers > 0
        self.check()

    def check(self) -> None:
        """To be called again where settings have changed since they were made, as a trial of a search changes them.

        Raises:
            InputError: a setting that would have no effect.
            ValueError: values that cannot be, or not together.
        """
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
                self.remove_unused_columns,
                "remove_unused_columns would take out of the batch which pictures were skipped: leave it out",
            ),
        ):
            if is_wrong:
                raise InputError(reason)
        check_share("ema_decay", self.ema_decay)
        if self.early_stopping_patience is not None and not self.load_best_model_at_end:
            raise ValueError("early_stopping_patience needs load_best_model_at_end and metric_for_best_model")


def check_share(name: str, share: float | None) -> None:
    if share is not None and not 0 < share <= 1:
        raise ValueError(f"{name} must be more than 0 and at most 1, not {share}")


def check_arguments(args: Any, kind: type[BaseTrainingArguments]) -> None:
    """
    Raises:
        InputError: for arguments of another class than `kind`; for values that cannot be.
    """
    if not isinstance(args, kind):
        given = "TrainingArguments" if isinstance(args, TrainingArguments) else type(args).__name__
        raise InputError(f"args are {given}: give {kind.__name__}, which have the same fields and more")
    try:
        args.check()
    except InputError:
        raise
    except ValueError as error:
        raise InputError(str(error)) from error
