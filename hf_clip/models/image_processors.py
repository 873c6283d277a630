"""Image processors: a square of any size, timm's transform, and what a folder or Hub repository says."""

from collections.abc import Mapping
from typing import Any

from PIL.Image import Resampling
from transformers import AutoImageProcessor, BaseImageProcessor, CLIPImageProcessor

from .reading import reading

_IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


def open_image_processor(name: str) -> BaseImageProcessor:
    """What a tower's folder or Hub repository says of its pictures; no code of its own is run."""
    with reading(name, "image processor"):
        processor = AutoImageProcessor.from_pretrained(name, trust_remote_code=False)
    if type(processor).__name__ == "TimmWrapperImageProcessor":
        return timm_image_processor(processor.data_config)
    return processor


def square_image_processor(size: int, like: BaseImageProcessor | None = None) -> CLIPImageProcessor:
    """Resizes the shorter side to `size` pixels, crops the centre square, and normalises as `like` (or ImageNet)."""
    said = {name: getattr(like, name, None) for name in (*_IMAGENET, "resample", "do_normalize", "rescale_factor")}
    return CLIPImageProcessor(
        size={"shortest_edge": size},
        crop_size={"height": size, "width": size},
        do_convert_rgb=True,
        **(_IMAGENET | {name: value for name, value in said.items() if value is not None}),
    )


def timm_image_processor(data: Mapping[str, Any]) -> CLIPImageProcessor:
    """timm's evaluation transform as an image processor that a saved folder can hold."""
    _, height, width = data["input_size"]
    scaled = [int(side / data["crop_pct"]) for side in (height, width)]
    exact = data["crop_mode"] == "squash" or height != width
    return CLIPImageProcessor(
        size={"height": scaled[0], "width": scaled[1]} if exact else {"shortest_edge": scaled[0]},
        crop_size={"height": height, "width": width},
        resample=getattr(Resampling, data["interpolation"].upper(), Resampling.BICUBIC),
        image_mean=list(data["mean"]),
        image_std=list(data["std"]),
        do_convert_rgb=True,
    )
