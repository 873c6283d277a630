"""The `transformers` Trainer of every family: whole checkpoints, exact resume, finite weights, averages, pushes."""

import copy
import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sized
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler
from transformers import BaseImageProcessor, EarlyStoppingCallback, PreTrainedModel, Trainer, TrainerCallback, set_seed
from transformers.trainer_utils import EvalLoopOutput, TrainOutput

from ..core.errors import InputError, NotFinite
from ..core.training_record import TrainingRecord
from ..data.collator import ImageCollator
from ..data.images import skipped_line
from ..data.pixels import PixelNormalization
from ..data.streaming import StreamedImages
from ..data.wrappers import WrappedPairs, as_pairs, check_no_source, holds_ours
from .averaging import WeightAverage
from .base_arguments import BaseTrainingArguments, check_arguments
from .data_wait import DataWait
from .facts import Origin, training_facts
from .frozen import frozen_modules
from .hub import RunOnHub
from .loaders import ByLength, check_batches, seed_of_workers, training_loader
from .meters import Meters
from .processes import (
    check_processes,
    check_same_rows,
    check_same_settings,
    holds_everywhere,
    process_count,
    sharded_by,
)
from .pushes import in_own_words, remove_staging
from .resumable import ResumableTrainer, last_checkpoint
from .search import check_search, objective_of
from .skipped import SKIPPED_IMAGES, SkippedImages, SkippedRecord, UnreadInEvaluation

# What a batch says beside the inputs of a model.
_NOT_OF_THE_MODEL = ("rows", "image_ids", "skipped")


class BaseTrainer(ResumableTrainer):
    """Trains a model of any family on items of our data sets, or of one's own.

    Every `Trainer` argument works as it does there. Beyond it: a checkpoint is never half written, and what resumes
    from it ends with the bits of the run that was never cut; weights and losses that are NaN end the run; frozen
    parts stay in evaluation mode; with `ema_decay` the averaged weights are evaluated and saved; images that cannot
    be read are counted; pushes are whole repositories with a card. Sets may stand in torch's `Subset` and
    `ConcatDataset`, at any depth.

    A family's trainer is a subclass. It may override, and need not:
        `arguments`: the class of its arguments;
        `parts_for(model, given)`: refuses parts that do not fit together, fills in what is missing;
        `make_ready(model)`: freezes, and says what stays in evaluation mode;
        `blocks_of(model)`: what FSDP gathers at a time;
        `own_callbacks()`: what a training of it needs;
        `check_run()`: what is refused once a training's model and settings are known;
        `compute_loss(model, inputs, …)`: where the model gives no `loss` of its own; `model_inputs` of a batch are
            what it takes. `meter` has a figure of the step logged as a mean over processes and steps;
        `what_is_not_finite()`: what to say of a loss that is NaN;
        `evaluation_loop(…)`: where evaluation is not the Trainer's; inside `averaged_weights()`;
        `training_facts()`: what `training.json`, and so the card, is told, in the kind of record that the family's
            `FamilyCard.facts` names. All else of a card and of what is published is asked of the family's entry in
            `core.families`.

    `skipped_images` holds the images that training could not read so far: row → (name, reason). Those of an evaluation
    are named once in the log, and are none of its samples.

    Args:
        origin: what the model was made of, and the images, for the model card.
    """

    arguments: type[BaseTrainingArguments] = BaseTrainingArguments
    args: Any
    model: Any
    hub_model_id: Any

    def __init__(
        self,
        model: PreTrainedModel | None = None,
        args: BaseTrainingArguments | None = None,
        *others: Any,
        origin: Origin | None = None,
        **kwargs: Any,
    ):
        given = inspect.signature(Trainer.__init__).bind(self, model, args, *others, **kwargs).arguments
        del given["self"]
        args = given["args"] = args or self.arguments("tmp_trainer")
        check_arguments(args, self.arguments)
        check_processes(args)
        self.origin = origin or Origin()
        self.resumed = False
        self.skipped_images = SkippedImages()
        self.unread = UnreadInEvaluation()
        self.hub = RunOnHub(self)
        self.push_in_progress: Any = self.hub  # where the Trainer looks for what is under way
        self.resumes_from: str | None = None
        self._searched_with: Any = None  # the arguments that a search leaves as they are
        self._callbacks: list[TrainerCallback] = []
        self._first_model = None if model is not None else self._make_first_model(given.get("model_init"), args)
        first = self._first_model if model is None else model
        parts = self.parts_for(first, given)
        for data in _sets_of(parts):
            check_no_source(data)
        super().__init__(**parts)
        # What is trained here has a loss, also where the model's forward has no `return_loss` for the Trainer to see.
        self.can_return_loss = True
        processor = getattr(self.processing_class, "image_processor", self.processing_class)
        self._normalize = PixelNormalization.of(processor) if isinstance(processor, BaseImageProcessor) else None
        self._take_up(first)

    # ---- what a family may override -------------------------------------------------------------------------------

    def parts_for(self, model: Any, given: dict[str, Any]) -> dict[str, Any]:
        """The arguments that the Trainer is made with; our own sets have the collator of images, where none is given.

        Args:
            model: given, or made by `model_init`.
            given: by the user, by name.

        Raises:
            InputError: parts that do not fit together.
        """
        if given.get("data_collator") is None and any(map(holds_ours, _sets_of(given))):
            return given | {"data_collator": ImageCollator()}
        return given

    def make_ready(self, model: Any) -> list[nn.Module]:
        """Prepares a model for training: the one given, or each that `model_init` makes.

        Returns:
            The modules that stay in evaluation mode.
        """
        return frozen_modules(model.children())

    def blocks_of(self, model: Any) -> Iterable[str]:
        """Names of the classes whose weights FSDP gathers at a time; none: accelerate's choice."""
        return ()

    def own_callbacks(self) -> list[TrainerCallback]:
        """Of each training anew, before those of the base."""
        return []

    def check_run(self) -> None:
        """Called before a training begins.

        Raises:
            InputError: for what cannot be trained or evaluated with these settings.
        """

    def training_facts(self) -> TrainingRecord:
        """What `training.json` holds; see `training.facts`."""
        return training_facts(self, self.origin)

    # ---- a training -----------------------------------------------------------------------------------------------

    def create_accelerator_and_postprocess(self) -> None:
        """As the Trainer does it, with the model's blocks told to FSDP."""
        model = self._first_model if self.model is None else self.model
        with sharded_by(self.blocks_of(model)):
            super().create_accelerator_and_postprocess()

    def _take_up(self, model: Any) -> None:
        """Makes a model ready to be trained by the arguments, and the callbacks of that training."""
        args = self.args
        if args.ema_decay and (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            raise InputError("ema_decay cannot follow weights that FSDP or DeepSpeed has sharded: leave it out")
        self._frozen = self.make_ready(model)
        self._meters = Meters()
        self.average = WeightAverage(args.ema_decay) if args.ema_decay else None
        self._data_wait = DataWait()
        for callback in self._callbacks:
            self.remove_callback(callback)
        self._callbacks = [self._data_wait, _AnnounceEpoch(), *self.own_callbacks()]
        if self.average:
            self._callbacks.append(self.average)
        if args.early_stopping_patience is not None:
            self._callbacks.append(EarlyStoppingCallback(args.early_stopping_patience))
        for callback in self._callbacks:
            self.add_callback(callback)

    def _make_first_model(self, model_init: Callable | None, args: BaseTrainingArguments) -> Any:
        """What the Trainer would make as it is made itself, before that: its processes and parts depend on it."""
        if model_init is None:
            raise InputError("there is nothing to train: give a model, or model_init, which makes one")
        set_seed(args.seed)
        self.model_init = model_init
        return super().call_model_init()

    def call_model_init(self, trial: Any = None) -> Any:
        """As the Trainer does it, once the first model is taken."""
        first, self._first_model = self._first_model, None
        return super().call_model_init(trial) if first is None else first

    def train(
        self, resume_from_checkpoint: str | bool | None = None, trial: Any = None, *args: Any, **kwargs: Any
    ) -> TrainOutput:
        """As the Trainer does it, once all processes have compared their settings.

        Raises:
            InputError: for settings that differ between processes; for what `check_run` refuses.
        """
        if trial is not None and self._searched_with is not None:
            self.args = copy.copy(self._searched_with)  # for the trial's settings to be written into
        self.resumes_from = (
            last_checkpoint(self.args.output_dir) if resume_from_checkpoint is True else resume_from_checkpoint or None
        )
        self.resumed = self.resumes_from is not None
        self._take_back_what_was_counted()
        self._train_batch_size = self.args.train_batch_size  # a search may have left that of its last trial
        try:
            return super().train(resume_from_checkpoint, trial, *args, **kwargs)
        except KeyboardInterrupt:
            self.hub.give_up()
            raise
        finally:
            self.is_in_train = False
            remove_staging(self.hub.run)

    def _take_back_what_was_counted(self) -> None:
        """Patience of the training before, of which a checkpoint has its own; and what was skipped until then."""
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, EarlyStoppingCallback):
                callback.early_stopping_patience_counter = 0
        if self.resumes_from:
            self.skipped_images.resume(Path(self.resumes_from))

    def begin_run(self, trial: Any) -> None:
        """Looks at what is to be trained."""
        if trial is not None:
            check_arguments(self.args, self.arguments)
        if self.model_init is not None:
            self._take_up(self.model)
        others = {
            "number of training rows": len(self.train_dataset) if isinstance(self.train_dataset, Sized) else None,
            "the checkpoint to go on from": Path(self.resumes_from).name if self.resumes_from else None,
        }
        rows = as_pairs(self.train_dataset)  # a wrapper that would hide epochs is refused before anything begins
        check_same_settings(self.args, self.model, others)
        check_same_rows(rows.layout.digest if isinstance(rows, WrappedPairs) else "", "the training set")
        self.check_run()

    def hyperparameter_search(  # type: ignore[override]
        self,
        hp_space: Callable | None = None,
        compute_objective: Callable[[dict[str, float]], float] | None = None,
        n_trials: int = 20,
        direction: str | list[str] | None = None,
        **kwargs: Any,
    ) -> Any:
        """As the Trainer does it, each trial with a new model of `model_init`, and the settings given but for its own.

        Args:
            compute_objective: default: `metric_for_best_model`, or the evaluation's loss.
            direction: default: the better one for that metric.

        Raises:
            InputError: there is no `model_init`; for an objective that is of no evaluation set; for trials at once.
        """
        check_search(self, kwargs)
        if compute_objective is None:
            compute_objective, better = objective_of(self.args, self.eval_dataset)
            direction = direction or better
        self._searched_with = self.args
        try:
            return super().hyperparameter_search(
                hp_space, compute_objective, n_trials, direction or "minimize", **kwargs
            )
        finally:
            self.args = self._searched_with
            self._searched_with = self.hp_search_backend = None

    # ---- the step -------------------------------------------------------------------------------------------------

    def compute_loss_context_manager(self) -> Any:
        """Entered for each forward pass, when the Trainer has just put the whole model into training mode."""
        for module in self._frozen:
            module.eval()
        return super().compute_loss_context_manager()

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """The loss that the model gives for a batch."""
        return super().compute_loss(model, self.model_inputs(inputs), *args, **kwargs)

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        """As the Trainer takes it, once what the batch has skipped is reported.

        Raises:
            NotFinite: the loss of any process is not; what was saved before is good. Every process raises it, since
                the others would else wait for the one that does.
        """
        for row, name, reason in inputs.get("skipped", ()):
            self.skipped_images.report(row, name, reason, self.args.strict)
        loss = super().training_step(model, inputs, *args, **kwargs)
        if not holds_everywhere(loss.isfinite()):
            raise self.not_finite(self.what_is_not_finite())
        return loss

    def what_is_not_finite(self) -> str:
        """Where a loss that is not finite comes from, as far as a family knows."""
        return "the loss"

    def not_finite(self, what: str) -> NotFinite:
        """The error that ends a run in this step."""
        return NotFinite(
            f"step {self.state.global_step + 1}: {what} became NaN or infinite: lower learning_rate, or lengthen "
            "warmup_steps"
        )

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, *args: Any, **kwargs: Any
    ) -> Any:
        """As the Trainer takes it, once what the batch has skipped is reported.

        Raises:
            InputError: an image cannot be read, and `strict` is set, or several processes need as many each.
        """
        if "skipped" in inputs and self.unread.report(inputs["skipped"], self.args.strict):
            self._check_unread(prediction_loss_only)
            rows = inputs.get("rows")
            if rows is not None and not len(rows):
                # The Trainer leaves out what is not finite; of several processes each must give it something.
                nothing = torch.full((), math.nan, device=self.args.device) if process_count() > 1 else None
                return nothing, None, None
        return super().prediction_step(model, self.model_inputs(inputs), prediction_loss_only, *args, **kwargs)

    def _check_unread(self, prediction_loss_only: bool) -> None:
        is_sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
        if process_count() > 1 and (is_sharded or not prediction_loss_only):
            raise InputError(
                f"{skipped_line(*min(self.unread.everywhere))}: several processes that gather predictions, or share "
                "out weights, need every image of an evaluation: mend or remove it"
            )

    def evaluation_loop(self, dataloader: DataLoader, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """As the Trainer has it, of the averaged weights where there are some; samples are images that could be read.

        Raises:
            InputError: none could; a bare source.
        """
        check_no_source(dataloader.dataset)
        self.unread.begin()
        output = super().evaluation_loop(dataloader, *args, **kwargs)
        unread = self.unread.everywhere
        if not unread or not isinstance(dataloader.dataset, Sized):  # of a stream the Trainer counts what it is given
            return output
        if len(unread) >= output.num_samples:
            raise InputError(f"no image of the evaluation set can be read; the first, {skipped_line(*min(unread))}")
        return output._replace(num_samples=output.num_samples - len(unread))

    def model_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """What a model takes of a batch."""
        return self.normalized({name: value for name, value in inputs.items() if name not in _NOT_OF_THE_MODEL})

    def normalized(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """The inputs with 8-bit pixels as the model wants them."""
        pixels = inputs.get("pixel_values")  # none where the batch brings what a frozen tower made of them
        if pixels is None or pixels.dtype != torch.uint8:
            return inputs
        if self._normalize is None:
            raise InputError("training images wait as 8-bit pixels: give the trainer processing_class=processor")
        return inputs | {"pixel_values": self._normalize(pixels)}

    def meter(self, name: str, total: Tensor, count: int) -> None:
        """Has a figure logged as its mean since the last log; every process meters the same ones.

        Args:
            total: (), over `count` items of this process's step.
        """
        self._meters.add(name, total, count)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the means since the last log of what each step metered on all processes, and `data_wait`."""
        if "loss" in logs:
            logs |= self._meters.take(self.accelerator.reduce)
            times = torch.tensor(self._data_wait.take(), device=self.args.device)
            waited, total = self.accelerator.reduce(times).tolist()
            logs["data_wait"] = waited / max(total, 1e-9)
        super().log(logs, start_time)

    # ---- data -----------------------------------------------------------------------------------------------------

    def get_batch_samples(self, *args: Any) -> Any:
        """As the Trainer does it; the share of the steps that it takes is logged as `data_wait`."""
        return self._data_wait.fetch(lambda: super(BaseTrainer, self).get_batch_samples(*args))

    def get_train_dataloader(self) -> DataLoader:
        """Reads torch's wrappers as the sets within them.

        A stream is dealt out to the processes already; accelerate would have each of them read all of it.
        """
        rows = as_pairs(self.train_dataset)
        if rows is None:
            raise InputError("there is nothing to train on: give train_dataset")
        loader = partial(training_loader, self.args, rows, self.data_collator, self._train_batch_size)
        if isinstance(rows, StreamedImages):
            return loader(drop_last=self.args.dataloader_drop_last, generator=seed_of_workers(self.args))
        check_batches(self.args, rows, self._train_batch_size)
        prepared: Any = self.accelerator.prepare(loader(sampler=self._order_of(rows)))
        prepared.base_dataloader.generator = seed_of_workers(self.args)  # not before: accelerate would shuffle by it
        return prepared

    def _order_of(self, rows: Any) -> Sampler | None:
        """Knows the captions' lengths for `train_sampling_strategy="group_by_length"`."""
        by_length = self.args.train_sampling_strategy == "group_by_length" and hasattr(rows, "caption_lengths")
        return ByLength(rows, self.args) if by_length else self._get_train_sampler(rows)

    # ---- checkpoints ----------------------------------------------------------------------------------------------

    def add_to_checkpoint(self, folder: Path) -> None:
        """Which images were skipped."""
        skipped = self.skipped_images.in_all_processes()
        if self.args.should_save:
            SkippedRecord(skipped).write(folder / SKIPPED_IMAGES)

    def use_checkpoint(self, folder: Path) -> None:
        """Pushes it, as `hub_strategy` says."""
        if self.args.push_to_hub:
            self.hub.push_checkpoint(folder)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Saves model and processor, and what is known of their training: all that evaluating and publishing need."""
        super().save_model(output_dir, _internal_call)
        if self.args.should_save and not _internal_call and self.state.global_step:
            self.hub.write_facts(Path(output_dir or self.args.output_dir))

    # ---- the Hub --------------------------------------------------------------------------------------------------

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Makes the repository that `hub_model_id` names, before hours of training that could not be pushed."""
        self.hub.open(self.hub.target(token=token, private=private))

    def create_model_card(self, **said: Any) -> None:  # type: ignore[override]
        """Writes `training.json` and the card, `README.md`, into the run folder.

        Args:
            said: fields of `CardDetails` (license, language, datasets, base_model, tags, description, …), also by the
                Trainer's names for them; `model_name`, by default the repository's, or the run folder's.

        Raises:
            InputError: for a word that is unknown; for a card that cannot be written.
        """
        words, others = in_own_words(said)
        if others:
            raise InputError(f"{', '.join(others)}: not for a card, but for push_to_hub")
        if self.args.should_save:
            self.hub.write_card(words)

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **said: Any,
    ) -> Any:
        """Saves the model and publishes the run folder, as `hf-clip publish` does: one commit with card and figures.

        Args:
            blocking: `False` gives a future.
            said: as for `create_model_card`, and fields of `PublishOptions`; overwrite and timeout as `HubTarget` has
                them, by default the run's `hub_overwrite` and `hub_timeout`.

        Returns:
            A `Publication`, on the first process.

        Raises:
            InputError: a word that is unknown, a token that will not do, or a repository that is somebody's, before
                anything is saved; what the Hub refuses; the run folder is whole.
        """
        told = {name: said.pop(name, None) for name in ("overwrite", "timeout")}
        words, content = in_own_words(said)
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        target = self.hub.look(self.hub.target(token=token, revision=revision, private=private, **told))
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        return self.hub.push_run(words, content, target, commit_message or "End of training", blocking)


def _sets_of(given: Mapping[str, Any]) -> list[Any]:
    """The data sets among a trainer's arguments, those that have names too."""
    evaluated = given.get("eval_dataset")
    return [given.get("train_dataset"), *(evaluated.values() if isinstance(evaluated, Mapping) else [evaluated])]


class _AnnounceEpoch(TrainerCallback):
    """Tells the data set which epoch begins: what is drawn of it is drawn anew."""

    def on_epoch_begin(self, args, state, control, train_dataloader=None, **kwargs):
        dataset = train_dataloader.dataset
        if hasattr(dataset, "set_epoch"):
            dataset.set_epoch(int(state.epoch or 0))
