"""What a run sends to the Hub, while it trains and at its end: each time the whole repository in one commit."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import HfApi
from transformers.trainer import TRAINER_STATE_NAME, TRAINING_ARGS_NAME
from transformers.utils import logging

from ..core.atomic import STAGING
from ..core.errors import InputError, first_line
from ..core.public import public_name, refuse_secrets, without_folders
from ..core.temporary import temporary_folder
from ..publishing.card.facts import CardDetails
from ..publishing.hub import HubTarget, Publication, push_folder
from ..publishing.hub_process import end_all
from ..publishing.saved_model import SavedModel
from ..publishing.staging import PublishOptions, link_or_copy, stage
from .skipped import SKIPPED_IMAGES, SkippedRecord

logger = logging.get_logger(__name__)

_T = TypeVar("_T")
_api = HfApi()  # its thread takes one push after the other
# Words of the Trainer's card, and what they are here.
_ALSO_CALLED = {"finetuned_from": "base_model", "dataset_tags": "datasets"}
_NOT_TAKEN = {
    "tasks": "the card names the tasks that the model was evaluated on; add a word of your own with tags",
    "dataset_args": "the card names the split of each evaluation; say more with description",
}


def in_own_words(said: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(fields of `CardDetails`, of `PublishOptions`), of what `push_to_hub` is told; the Trainer's words among it.

    Raises:
        InputError: for a word that neither knows.
    """
    said = {name: value for name, value in said.items() if value is not None}
    of_card, of_content = (
        [field.name for field in fields(kind) if field.name not in ("name", "details")]
        for kind in (CardDetails, PublishOptions)
    )
    if "dataset" in said:  # in the Trainer's card the name to be read, of what `dataset_tags` calls as the Hub does
        said.setdefault("dataset_tags", said.pop("dataset"))
    for theirs, ours in _ALSO_CALLED.items():
        if theirs in said and ours in said:
            raise InputError(f"{theirs} and {ours} are the same: give only {ours}")
        if theirs in said:
            said[ours] = said.pop(theirs)
    for name in said:
        if name in _NOT_TAKEN:
            raise InputError(f"{name} is not taken: {_NOT_TAKEN[name]}")
        if name not in ("model_name", *of_card, *of_content):
            raise InputError(f"unknown {name!r}: choose one of {', '.join(['model_name', *of_card, *of_content])}")
    content = {name: said.pop(name) for name in of_content if name in said}
    return said, content


def push_run(run: Path, content: PublishOptions, target: HubTarget, message: str) -> Publication:
    """Publishes the model that a run folder holds, in a commit with that message.

    Raises:
        InputError: what cannot be published, or the Hub refuses; the run folder is as it was.
    """
    with _aside(run) as aside:
        stage(SavedModel(run), aside, content, token=target.token)
        return push_folder(aside, target, commit_message=message)


def push_checkpoint(
    run: Path,
    checkpoint: Path,
    content: Callable[[], PublishOptions],
    resumable_as: str | None,
    target: HubTarget,
    message: str,
) -> Future | None:
    """Publishes a checkpoint's model, and with it what training goes on from; the future of it.

    The files are linked aside first: the checkpoint may be removed before they are sent. What goes wrong is a
    warning, for the next push brings all of it.

    Args:
        content: called here, so that what goes wrong in it is a warning too.
        resumable_as: the folder for the whole checkpoint in the repository; `None`: only the model goes up.
    """
    with ExitStack() as stack:

        def prepare() -> Path:
            aside = stack.enter_context(_aside(run))
            stage(SavedModel(checkpoint), aside, content(), token=target.token)
            if resumable_as:
                _link_checkpoint(checkpoint, aside, resumable_as)
                refuse_secrets(aside, checkpoint, target.token)
            return aside

        aside = _warned(prepare)
        if aside is None:
            return None
        held = stack.pop_all()

    def push() -> None:
        with held:
            _warned(lambda: push_folder(aside, target, commit_message=message))

    future = _api.run_as_future(push)
    future.add_done_callback(lambda _: held.close())  # where it was given up before it began
    return future


def finish(pushes: list[Future], is_interrupted: Callable[[], bool]) -> None:
    """Waits for pushes, each of which ends by itself after its time; Ctrl-C gives them up.

    Args:
        is_interrupted: whether there was a Ctrl-C that somebody else has taken. One before the wait ended the
            training, and the wait is for what that saved.

    Raises:
        KeyboardInterrupt: the pushes were given up; says so.
    """
    before = is_interrupted()
    if any(not push.done() for push in pushes):
        logger.warning("waiting until what was saved is pushed: Ctrl-C gives that up, and the checkpoints stay")
    try:
        while wait(pushes, timeout=0.2).not_done:
            if is_interrupted() and not before:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        give_up(pushes)
        raise KeyboardInterrupt("interrupted; the run's checkpoints are whole, the last was not pushed") from None


def give_up(pushes: list[Future]) -> None:
    """Ends pushes, begun or not."""
    for push in pushes:
        push.cancel()
    end_all()
    wait(pushes, timeout=1)


@contextmanager
def _aside(run: Path) -> Iterator[Path]:
    """A folder on the run's disk, so that weights can be linked."""
    staging = run / STAGING
    staging.mkdir(parents=True, exist_ok=True)
    with temporary_folder(staging) as folder:
        yield folder


def remove_staging(run: Path) -> None:
    """Where it is empty; not from a push's thread, for the run may just be making a folder in it."""
    with suppress(OSError):
        (run / STAGING).rmdir()


def _warned(step: Callable[[], _T]) -> _T | None:
    """What a step gives; None where it goes wrong."""
    try:
        return step()
    except Exception as error:  # of whatever kind: no push is worth the training, and a thread's errors nobody sees
        said = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {first_line(error)}"
        logger.warning(f"this checkpoint was not pushed, and training goes on: {said}")
        return None


def _link_checkpoint(checkpoint: Path, aside: Path, name: str) -> None:
    """All that training goes on from, without where it lay; the arguments stay, for they hold the token.

    Settings are those that are staged for the model: of them every path is taken already.
    """
    for file in sorted(checkpoint.rglob("*")):
        within = file.relative_to(checkpoint)
        place, staged = aside / name / within, aside / within
        if file.is_dir() or file.name in (TRAINING_ARGS_NAME, "README.md"):
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        if file.name == TRAINER_STATE_NAME:
            state = json.loads(file.read_text())
            state["best_model_checkpoint"] = public_name(state.get("best_model_checkpoint") or "") or None
            place.write_text(json.dumps(without_folders(state), indent=2))
        elif file.name == SKIPPED_IMAGES:
            SkippedRecord.read(file).in_public().write(place)
        else:
            is_settings = file.name.endswith("config.json") and staged.is_file()
            link_or_copy(staged if is_settings else file, place)
