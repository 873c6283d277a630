"""Rows of a source as model-ready items, for training and for evaluation."""

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import BaseImageProcessor

from ..core.digests import content_id
from ..core.errors import InputError
from .augmentation import Augmentation, replayable
from .columns import caption_lengths
from .features import Features
from .images import UnreadableImage, read_image
from .pairs import Pairs
from .pixels import PixelNormalization, eight_bit_pixels, processed_pixels, shortest_side
from .sources import Source, no_source


class CaptionedImages(torch.utils.data.Dataset):
    """All captions of each picture, without augmentation: the evaluation view of a source.

    An item is {row, pixel_values (3, height, width), captions, image_id, skipped}. A picture that cannot be read has
    no `pixel_values`; `skipped` says (row, name, reason).
    """

    def __init__(self, source: Source, image_processor: BaseImageProcessor):
        if not isinstance(source, Source):
            raise no_source(source)
        self.source = source
        self.image_processor = image_processor

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def row_span(self) -> int:
        """More than any row that its items, and what was skipped for them, name."""
        numbers = self.source.row_numbers
        return len(self) if numbers is None else max(len(self), int(numbers.max(initial=-1)) + 1)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, row: int) -> dict[str, Any]:
        record = self.source.rows[row]
        return {"row": row, "captions": self.source.captions_of(record)} | read_picture(
            self.source, record, row, partial(processed_pixels, self.image_processor)
        )


class TrainingPairs(Pairs, CaptionedImages):
    """One caption of each picture an epoch, the picture augmented; both drawn from (seed, epoch, row) alone.

    `pixel_values` are 8-bit where `PixelNormalization` knows the rest of what the image processor does.
    In place of a picture that cannot be read stands the next row that can, so every batch is whole.

    Where `text_features` or `image_features` is set, an item holds `pooled_text` or `pooled_image`, (width,), of the
    same draw instead, and its caption or picture is not read.
    """

    text_features: Features | None = None
    image_features: Features | None = None

    def __init__(self, source: Source, image_processor: BaseImageProcessor, augmentation: Augmentation, seed: int = 0):
        CaptionedImages.__init__(self, source, image_processor)
        self.draw = PairDrawer(image_processor, augmentation, seed)
        check_captioned(source)
        # Shared, so that `persistent_workers`, which are copies of this object, see the epoch change.
        self._epoch = torch.zeros((), dtype=torch.long).share_memory_()

    @property
    def seed(self) -> int:  # type: ignore[override]
        return self.draw.seed

    @property
    def epoch(self) -> int:  # type: ignore[override]
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        self._epoch.fill_(epoch)

    def at(self, rows: Sequence[int], epochs: Sequence[int]) -> list[dict[str, Any]]:
        return self._with_vectors([self._readable(row, epoch) for row, epoch in zip(rows, epochs, strict=True)])

    def read(self, rows: Sequence[int], epochs: Sequence[int]) -> list[dict[str, Any]]:
        return self._with_vectors([self._item(row, epoch) for row, epoch in zip(rows, epochs, strict=True)])

    def _with_vectors(self, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """With the features themselves, all read at once, where so far their positions stand."""
        for name, features in (("pooled_text", self.text_features), ("pooled_image", self.image_features)):
            having = [item for item in items if name in item]
            if features is not None and having:
                vectors = features.take([item[name] for item in having]).unbind()
                for item, vector in zip(having, vectors, strict=True):
                    item[name] = vector
        return items

    def _readable(self, row: int, epoch: int) -> dict[str, Any]:
        count = len(self)
        if row >= count:
            raise IndexError(f"row {row} of {count}")
        skipped: list[tuple[int, str, str]] = []
        for candidate in range(row, row + count):
            item = self._item(candidate % count, epoch)
            skipped += item["skipped"]
            if "image_id" in item:
                return item | {"skipped": skipped}
        _, name, reason = skipped[0]
        raise InputError(f"no picture of {self.source.name} can be read; the first, {name}: {reason}")

    def _item(self, row: int, epoch: int) -> dict[str, Any]:
        if self.text_features is None and self.image_features is None:
            return self.draw(self.source, self.source.rows[row], row, epoch)
        drawn = self.draw.number(row, epoch)
        if self.text_features is None:
            text = {"captions": [choose(self.source.captions(row), drawn)]}
        else:
            text = _pooled_text(self.text_features, row, drawn)
        if self.image_features is None:
            picture = self.draw.picture(self.source, self.source.rows[row], row, drawn)
        else:
            picture = _pooled_image(self.image_features, self.source, row)
        return {"row": row} | text | picture

    def caption_lengths(self) -> list[int]:
        """Mean characters of each row's captions: how long its text is, before it is tokenised."""
        if self.source.caption_column:
            return list(caption_lengths(self.source.rows, self.source.caption_column))
        lengths = np.array([len(name) for name in self.source.class_names])
        labels = self.source.labels()
        if labels.ndim == 1:
            return lengths[labels].tolist()
        return (labels @ lengths // labels.sum(1).clip(min=1)).tolist()


class PairDrawer:
    """Makes a training item of a row: one of its captions, and its picture augmented."""

    def __init__(self, image_processor: BaseImageProcessor, augmentation: Augmentation, seed: int):
        self.image_processor = image_processor
        self.augmentation = augmentation
        self.augment: Callable[[Image.Image], Image.Image] = augmentation.build()
        self.seed = seed
        # 8-bit where the trainer can do the rest: a quarter of the bytes from worker to device.
        as_bytes = PixelNormalization.of(image_processor) is not None
        self.to_pixels = partial(eight_bit_pixels if as_bytes else processed_pixels, image_processor)
        self.at_least = augmentation.side_to_decode(shortest_side(image_processor))

    def __call__(self, source: Source, record: dict[str, Any], row: int, epoch: int) -> dict[str, Any]:
        drawn = self.number(row, epoch)
        caption = choose(source.captions_of(record), drawn)
        return {"row": row, "captions": [caption]} | self.picture(source, record, row, drawn)

    def number(self, row: int, epoch: int) -> int:
        """What all that is drawn for a row in an epoch is drawn from."""
        return content_id(f"{self.seed}-{epoch}-{row}".encode())

    def picture(self, source: Source, record: dict[str, Any], row: int, drawn: int) -> dict[str, Any]:
        augment = partial(replayable, self.augment, seed=drawn)
        return read_picture(source, record, row, self.to_pixels, augment, self.at_least)


def choose(captions: Sequence[Any], drawn: int) -> Any:
    return captions[0] if len(captions) == 1 else random.Random(drawn).choice(captions)


def _pooled_text(features: Features, row: int, drawn: int) -> dict[str, Any]:
    place = choose(range(features.starts[row], features.starts[row + 1]), drawn)
    position = int(features.positions[place])
    cut = features.cut is not None and bool(features.cut[place])
    return {"pooled_text": position, "caption_id": int(features.ids[position]), "caption_cut": cut}


def _pooled_image(features: Features, source: Source, row: int) -> dict[str, Any]:
    """As `read_picture`, with the position of the picture's vector."""
    (position,) = features.of_row(row)
    if position in features.notes:
        return {"skipped": [(source.row_number(row), source.picture_name(source.rows[row]), features.notes[position])]}
    return {"pooled_image": position, "image_id": int(features.ids[position]), "skipped": []}


def check_captioned(source: Source) -> None:
    if not (source.has_captions and source.captions_required):
        raise InputError(f"{source.name} was opened for its pictures alone: training needs captions, or labels")


def read_picture(
    source: Source,
    record: dict[str, Any],
    row: int,
    to_pixels: Callable[[Image.Image], Tensor],
    augment: Callable[[Image.Image], Image.Image] | None = None,
    at_least: int | None = None,
) -> dict[str, Any]:
    """{pixel_values, image_id, skipped} of a row, or only what was skipped; `at_least` is that of `read_image`."""
    try:
        image, image_id = read_image(record[source.image_column], source.folder, at_least)
    except UnreadableImage as error:
        return {"skipped": [(source.row_number(row), source.picture_name(record), str(error))]}
    if augment:
        image = augment(image)
    return {"pixel_values": to_pixels(image), "image_id": image_id, "skipped": []}
