"""What training does to a picture before the model's own image processor sees it."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from PIL import Image
from torchvision.transforms import v2

from ..core.errors import InputError

_LIMITS = {
    "crop_scale": (0.01, 1),
    "rotation": (0, 180),
    "translation": (0, 1),
    "zoom": (0, 0.99),
    "color_jitter": (0, 10),
    "flip": (0, 1),
    "grayscale": (0, 1),
    "erasing": (0, 1),
}

_CROP_RATIOS = (3 / 4, 4 / 3)  # of width to height


@dataclass
class Augmentation:
    """Settings of the training augmentation; by default a mild random crop."""

    crop_scale: float = field(
        default=0.9, metadata={"help": "Smallest share of the area that a random crop keeps; 1 crops nothing."}
    )
    rotation: float = field(default=0.0, metadata={"help": "Largest rotation either way, in degrees."})
    translation: float = field(default=0.0, metadata={"help": "Largest shift, as a share of width and height."})
    zoom: float = field(default=0.0, metadata={"help": "Largest change of size either way, as a share."})
    color_jitter: float = field(
        default=0.0, metadata={"help": "Strength of random brightness, contrast and saturation."}
    )
    flip: float = field(
        default=0.0, metadata={"help": "Probability of a mirror image; 0 where left and right mean something."}
    )
    grayscale: float = field(default=0.0, metadata={"help": "Probability of losing all colour."})
    erasing: float = field(default=0.0, metadata={"help": "Probability that a random rectangle is blanked out."})
    reduced_decode: bool = field(
        default=True,
        metadata={
            "help": "Decode a JPEG much larger than the model's picture at a half, a quarter or an eighth of its "
            "size: two to eight times faster, and a photograph's pixels differ by less than a hundredth on average."
        },
    )

    def __post_init__(self):
        for name, (least, most) in _LIMITS.items():
            value = getattr(self, name)
            if not least <= value <= most:
                raise InputError(f"{name} must be from {least} to {most}, not {value}")

    def side_to_decode(self, side: int | None) -> int | None:
        """How many pixels a picture's shorter side must have for the least that is drawn of it to have `side`.

        None: decode all there are.
        """
        if side is None or not self.reduced_decode:
            return None
        least_crop = 1.0 if self.crop_scale == 1 else math.sqrt(self.crop_scale * _CROP_RATIOS[0])  # of a square
        return math.ceil(side * (1 + self.zoom) / least_crop)

    def build(self) -> Callable[[Image.Image], Image.Image]:
        """The transform, PIL to PIL; its randomness is torch's global generator."""
        steps: list[Callable] = []
        if self.crop_scale < 1:
            steps.append(_RandomCrop(self.crop_scale))
        if self.rotation or self.translation or self.zoom:
            steps.append(
                v2.RandomAffine(
                    degrees=self.rotation,
                    translate=(self.translation, self.translation),
                    scale=(1 - self.zoom, 1 + self.zoom),
                    interpolation=v2.InterpolationMode.BILINEAR,
                    fill=255,
                )
            )
        if self.color_jitter:
            strength = self.color_jitter
            steps.append(v2.ColorJitter(strength, strength, strength))
        if self.flip:
            steps.append(v2.RandomHorizontalFlip(self.flip))
        if self.grayscale:
            steps.append(v2.RandomGrayscale(self.grayscale))
        if self.erasing:
            # Erasing leaves PIL pictures as they are: it works on tensors.
            steps += [v2.PILToTensor(), v2.RandomErasing(self.erasing, value=255), v2.ToPILImage()]
        return v2.Compose(steps) if steps else v2.Identity()


class _RandomCrop:
    """A crop of random area, shape and place, at the picture's own resolution."""

    def __init__(self, smallest: float):
        self.scale = (smallest, 1.0)

    def __call__(self, image: Image.Image) -> Image.Image:
        top, left, height, width = v2.RandomResizedCrop.get_params(image, self.scale, _CROP_RATIOS)
        return v2.functional.crop(image, top, left, height, width)


def replayable(transform: Callable, image: Image.Image, seed: int) -> Image.Image:
    """Applies a random transform with a seed of its own; the global generator is as it was before."""
    generator = torch.default_generator  # of the CPU; `torch.manual_seed` and `fork_rng` would see to GPUs too
    state = generator.get_state()
    generator.manual_seed(seed)
    try:
        return transform(image)
    finally:
        generator.set_state(state)
