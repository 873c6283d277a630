"""What is drawn of a row in an epoch: one of its captions, and how its image is augmented."""

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from PIL import Image
from torch import Tensor
from transformers import BaseImageProcessor

from ..core.digests import content_id
from .augmentation import Augmentation, replayable
from .columns import Row
from .images import UnreadableImage, read_image
from .items import Item
from .pixels import PixelNormalization, eight_bit_pixels, processed_pixels, shortest_side
from .sources import Source


class ImageDraw:
    """Makes a row's image into pixels, augmented anew in each epoch.

    `pixel_values` are 8-bit where `PixelNormalization` knows the rest of what the image processor does.
    """

    def __init__(self, image_processor: BaseImageProcessor, augmentation: Augmentation, seed: int):
        self.image_processor = image_processor
        self.augmentation = augmentation
        self.augment: Callable[[Image.Image], Image.Image] = augmentation.build()
        self.seed = seed
        # 8-bit where the trainer can do the rest: a quarter of the bytes from worker to device.
        as_bytes = PixelNormalization.of(image_processor) is not None
        self.to_pixels = partial(eight_bit_pixels if as_bytes else processed_pixels, image_processor)
        self.at_least = augmentation.side_to_decode(shortest_side(image_processor))

    def __call__(self, source: Source, record: Row, row: int, epoch: int) -> Item:
        """As `read_picture`."""
        augment = partial(replayable, self.augment, seed=number_of(self.seed, row, epoch))
        return read_picture(source, record, row, self.to_pixels, augment, self.at_least)


class CaptionDraw:
    """Chooses one of a row's captions in each epoch."""

    def __init__(self, seed: int):
        self.seed = seed

    def __call__(self, captions: Sequence[Any], row: int, epoch: int) -> Any:
        return captions[0] if len(captions) == 1 else random.Random(number_of(self.seed, row, epoch)).choice(captions)


def number_of(seed: int, row: int, epoch: int) -> int:
    """What all that is drawn for a row in an epoch is drawn from."""
    return content_id(f"{seed}-{epoch}-{row}".encode())


def read_picture(
    source: Source,
    record: Row,
    row: int,
    to_pixels: Callable[[Image.Image], Tensor],
    augment: Callable[[Image.Image], Image.Image] | None = None,
    at_least: int | None = None,
) -> Item:
    """{pixel_values, image_id, skipped} of a row, or only what was skipped; `at_least` is that of `read_image`."""
    try:
        image, image_id = read_image(record[source.image_column], source.folder, at_least)
    except UnreadableImage as error:
        return {"skipped": [(source.row_number(row), source.picture_name(record), str(error))]}
    if augment:
        image = augment(image)
    return {"pixel_values": to_pixels(image), "image_id": image_id, "skipped": []}
