"""What a run sends to the Hub, while it trains and at its end: each time the whole repository in one commit."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from transformers.trainer import TRAINER_STATE_NAME, TRAINING_ARGS_NAME
from transformers.utils import logging

from ..embedding_store import public_name
from ..errors import InputError
from ..publishing.hub import Publication, push_folder
from ..publishing.staging import Content, stage
from .checkpoints import STAGING, discard

logger = logging.get_logger(__name__)

SKIPPED_IMAGES = "skipped_images.json"
_api = HfApi()  # its thread takes one push after the other


def push_run(run: Path, content: Content, **where: Any) -> Publication:
    """Publishes the model that a run folder holds.

    Args:
        where: of `push_folder`.

    Raises:
        InputError: what cannot be published, or the Hub refuses; the run folder is as it was.
    """
    aside = _new(run / STAGING / "hub")
    try:
        stage(run, aside, content)
        return push_folder(aside, **where)
    finally:
        discard(aside)


def push_checkpoint(run: Path, checkpoint: Path, content: Content, resumable_as: str | None, **where: Any) -> Any:
    """Publishes a checkpoint's model, and with it what training goes on from; the future of it.

    The files are linked aside first: the checkpoint may be removed before they are sent. What goes wrong is a
    warning, for the next push brings all of it.

    Args:
        resumable_as: the folder for the whole checkpoint in the repository; `None`: only the model goes up.
    """
    aside = _new(run / STAGING / f"hub-{checkpoint.name}")

    def prepare() -> None:
        stage(checkpoint, aside, content)
        if resumable_as:
            _link_checkpoint(checkpoint, aside / resumable_as)

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
    except InputError as error:
        logger.warning(f"this checkpoint was not pushed, and training goes on: {error}")
        last = True
        return False
    finally:
        if last:
            discard(aside)
    return True


def _link_checkpoint(checkpoint: Path, target: Path) -> None:
    """All that training goes on from, without where it lay; the arguments stay, for they hold the token."""
    for file in sorted(checkpoint.rglob("*")):
        place = target / file.relative_to(checkpoint)
        if file.is_dir() or file.name == TRAINING_ARGS_NAME:
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        if file.name == TRAINER_STATE_NAME:
            state = json.loads(file.read_text())
            state["best_model_checkpoint"] = public_name(state.get("best_model_checkpoint") or "") or None
            place.write_text(json.dumps(state, indent=2))
        elif file.name == SKIPPED_IMAGES:
            skipped = [
                [row, public_name(name), reason.replace(name, public_name(name))]
                for row, name, reason in json.loads(file.read_text())
            ]
            place.write_text(json.dumps(skipped))
        else:
            os.link(file, place)
