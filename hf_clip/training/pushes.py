"""What a run sends to the Hub, while it trains and at its end: each time the whole repository in one commit."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from transformers.trainer import TRAINER_STATE_NAME, TRAINING_ARGS_NAME
from transformers.utils import logging

from ..embedding_store import public_name
from ..errors import InputError, first_line
from ..publishing.card_facts import CardDetails
from ..publishing.hub import Publication, push_folder
from ..publishing.staging import Content, link_or_copy, refuse_secrets, skipped_in_public, stage, without_folders
from .checkpoints import STAGING, discard

logger = logging.get_logger(__name__)

SKIPPED_IMAGES = "skipped_images.json"
_api = HfApi()  # its thread takes one push after the other
# Words of the Trainer's card, and what they are here.
_ALSO_CALLED = {"finetuned_from": "base_model", "dataset_tags": "datasets"}
_NOT_TAKEN = {
    "tasks": "the card names the tasks that the model was evaluated on; add a word of your own with tags",
    "dataset_args": "the card names the split of each evaluation; say more with description",
}


def in_own_words(said: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(fields of `CardDetails`, fields of `Content`), of what `push_to_hub` is told; the Trainer's words among it.

    Raises:
        InputError: for a word that neither knows.
    """
    said = {name: value for name, value in said.items() if value is not None}
    of_card, of_content = (
        [field for field in kind.__dataclass_fields__ if field not in ("name", "details")]
        for kind in (CardDetails, Content)
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


def push_run(run: Path, content: Content, **where: Any) -> Publication:
    """Publishes the model that a run folder holds.

    Args:
        where: of `push_folder`.

    Raises:
        InputError: what cannot be published, or the Hub refuses; the run folder is as it was.
    """
    aside = _new(run / STAGING / "hub")
    try:
        stage(run, aside, content, token=where.get("token"))
        return push_folder(aside, **where)
    finally:
        discard(aside)


def push_checkpoint(
    run: Path, checkpoint: Path, content: Callable[[], Content], resumable_as: str | None, **where: Any
) -> Any:
    """Publishes a checkpoint's model, and with it what training goes on from; the future of it.

    The files are linked aside first: the checkpoint may be removed before they are sent. What goes wrong is a
    warning, for the next push brings all of it.

    Args:
        content: called here, so that what goes wrong in it is a warning too.
        resumable_as: the folder for the whole checkpoint in the repository; `None`: only the model goes up.
    """
    aside, token = run / STAGING / f"hub-{checkpoint.name}", where.get("token")

    def prepare() -> None:
        stage(checkpoint, _new(aside), content(), token=token)
        if resumable_as:
            _link_checkpoint(checkpoint, aside, resumable_as)
            refuse_secrets(aside, checkpoint, token)

    if not _warned(prepare, aside):
        return None
    return _api.run_as_future(_warned, lambda: push_folder(aside, **where), aside, True)


def _new(aside: Path) -> Path:
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    return aside


def _warned(step: Callable[[], Any], aside: Path, last: bool = False) -> bool:
    """Whether a step went well; what it leaves aside is removed after the last, or one that did not."""
    try:
        step()
    except Exception as error:  # of whatever kind: no push is worth the training, and a thread's errors nobody sees
        said = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {first_line(error)}"
        logger.warning(f"this checkpoint was not pushed, and training goes on: {said}")
        last = True
        return False
    finally:
        if last:
            discard(aside)
    return True


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
            skipped = skipped_in_public(json.loads(file.read_text()))
            place.write_text(json.dumps(skipped))
        else:
            is_settings = file.name.endswith("config.json") and staged.is_file()
            link_or_copy(staged if is_settings else file, place)
