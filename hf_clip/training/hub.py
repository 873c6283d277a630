"""A run on the Hub: its repository, its card, and what goes up while it trains and at its end."""

import weakref
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from accelerate import Accelerator
from huggingface_hub import HfApi
from torch import nn
from transformers import TrainerControl, TrainerState
from transformers.trainer_callback import CallbackHandler
from transformers.trainer_utils import HubStrategy

from ..core.atomic import staged
from ..core.errors import InputError, first_line
from ..core.families import Family, family_of
from ..core.training_record import TRAINING, TrainingRecord
from ..publishing.card.facts import CardDetails
from ..publishing.card.render import write_card
from ..publishing.hub import HubTarget, Publication, look_first, open_repository
from ..publishing.hub_ids import is_hub_id
from ..publishing.saved_model import SavedModel
from ..publishing.staging import PublishOptions
from .base_arguments import BaseTrainingArguments
from .facts import Origin
from .interrupt import StopOnInterrupt
from .pushes import finish, give_up, push_checkpoint, push_run, remove_staging


class TrainerOfARun(Protocol):
    """What is asked of a trainer; `BaseTrainer` is one."""

    origin: Origin
    hub_model_id: str | None
    accelerator: Accelerator
    callback_handler: CallbackHandler
    state: TrainerState
    control: TrainerControl

    @property
    def args(self) -> BaseTrainingArguments: ...

    @property
    def model(self) -> nn.Module: ...

    def training_facts(self) -> TrainingRecord: ...

    def is_world_process_zero(self) -> bool: ...


class RunOnHub:
    """What a trainer tells the Hub, and what of it is under way.

    The Trainer finds it as its `push_in_progress`, and asks it at the end of training (`is_done`, `wait_until_done`).
    """

    def __init__(self, trainer: TrainerOfARun):
        # Its own reference to us would make a circle, and only the garbage collector end it: a loader's workers would
        # then be waited for, whose queue may be collected before them.
        self.trainer: TrainerOfARun = weakref.proxy(trainer)
        self.jobs: list[Future] = []

    # ---- what is under way ----------------------------------------------------------------------------------------

    def is_done(self) -> bool:
        return all(job.done() for job in self.jobs)

    def wait_until_done(self) -> None:
        """As `pushes.finish`."""
        finish(self.jobs, self._is_asked_to_stop)

    def give_up(self) -> None:
        """Else Python would wait for their thread."""
        give_up(self.jobs)

    def _is_asked_to_stop(self) -> bool:
        callbacks = self.trainer.callback_handler.callbacks
        return any(callback.asked for callback in callbacks if isinstance(callback, StopOnInterrupt))

    # ---- where it goes, and what is said of it --------------------------------------------------------------------

    @property
    def run(self) -> Path:
        return Path(self.trainer.args.output_dir)

    def target(self, **given: Any) -> HubTarget:
        """Where a push goes: what was given, and for the rest the run's settings."""
        args = self.trainer.args
        usual: dict[str, Any] = {
            "token": args.hub_token,
            "revision": args.hub_revision,
            "private": args.hub_private_repo,
            "overwrite": args.hub_overwrite,
            "timeout": args.hub_timeout,
        }
        where = usual | {name: value for name, value in given.items() if value not in (None, "")}
        return HubTarget(self.trainer.hub_model_id or "", **where | {"private": bool(where["private"])})

    def open(self, target: HubTarget) -> None:
        """Makes the repository, on the first process.

        Raises:
            InputError: for what the Hub refuses, or will at the end of the run: a model of no family.
        """
        self._family()
        if self.trainer.is_world_process_zero():
            name = self.trainer.args.hub_model_id or self.run.resolve().name
            self.trainer.hub_model_id = open_repository(replace(target, repo_id=name))

    def look(self, target: HubTarget) -> HubTarget:
        """Whether a push may be, before anything is saved for it; makes the repository where it is not known yet."""
        if self.trainer.hub_model_id is None:
            self.open(target)
            return replace(target, repo_id=self.trainer.hub_model_id or "")
        self._family()
        if self.trainer.is_world_process_zero():
            look_first(target)
        return target

    def write_facts(self, run: Path) -> None:
        """`training.json`, of which a card is made."""
        with staged(run) as folder:
            self.trainer.training_facts().write(folder / TRAINING)

    def write_card(self, words: dict[str, Any]) -> None:
        """`training.json`, and the card.

        Raises:
            InputError: they cannot be written.
        """
        try:
            self.write_facts(self.run)
            write_card(SavedModel(self.run, self._family()), self._details(words), run_examples=False)
        except InputError:
            raise
        except OSError as error:
            raise InputError(
                f"the card of {self.run} could not be written ({type(error).__name__}: {first_line(error)}): the "
                "model in it is whole; mend that, and call create_model_card() or `hf-clip publish`"
            ) from error

    def _family(self) -> Family:
        """
        Raises:
            InputError: the model is of none that hf_clip knows, so it has no words for a card.
        """
        return family_of(self.trainer.accelerator.unwrap_model(self.trainer.model).config.model_type)

    def _details(self, words: dict[str, Any]) -> CardDetails:
        trainer = self.trainer
        name = trainer.hub_model_id or trainer.args.hub_model_id or self.run.resolve().name
        named: dict[str, Any] = {"name": words.get("model_name") or name}
        return CardDetails(**named | {name: value for name, value in words.items() if name != "model_name"})

    def _adapted(self) -> str | None:
        """Of an adapter, the Hub id of the model that it was trained over, where the run knows one."""
        base = self.trainer.origin.started_from
        is_adapter = hasattr(self.trainer.accelerator.unwrap_model(self.trainer.model), "peft_config")
        return base if is_adapter and is_hub_id(base) and not Path(base).exists() else None

    # ---- what goes up ---------------------------------------------------------------------------------------------

    def push_run(
        self, words: dict[str, Any], content: dict[str, Any], target: HubTarget, message: str, blocking: bool
    ) -> Publication | Future:
        """The run folder as it is, and its card; a future where it is not `blocking`."""
        self.write_card(words)
        self.wait_until_done()
        whole = PublishOptions(self._details(words), **{"adapter_of": self._adapted()} | content)
        if not blocking:
            return HfApi().run_as_future(push_run, self.run, whole, target, message)
        try:
            return push_run(self.run, whole, target, message)
        finally:
            remove_staging(self.run)

    def push_checkpoint(self, checkpoint: Path) -> None:
        """As `hub_strategy` says, in a thread; not while another push is under way, unless `hub_always_push`."""
        trainer, strategy = self.trainer, self.trainer.args.hub_strategy
        if strategy == HubStrategy.END or not (self.is_done() or trainer.args.hub_always_push):
            return
        trainer.callback_handler.on_push_begin(trainer.args, trainer.state, trainer.control)

        def content() -> PublishOptions:
            training = trainer.training_facts()
            return PublishOptions(self._details({}), adapter_of=self._adapted(), training=training, run_examples=False)

        places: dict[str, str] = {
            HubStrategy.CHECKPOINT: "last-checkpoint",
            HubStrategy.ALL_CHECKPOINTS: checkpoint.name,
        }
        message = f"Training in progress, step {trainer.state.global_step}"
        job = push_checkpoint(self.run, checkpoint, content, places.get(strategy), self.target(), message)
        if job is not None:
            self.jobs = [job, *(before for before in self.jobs if not before.done())]
