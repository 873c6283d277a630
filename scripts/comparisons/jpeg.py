"""A 12-megapixel JPEG decoded and made into 224 × 224 pixels, on one core."""

import io
from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from hf_clip.data.images import read_image
from hf_clip.data.pixels import eight_bit_pixels, shortest_side

from .data import make_picture
from .measuring import Measured, Row, alternate, needs_extra, rates
from .sides import Settings


def against_open_clip(settings: Settings) -> list[Row]:
    """Without augmentation, so that the two pictures can be compared."""
    try:
        from open_clip.transform import image_transform
    except ImportError as error:
        raise needs_extra(error) from error
    width, height = settings.choose((4000, 3000), (4000, 3000), (160, 120))
    file = io.BytesIO()
    make_picture(width, height, seed=0).save(file, "jpeg", quality=90)
    transform = image_transform(settings.pixels, is_train=False, mean=(0.0,) * 3, std=(1.0,) * 3)
    processor = settings.processor.image_processor

    def ours() -> Tensor:
        image, _ = read_image(file.getvalue(), at_least=shortest_side(processor))
        return eight_bit_pixels(processor, image)

    def theirs() -> Tensor:
        return transform(Image.open(io.BytesIO(file.getvalue())))

    count = settings.choose(8, 2, 1)
    times = _on_one_core(ours, theirs, count, settings)
    difference = (ours().float() - theirs() * 255).abs().mean().item()
    size = f"{width} × {height} JPEG to {settings.pixels} px"
    return [
        Row(
            f"{size} against open_clip, one core",
            rates("hf_clip, decoded at reduced scale", times["ours"], count, "pictures/s"),
            rates("open_clip image_transform", times["peer"], count, "pictures/s"),
            2.5,
        ),
        Row(
            f"{size}, mean difference from open_clip's",
            Measured("hf_clip, decoded at reduced scale", [difference], "/255"),
            None,
            2.0,
            at_least=False,
        ),
    ]


def _on_one_core(ours: Callable, theirs: Callable, count: int, settings: Settings) -> dict[str, list[float]]:
    def repeat(work: Callable) -> Callable[[], Any]:
        return lambda: [work() for _ in range(count)]

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        sides = {"ours": repeat(ours), "peer": repeat(theirs)}
        return alternate(sides, settings.rounds, torch.device("cpu"))
    finally:
        torch.set_num_threads(threads)
