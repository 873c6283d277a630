"""Pixels on their way to the model: 8-bit as long as they wait, rescaled and normalised where the model is."""

import copy
import warnings
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import BaseImageProcessor, ConvNextImageProcessor
from transformers.image_processing_backends import PilBackend, TorchvisionBackend

_TOLERANCE = 1e-6


class PixelNormalization:
    """What an image processor does to 8-bit pixels at its end, for a batch, on the batch's device.

    Args:
        mean, std: of each channel, in units of the pixels: from 0 to 255.
    """

    def __init__(self, mean: Tensor, std: Tensor):
        self.mean, self.std = mean.view(-1, 1, 1), std.view(-1, 1, 1)

    @classmethod
    def of(cls, image_processor: BaseImageProcessor) -> "PixelNormalization | None":
        """The processor's own arithmetic; None where it ends otherwise than in rescaling and normalising RGB, which an
        example picture shows."""
        settings = image_processor.to_dict()
        if not (settings.get("do_rescale") or settings.get("do_normalize")):
            return None
        unit = 1 / settings["rescale_factor"] if settings.get("do_rescale") else 1.0
        mean, std = (settings["image_mean"], settings["image_std"]) if settings.get("do_normalize") else ([0.0], [1.0])
        normalization = cls(torch.tensor(mean) * unit, torch.tensor(std) * unit)
        return normalization if normalization._is_that_of(image_processor) else None

    def _is_that_of(self, image_processor: BaseImageProcessor) -> bool:
        noise = torch.randint(256, (40, 48, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        example = Image.fromarray(noise.numpy())
        try:
            pixels = eight_bit_pixels(image_processor, example)
        except (TypeError, ValueError):  # a step of the processor's own, which wants rescaled pixels
            return False
        expected = processed_pixels(image_processor, example)
        if pixels.dtype != torch.uint8 or pixels.ndim != 3 or len(pixels) != 3 or pixels.shape != expected.shape:
            return False
        return torch.allclose(self(pixels), expected, rtol=0, atol=_TOLERANCE)

    def __call__(self, pixels: Tensor) -> Tensor:
        """(…, 3, height, width) uint8 → float32, in the memory format that the pixels have."""
        mean, std = self.mean.to(pixels.device), self.std.to(pixels.device)
        return pixels.to(torch.float32).sub_(mean).div_(std)


def processed_pixels(image_processor: BaseImageProcessor, image: Image.Image, **settings: Any) -> Tensor:
    """(3, height, width) of an RGB picture, as the model wants them: to the bit what the image processor gives."""
    if isinstance(image_processor, TorchvisionBackend):
        kind = type(image_processor)
        if kind.process_image is TorchvisionBackend.process_image and image.mode == "RGB":
            image_processor = copy.copy(image_processor)
            image_processor.process_image = _view_pixels  # type: ignore[method-assign, assignment]
    # A picture of 1 to 3 pixels' height could be taken for channels: PIL images have them last.
    processed = image_processor(images=image, input_data_format="channels_last", return_tensors="pt", **settings)
    return processed["pixel_values"][0].contiguous()


def _view_pixels(image: Image.Image, **settings: Any) -> Tensor:
    """(3, height, width) of an RGB picture as it lies in memory, channels last. The processor's own `process_image`
    lays channels first, in copies of the whole picture: of a large one they and the resizing of such a layout take
    three times as long as all the rest but decoding."""
    return torch.from_numpy(np.asarray(image)).permute(2, 0, 1)


# It warns once a process that such an array is not to be written to: nobody does.
with warnings.catch_warnings(action="ignore"):
    torch.from_numpy(np.frombuffer(b"0", np.uint8))


def eight_bit_pixels(image_processor: BaseImageProcessor, image: Image.Image) -> Tensor:
    """(3, height, width) uint8 of an RGB picture: all that the processor does but rescale and normalise."""
    return processed_pixels(image_processor, image, do_rescale=False, do_normalize=False)


def shortest_side(image_processor: BaseImageProcessor) -> int | None:
    """The fewest pixels that a picture's shorter side must have not to be enlarged; None where that is not known."""
    kind: Any = type(image_processor)
    settings = image_processor.to_dict()
    size = {name: length for name, length in (settings.get("size") or {}).items() if length}
    if not settings.get("do_resize") or size.keys() not in ({"shortest_edge"}, {"height", "width"}):
        return None
    side = max(size.values())
    if kind is ConvNextImageProcessor:
        return int(side / settings["crop_pct"]) if side < 384 else side
    # One that resizes in a way of its own may mean another size than it says.
    usual = any(
        (kind.resize, kind._preprocess) == (base.resize, base._preprocess) for base in (TorchvisionBackend, PilBackend)
    )
    return side if usual else None
