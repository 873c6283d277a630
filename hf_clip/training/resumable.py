"""What of the Trainer is overridden though it is private, all of it: for whole checkpoints and an exact resume."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import nn
from transformers import EarlyStoppingCallback, Trainer
from transformers.trainer import PREFIX_CHECKPOINT_DIR, TRAINER_STATE_NAME
from transformers.trainer_utils import EvalLoopOutput, get_last_checkpoint

from ..core.atomic import STAGING, discard, replace_folder, staged, writing
from ..core.errors import InputError, NotFinite, first_line
from .averaging import LAST_WEIGHTS, WeightAverage
from .checkpoints import remove_oldest
from .processes import whole

# The Trainer's private methods that are overridden, here and nowhere else, with the arguments that they have in 5.23
# and 5.24. No public one is called at the same place.
PRIVATE = {
    # A checkpoint is written aside, and is one once it is whole; then it is pushed.
    "_save_checkpoint": ("model", "trial"),
    "_get_output_dir": ("trial",),
    "_push_from_checkpoint": ("checkpoint_folder",),
    "_save": ("output_dir", "state_dict"),
    # The model and a trial's settings are there, and nothing is loaded yet.
    "_hp_search_setup": ("trial",),
    # A checkpoint that cannot be loaded is a line; the average is loaded with it.
    "_load_from_checkpoint": ("resume_from_checkpoint", "model"),
    # A run that was cut after its last step trains no further.
    "_init_training_state": (
        *("max_steps", "num_update_steps_per_epoch", "num_train_epochs"),
        *("resume_from_checkpoint", "trial"),
    ),
    # What chooses the best checkpoint is looked for in all that an `evaluate` gives, one of a user's own too.
    "_determine_best_metric": ("metrics", "trial"),
    # The average stays in the model, unless the best checkpoint is loaded next.
    "_finalize_training": ("trial", "num_train_samples", "start_time"),
}
# Those that are called, here and in subclasses.
CALLED = {"_get_train_sampler": ("train_dataset",), "_prepare_inputs": ("inputs",)}


class ResumableTrainer(Trainer):
    """Checkpoints that are whole or not there, of weights that are finite; averaged ones where there is an `average`.

    What resumes from one ends with the bits of the run that was never cut.
    """

    args: Any
    model: Any

    def __init__(self, **given: Any):
        self.average: WeightAverage | None = None
        self._staging: Path | None = None  # where a checkpoint is being written
        super().__init__(**given)

    # ---- what is asked of a subclass ------------------------------------------------------------------------------

    def begin_run(self, trial: Any) -> None:
        """Called once the model to train is there, and, of a trial, its settings; before anything is loaded."""

    def add_to_checkpoint(self, folder: Path) -> None:
        """Called on every process, before a checkpoint is whole."""

    def use_checkpoint(self, folder: Path) -> None:
        """Called on the process that saves, once a checkpoint is whole."""

    # ---- the average ----------------------------------------------------------------------------------------------

    def averaged_weights(self) -> contextlib.AbstractContextManager:
        """The model holds its average within, where it has one."""
        return self.average.in_place(self.model) if self.average else contextlib.nullcontext()

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """As the Trainer has it, of the averaged weights where there are some."""
        with self.averaged_weights():
            return super().evaluation_loop(*args, **kwargs)

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """
        Raises:
            InputError: `metric_for_best_model` is none of the figures.
        """
        best = self.args.metric_for_best_model
        if best is not None and f"eval_{best.removeprefix('eval_')}" not in metrics:
            raise InputError(
                f"metric_for_best_model {best!r} is none of the figures: choose one of {', '.join(metrics)}"
            )
        return super()._determine_best_metric(metrics, trial)

    # ---- saving ---------------------------------------------------------------------------------------------------

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """The Trainer's checkpoint, written aside and renamed when every process has finished its part.

        Raises:
            NotFinite: the weights are not: the checkpoint before is the last good one.
        """
        self.check_finite()
        run = Path(super()._get_output_dir(trial))
        name = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        aside = run / STAGING / name
        if self.args.should_save:
            discard(aside)
        self.accelerator.wait_for_everyone()
        with writing(aside):
            with self._written_into(run / STAGING):
                super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            self.add_to_checkpoint(aside)
            best = run / f"{PREFIX_CHECKPOINT_DIR}-{self.state.best_global_step}"
            if self.state.best_global_step and (best.exists() or best.name == name):
                self.state.best_model_checkpoint = str(best)
            if self.args.should_save:
                self.state.save_to_json(str(aside / TRAINER_STATE_NAME))
                replace_folder(aside, run / name)
        if self.args.should_save:
            discard(aside)
            self.use_checkpoint(run / name)
            remove_oldest(run, self.args.save_total_limit, {name, Path(self.state.best_model_checkpoint or "").name})
        self.accelerator.wait_for_everyone()

    def save_checkpoint(self) -> None:
        """Of the last step, whatever the settings."""
        self._save_checkpoint(self.model, trial=None)

    @contextlib.contextmanager
    def _written_into(self, staging: Path) -> Iterator[None]:
        self._staging = staging
        try:
            yield
        finally:
            self._staging = None

    def check_finite(self) -> None:
        """
        Raises:
            NotFinite: for weights, or BatchNorm's running statistics, that are NaN or infinite.
        """
        for name, tensor in (*self.model.named_parameters(), *self.model.named_buffers()):
            if not whole(tensor.detach().isfinite().all()):
                raise NotFinite(f"step {self.state.global_step}: {name} is NaN or infinite, and was not saved")

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._staging) if self._staging else super()._get_output_dir(trial)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Not yet: it is still aside."""

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Saves the model, file by file atomically where the folder exists."""
        if self._staging is not None:
            with self.averaged_weights():
                super()._save(output_dir, state_dict)
            if self.average and self.args.should_save:
                self.average.save_last_weights(self.model, output_dir)
            return
        if not self.args.should_save:
            return
        with staged(output_dir or self.args.output_dir) as aside:
            super()._save(str(aside), state_dict)

    # ---- resuming -------------------------------------------------------------------------------------------------

    def _hp_search_setup(self, trial: Any) -> None:
        super()._hp_search_setup(trial)
        self.begin_run(trial)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        try:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        except (OSError, SafetensorError, RuntimeError, ValueError) as error:
            raise InputError(
                f"checkpoint {resume_from_checkpoint} cannot be gone on from ({first_line(error)}): give an older one"
            ) from error
        if self.average and Path(resume_from_checkpoint, LAST_WEIGHTS).is_file():
            self.average.resume(self.model, resume_from_checkpoint)

    def _init_training_state(self, max_steps: int, *others: Any) -> Any:
        """(epochs, batches of the next one) that were trained: all, where a run was cut after its last step."""
        trained = super()._init_training_state(max_steps, *others)
        _, epochs, *_ = others
        return (epochs, 0) if self.state.global_step >= max_steps or self._is_out_of_patience() else trained

    def _is_out_of_patience(self) -> bool:
        return any(
            callback.early_stopping_patience_counter
            >= (self.args.early_stopping_patience or callback.early_stopping_patience)
            for callback in self.callback_handler.callbacks
            if isinstance(callback, EarlyStoppingCallback)
        )

    def _finalize_training(self, *args: Any, **kwargs: Any) -> Any:
        """Leaves the averaged weights in the model, unless the best checkpoint, an average too, takes their place."""
        if self.average:
            self.average.settle(self.model)
        if self.args.should_save and self.args.save_total_limit == 1 and self.state.best_model_checkpoint:
            best = Path(self.state.best_model_checkpoint)  # the Trainer too leaves only this, but removes in place
            remove_oldest(best.parent, 1, {best.name})
        return super()._finalize_training(*args, **kwargs)


def last_checkpoint(folder: str | Path) -> str | None:
    """The newest whole checkpoint of a run folder, or None."""
    return get_last_checkpoint(str(folder)) if os.path.isdir(folder) else None
