"""Rows of a source as model-ready items, for training and for evaluation."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from transformers import BaseImageProcessor

from ..core.errors import InputError
from .augmentation import Augmentation
from .columns import Row, caption_lengths
from .drawn import Drawn
from .draws import CaptionDraw, ImageDraw, read_picture
from .features import Features
from .items import Item, Skipped
from .pixels import processed_pixels
from .sources import Source, no_source


class ImageRows(torch.utils.data.Dataset):
    """The image of each row of a source, without augmentation: the evaluation view of a model of images alone.

    An item is {row, pixel_values (3, height, width), image_id, skipped}. An image that cannot be read has no
    `pixel_values`; `skipped` says (row, name, reason).
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

    def __getitem__(self, row: int) -> Item:
        return {"row": row} | self._image(self.source.rows[row], row)

    def _image(self, record: Row, row: int) -> Item:
        return read_picture(self.source, record, row, partial(processed_pixels, self.image_processor))


class CaptionedImages(ImageRows):
    """The same with `captions`, all those of each image: the evaluation view of a source."""

    def __getitem__(self, row: int) -> Item:
        record = self.source.rows[row]
        return {"row": row, "captions": self.source.captions_of(record)} | self._image(record, row)


class TrainingImages(Drawn, ImageRows):
    """The image of each row, augmented anew in each epoch; drawn from (seed, epoch, row) alone.

    `pixel_values` are 8-bit where `PixelNormalization` knows the rest of what the image processor does.
    In place of an image that cannot be read stands the next row that can, so every batch is whole.
    """

    def __init__(self, source: Source, image_processor: BaseImageProcessor, augmentation: Augmentation, seed: int = 0):
        ImageRows.__init__(self, source, image_processor)
        self.draw = ImageDraw(image_processor, augmentation, seed)
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

    def at(self, rows: Sequence[int], epochs: Sequence[int]) -> list[Item]:
        return [self._readable(row, epoch) for row, epoch in zip(rows, epochs, strict=True)]

    def read(self, rows: Sequence[int], epochs: Sequence[int]) -> list[Item]:
        return [self._item(row, epoch) for row, epoch in zip(rows, epochs, strict=True)]

    def _readable(self, row: int, epoch: int) -> Item:
        count = len(self)
        if row >= count:
            raise IndexError(f"row {row} of {count}")
        skipped: list[Skipped] = []
        for candidate in range(row, row + count):
            item = self._item(candidate % count, epoch)
            skipped += item["skipped"]
            if "image_id" in item:
                return item | {"skipped": skipped}
        _, name, reason = skipped[0]
        raise InputError(f"no picture of {self.source.name} can be read; the first, {name}: {reason}")

    def _item(self, row: int, epoch: int) -> Item:
        return {"row": row} | self.draw(self.source, self.source.rows[row], row, epoch)


class TrainingPairs(TrainingImages, CaptionedImages):
    """The same with `captions`, one of each image, chosen anew in each epoch.

    Where `text_features` or `image_features` is set, an item holds `pooled_text` or `pooled_image`, (width,), of the
    same draw instead, and its caption or picture is not read.
    """

    text_features: Features | None = None
    image_features: Features | None = None

    def __init__(self, source: Source, image_processor: BaseImageProcessor, augmentation: Augmentation, seed: int = 0):
        super().__init__(source, image_processor, augmentation, seed)
        self.choose = CaptionDraw(seed)
        check_captioned(source)

    def at(self, rows: Sequence[int], epochs: Sequence[int]) -> list[Item]:
        return self._with_vectors(super().at(rows, epochs))

    def read(self, rows: Sequence[int], epochs: Sequence[int]) -> list[Item]:
        return self._with_vectors(super().read(rows, epochs))

    def _with_vectors(self, items: list[Item]) -> list[Item]:
        """With the features themselves, all read at once, where so far their positions stand."""
        for name, features in (("pooled_text", self.text_features), ("pooled_image", self.image_features)):
            having = [item for item in items if name in item]
            if features is not None and having:
                vectors = features.take([item[name] for item in having]).unbind()
                for item, vector in zip(having, vectors, strict=True):
                    item[name] = vector
        return items

    def _item(self, row: int, epoch: int) -> Item:
        is_cached = self.text_features is not None and self.image_features is not None
        record = {} if is_cached else self.source.rows[row]
        if self.text_features is None:
            text = {"captions": [self.choose(self.source.captions_of(record), row, epoch)]}
        else:
            text = _pooled_text(self.text_features, row, partial(self.choose, row=row, epoch=epoch))
        if self.image_features is None:
            image = self.draw(self.source, record, row, epoch)
        else:
            image = _pooled_image(self.image_features, self.source, row)
        return {"row": row} | text | image

    def caption_lengths(self) -> list[int]:
        """Mean characters of each row's captions: how long its text is, before it is tokenised."""
        if self.source.caption_column:
            return list(caption_lengths(self.source.rows, self.source.caption_column))
        lengths = np.array([len(name) for name in self.source.class_names or ()])
        labels = self.source.labels()
        if labels.ndim == 1:
            return lengths[labels].tolist()
        return (labels @ lengths // labels.sum(1).clip(min=1)).tolist()


def _pooled_text(features: Features, row: int, choose: Callable[[Sequence[int]], int]) -> Item:
    place = choose(range(features.starts[row], features.starts[row + 1]))
    position = int(features.positions[place])
    cut = features.cut is not None and bool(features.cut[place])
    return {"pooled_text": position, "caption_id": int(features.ids[position]), "caption_cut": cut}


def _pooled_image(features: Features, source: Source, row: int) -> Item:
    """As `read_picture`, with the position of the picture's vector."""
    (position,) = features.of_row(row)
    if position in features.notes:
        return {"skipped": [(source.row_number(row), source.picture_name(source.rows[row]), features.notes[position])]}
    return {"pooled_image": position, "image_id": int(features.ids[position]), "skipped": []}


def check_captioned(source: Source) -> None:
    if not (source.has_captions and source.captions_required):
        raise InputError(f"{source.name} was opened for its pictures alone: training needs captions, or labels")
