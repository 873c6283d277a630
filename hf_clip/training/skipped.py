"""The images that a run could not read: counted, named, and remembered when it is resumed."""

import json
from collections.abc import Iterable
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


class UnreadInEvaluation:
    """The images that evaluations could not read: each is named once, and they are counted anew in each evaluation."""

    def __init__(self) -> None:
        self._named: set[tuple[int, str, str]] = set()
        self.everywhere: set[tuple[int, str, str]] = set()  # (row, name, reason), of this evaluation

    def begin(self) -> None:
        self.everywhere.clear()

    def report(self, skipped: Iterable[Any], strict: bool) -> bool:
        """Every process calls it for each of its batches, at the same time.

        Args:
            skipped: (row, name, reason) of this process's batch.

        Returns:
            Whether any process's batch lacks an image.

        Raises:
            InputError: in every process, for any, with `strict`.
        """
        mine = [tuple(entry) for entry in skipped]  # a loader that pins memory makes lists of them
        all_of_them = [entry for part in gather_objects(mine) for entry in part]
        if strict and all_of_them:
            raise broken_picture(*all_of_them[0])
        for entry in mine:
            if entry not in self._named:
                logger.warning(f"skipped in evaluation: {skipped_line(*entry)}")
        self._named.update(mine)
        self.everywhere.update(all_of_them)
        return bool(all_of_them)
