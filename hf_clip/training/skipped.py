"""The images that a run could not read: counted, named, and remembered when it is resumed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from huggingface_hub.dataclasses import strict
from transformers.utils import logging

from ..core.public import skipped_in_public
from ..core.records import Record
from ..data.images import broken_picture, skipped_line
from .processes import gather_objects

logger = logging.get_logger(__name__)

SKIPPED_IMAGES = "skipped_images.json"


Skipped = tuple[int, str, str]  # row, name, reason


@strict
@dataclass
class SkippedRecord(Record):
    """What a run has skipped until a checkpoint, in all its processes: `skipped_images.json`."""

    version = 1

    images: list[Skipped] = field(default_factory=list)

    @classmethod
    def from_json(cls, value: object, where: str = "") -> Self:
        """A list alone: of before there were versions."""
        return super().from_json({"images": value} if isinstance(value, list) else value, where)

    def in_public(self) -> "SkippedRecord":
        """By names that say nothing of the machine."""
        return SkippedRecord([(row, name, reason) for row, name, reason in skipped_in_public(self.images)])


class SkippedImages(dict[int, tuple[str, str]]):
    """Row → (name, reason) of each image that this process could not read so far.

    `everywhere` has those of all processes, as they last said it together.
    """

    def __init__(self) -> None:
        super().__init__()
        self.everywhere: list[Skipped] = []

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

    def in_all_processes(self) -> list[Skipped]:
        """`everywhere`, anew: every process calls it at the same time."""
        together = {row: why for part in gather_objects(dict(self)) for row, why in part.items()}
        self.everywhere = [(row, name, reason) for row, (name, reason) in sorted(together.items())]
        return self.everywhere

    def resume(self, checkpoint: Path) -> None:
        """Takes up what was skipped before a checkpoint, in any process.

        Raises:
            InvalidRecord: its file is not as a run writes it.
        """
        file = checkpoint / SKIPPED_IMAGES
        if file.is_file():
            found = SkippedRecord.read(file)
            self.clear()
            self.update({row: (name, reason) for row, name, reason in found.images})


class UnreadInEvaluation:
    """The images that evaluations could not read: each is named once, and they are counted anew in each evaluation."""

    def __init__(self) -> None:
        self._named: set[Skipped] = set()
        self.everywhere: set[Skipped] = set()  # of this evaluation

    def begin(self) -> None:
        self.everywhere.clear()

    def report(self, skipped: Iterable[Sequence], strict: bool) -> bool:
        """Every process calls it for each of its batches, at the same time.

        Args:
            skipped: (row, name, reason) of this process's batch.

        Returns:
            Whether any process's batch lacks an image.

        Raises:
            InputError: in every process, for any, with `strict`.
        """
        mine = [(row, name, reason) for row, name, reason in skipped]  # a loader that pins memory makes lists of them
        all_of_them = [entry for part in gather_objects(mine) for entry in part]
        if strict and all_of_them:
            raise broken_picture(*all_of_them[0])
        for entry in mine:
            if entry not in self._named:
                logger.warning(f"skipped in evaluation: {skipped_line(*entry)}")
        self._named.update(mine)
        self.everywhere.update(all_of_them)
        return bool(all_of_them)
