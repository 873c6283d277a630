"""Folders of captioned pictures, made up: noise of all scales, which compresses like a photograph."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from hf_clip.data.sources import Source, open_source

from .sides import Settings


def make_picture(width: int, height: int, seed: int) -> Image.Image:
    """Noise whose strength falls with its frequency, as in photographs."""
    generator = np.random.default_rng(seed)
    total = np.zeros((height, width, 3), dtype=np.float32)
    cells = 4
    while cells < max(width, height):
        grain = generator.integers(0, 256, (max(cells * height // width, 1), cells, 3), dtype=np.uint8)
        layer = Image.fromarray(grain).resize((width, height), Image.Resampling.BICUBIC)
        total += (np.asarray(layer, dtype=np.float32) - 128) * (4 / cells) ** 0.6
        cells *= 2
    return Image.fromarray((total + 128).clip(0, 255).astype(np.uint8))


def make_source(
    folder: Path, settings: Settings, count: int, size: tuple[int, int], distinct: int = 64, suffix: str = "jpg"
) -> Source:
    """A folder of pictures with `metadata.jsonl`, opened; beyond `distinct` the files repeat, one pixel apart."""
    folder.mkdir(parents=True)
    pictures = [make_picture(*size, seed) for seed in range(min(count, distinct))]
    rows = []
    for number, caption in enumerate(settings.captions(count)):
        picture = pictures[number % distinct]
        picture.putpixel((number % size[0], number // size[0]), (number % 256, 0, 255))
        picture.save(folder / f"{number}.{suffix}", **({"quality": 90} if suffix == "jpg" else {}))
        rows.append({"file_name": f"{number}.{suffix}", "caption": caption})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return open_source(folder)
