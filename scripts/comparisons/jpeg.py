"""JPEGs made into 224 × 224 pixels, on one core: decoded at reduced scale as in training, whole as in evaluation."""

import io
from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from hf_clip.data.images import read_image
from hf_clip.data.pixels import eight_bit_pixels, processed_pixels, shortest_side

from .data import make_picture
from .measuring import Measured, Row, alternate, needs_extra, rates
from .sides import Settings


def against_open_clip(settings: Settings) -> list[Row]:
    """Without augmentation, so that the two pictures can be compared."""
    width, height = settings.choose((4000, 3000), (4000, 3000), (160, 120))
    content = _jpeg(width, height)
    transform = _open_clip_transform(settings, mean=(0.0,) * 3, std=(1.0,) * 3)
    processor = settings.processor.image_processor

    def ours() -> Tensor:
        image, _ = read_image(content, at_least=shortest_side(processor))
        return eight_bit_pixels(processor, image)

    def theirs() -> Tensor:
        return transform(Image.open(io.BytesIO(content)))

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


def evaluation_against_open_clip(settings: Settings) -> list[Row]:
    """As `hf-clip evaluate` and `embed` open an image, with its digest: to the bit what the image processor gives."""
    processor = settings.processor.image_processor
    transform = _open_clip_transform(settings, mean=tuple(processor.image_mean), std=tuple(processor.image_std))
    rows = []
    for width, height in settings.choose([(640, 480), (4000, 3000)], [(640, 480), (4000, 3000)], [(160, 120)]):
        content = _jpeg(width, height)

        def ours(content: bytes = content) -> Tensor:
            return processed_pixels(processor, read_image(content)[0])

        def theirs(content: bytes = content) -> Tensor:
            return transform(Image.open(io.BytesIO(content)))

        expected = processor(images=Image.open(io.BytesIO(content)), return_tensors="pt")["pixel_values"][0]
        if not torch.equal(ours(), expected):
            raise ValueError(f"pixels of a {width} × {height} JPEG are not those of the image processor")
        count = settings.choose(8 if width > 1000 else 100, 2, 1)
        times = _on_one_core(ours, theirs, count, settings)
        rows.append(
            Row(
                f"{width} × {height} JPEG for evaluation against open_clip, one core",
                rates("hf_clip, every pixel, those of the image processor", times["ours"], count, "images/s"),
                rates("open_clip image_transform", times["peer"], count, "images/s"),
                1.0,
            )
        )
    return rows


def _jpeg(width: int, height: int) -> bytes:
    file = io.BytesIO()
    make_picture(width, height, seed=0).save(file, "jpeg", quality=90)
    return file.getvalue()


def _open_clip_transform(settings: Settings, mean: tuple[float, ...], std: tuple[float, ...]) -> Callable:
    try:
        from open_clip.transform import image_transform
    except ImportError as error:
        raise needs_extra(error) from error
    return image_transform(settings.pixels, is_train=False, mean=mean, std=std)


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
