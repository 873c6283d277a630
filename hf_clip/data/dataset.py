"""Rows of a source as model-ready items, for training and for evaluation."""

import random
from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from transformers import BaseImageProcessor

from ..errors import InputError
from .augmentation import Augmentation, replayable
from .images import UnreadableImage, content_id, image_name, read_image
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
        item = {"row": row, "captions": _as_list(record[self.source.caption_column]), "skipped": []}
        try:
            image, image_id = read_image(record[self.source.image_column], self.source.folder)
            return item | {"pixel_values": self._process(image), "image_id": image_id}
        except UnreadableImage as error:
            return item | {"skipped": [(row, image_name(record[self.source.image_column]), str(error))]}

    def _process(self, image: Image.Image) -> torch.Tensor:
        # A picture of 1 to 3 pixels' height could be taken for channels: PIL images have them last.
        return self.image_processor(images=image, input_data_format="channels_last", return_tensors="pt")[
            "pixel_values"
        ][0]


class TrainingPairs(CaptionedImages):
    """One caption of each picture an epoch, the picture augmented; both drawn from (seed, epoch, row) alone.

    In place of a picture that cannot be read stands the next row that can, so every batch is whole.
    """

    def __init__(self, source: Source, image_processor: BaseImageProcessor, augmentation: Augmentation, seed: int = 0):
        super().__init__(source, image_processor)
        self.augment: Callable[[Image.Image], Image.Image] = augmentation.build()
        self.seed = seed
        # Shared, so that `persistent_workers`, which are copies of this object, see the epoch change.
        self._epoch = torch.zeros((), dtype=torch.long).share_memory_()

    @property
    def epoch(self) -> int:
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        self._epoch.fill_(epoch)

    def __getitem__(self, row: int) -> dict[str, Any]:
        if row >= len(self):
            raise IndexError(f"row {row} of {len(self)}")
        skipped: list[tuple[int, str, str]] = []
        for candidate in range(row, row + len(self)):
            item = self._draw(candidate % len(self))
            skipped += item["skipped"]
            if "pixel_values" in item:
                return item | {"skipped": skipped}
        _, name, reason = skipped[0]
        raise InputError(f"no picture of {self.source.name} can be read; the first, {name}: {reason}")

    def _draw(self, row: int) -> dict[str, Any]:
        record = self.source.rows[row]
        item: dict[str, Any] = {"row": row, "skipped": []}
        drawn = content_id(f"{self.seed}-{self.epoch}-{row}".encode())
        try:
            image, image_id = read_image(record[self.source.image_column], self.source.folder)
        except UnreadableImage as error:
            return item | {"skipped": [(row, image_name(record[self.source.image_column]), str(error))]}
        caption = random.Random(drawn).choice(_as_list(record[self.source.caption_column]))
        pixel_values = self._process(replayable(self.augment, image, drawn))
        return item | {"pixel_values": pixel_values, "captions": [caption], "image_id": image_id}


def _as_list(captions: str | list[str]) -> list[str]:
    return [captions] if isinstance(captions, str) else captions
