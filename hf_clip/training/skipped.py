"""The images that a run could not read: counted, named, and remembered when it is resumed."""

import json
from pathlib import Path
from typing import Any

from transformers.utils import logging

from ..data.images import broken_picture, skipped_line
from .processes import gather_objects

logger = logging.get_logger(__name__)

SKIPPED_IMAGES = "skipped_images.json"


class SkippedImages(dict[int, tuple[str, str]]):
    """Row → (name, reason) of each image that this process could not read so far.

    `everywhere` has [row, name, reason] of all processes, as they last said it together.
    """

    def __init__(self) -> None:
        super().__init__()
        self.everywhere: list[list[Any]] = []

    def report(self, row: int, name: str, reason: str, strict: bool) -> None:
        """
        Raises:
            InputError: for any, with `strict`.
        """
        if strict:
            raise broken_picture(row, name, reason)
        if row not in self:
            self[row] = (name, reason)
            logger.warning(f"skipped {skipped_line(row, name, reason)}")

    def in_all_processes(self) -> list[list[Any]]:
        """`everywhere`, anew: every process calls it at the same time."""
        together = {row: why for part in gather_objects(dict(self)) for row, why in part.items()}
        self.everywhere = [[row, *why] for row, why in sorted(together.items())]
        return self.everywhere

    def resume(self, checkpoint: Path) -> None:
        """Takes up what was skipped before a checkpoint, in any process."""
        file = checkpoint / SKIPPED_IMAGES
        if file.is_file():
            self.clear()
            self.update({row: (name, reason) for row, name, reason in json.loads(file.read_text())})
