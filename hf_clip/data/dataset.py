"""Rows of a source as model-ready items, for training and for evaluation."""

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from PIL import Image
from transformers import BaseImageProcessor

from ..errors import InputError
from .augmentation import Augmentation, replayable
from .columns import caption_lengths
from .images import UnreadableImage, content_id, read_image
from .sources import Source


class CaptionedImages(torch.utils.data.Dataset):
    """All captions of each picture, without augmentation: the evaluation view of a source.

    An item is {row, pixel_values (3, height, width), captions, image_id, skipped}. A picture that cannot be read has
    no `pixel_values`; `skipped` says (row, name, reason).
    """

    def __init__(self, source: Source, image_processor: BaseImageProcessor):
        self.source = source
        self.image_processor = image_processor

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, row: int) -> dict[str, Any]:
        record = self.source.rows[row]
        return {"row": row, "captions": self.source.captions_of(record)} | read_picture(
            self.source, record, row, self.image_processor
        )


class TrainingPairs(CaptionedImages):
    """One caption of each picture an epoch, the picture augmented; both drawn from (seed, epoch, row) alone.

    In place of a picture that cannot be read stands the next row that can, so every batch is whole.
    """

    def __init__(self, source: Source, image_processor: BaseImageProcessor, augmentation: Augmentation, seed: int = 0):
        super().__init__(source, image_processor)
        self.draw = PairDrawer(image_processor, augmentation, seed)
        check_captioned(source)
        # Shared, so that `persistent_workers`, which are copies of this object, see the epoch change.
        self._epoch = torch.zeros((), dtype=torch.long).share_memory_()

    @property
    def seed(self) -> int:
        return self.draw.seed

    @property
    def epoch(self) -> int:
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        self._epoch.fill_(epoch)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return self.at(row, self.epoch)

    def at(self, row: int, epoch: int) -> dict[str, Any]:
        """The item of a row in an epoch."""
        if row >= len(self):
            raise IndexError(f"row {row} of {len(self)}")
        skipped: list[tuple[int, str, str]] = []
        for candidate in range(row, row + len(self)):
            candidate %= len(self)
            item = self.draw(self.source, self.source.rows[candidate], candidate, epoch)
            skipped += item["skipped"]
            if "pixel_values" in item:
                return item | {"skipped": skipped}
        _, name, reason = skipped[0]
        raise InputError(f"no picture of {self.source.name} can be read; the first, {name}: {reason}")

    def caption_lengths(self) -> list[int]:
        """Mean characters of each row's captions: how long its text is, before it is tokenised."""
        if self.source.caption_column:
            return list(caption_lengths(self.source.rows, self.source.caption_column))
        names = self.source.class_names
        return [len(names[label]) for label in self.source.labels().tolist()]


class PairDrawer:
    """Makes a training item of a row: one of its captions, and its picture augmented."""

    def __init__(self, image_processor: BaseImageProcessor, augmentation: Augmentation, seed: int):
        self.image_processor = image_processor
        self.augment: Callable[[Image.Image], Image.Image] = augmentation.build()
        self.seed = seed

    def __call__(self, source: Source, record: dict[str, Any], row: int, epoch: int) -> dict[str, Any]:
        drawn = content_id(f"{self.seed}-{epoch}-{row}".encode())
        caption = random.Random(drawn).choice(source.captions_of(record))
        augment = partial(replayable, self.augment, seed=drawn)
        return {"row": row, "captions": [caption]} | read_picture(source, record, row, self.image_processor, augment)


def check_captioned(source: Source) -> None:
    if not (source.has_captions and source.captions_required):
        raise InputError(f"{source.name} was opened for its pictures alone: training needs captions, or labels")


def read_picture(
    source: Source,
    record: dict[str, Any],
    row: int,
    image_processor: BaseImageProcessor,
    augment: Callable[[Image.Image], Image.Image] | None = None,
) -> dict[str, Any]:
    """{pixel_values, image_id, skipped} of a row, or only what was skipped."""
    try:
        image, image_id = read_image(record[source.image_column], source.folder)
    except UnreadableImage as error:
        return {"skipped": [(source.row_number(row), source.picture_name(record), str(error))]}
    if augment:
        image = augment(image)
    # A picture of 1 to 3 pixels' height could be taken for channels: PIL images have them last.
    processed = image_processor(images=image, input_data_format="channels_last", return_tensors="pt")
    return {"pixel_values": processed["pixel_values"][0], "image_id": image_id, "skipped": []}
