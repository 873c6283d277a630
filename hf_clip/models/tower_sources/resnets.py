"""ResNets without pretrained weights, by their depth."""

from pathlib import Path

from transformers import ResNetConfig, ResNetModel

from ...core.errors import InputError
from ...core.public import FROM_SCRATCH
from ..image_processors import square_image_processor
from .source import ImageTower, TowerSource

# (layer type, blocks a stage, widths of the stages): table 1 of arXiv:1512.03385, and half of its smallest.
RESNETS = {
    "resnet-10": ("basic", [1, 1, 1, 1], [64, 128, 256, 512]),
    "resnet-18": ("basic", [2, 2, 2, 2], [64, 128, 256, 512]),
    "resnet-34": ("basic", [3, 4, 6, 3], [64, 128, 256, 512]),
    "resnet-50": ("bottleneck", [3, 4, 6, 3], [256, 512, 1024, 2048]),
    "resnet-101": ("bottleneck", [3, 4, 23, 3], [256, 512, 1024, 2048]),
    "resnet-152": ("bottleneck", [3, 8, 36, 3], [256, 512, 1024, 2048]),
}


def resnet_config(name: str) -> ResNetConfig:
    """
    Args:
        name: one of `RESNETS`.
    """
    layer_type, depths, widths = RESNETS[name]
    return ResNetConfig(layer_type=layer_type, depths=depths, hidden_sizes=widths)


class ResNets(TowerSource):
    prefix = ""  # a word alone, behind "scratch/"
    names = {"vision": "scratch/resnet-10 … scratch/resnet-152"}

    def holds(self, name: str, pretrained: bool) -> bool:
        return not pretrained and "/" not in name and not Path(name).exists()

    def open_image_tower(self, name: str, *, pretrained: bool, pooling: str | None) -> ImageTower:
        if name not in RESNETS:
            raise InputError(
                f"unknown tower '{FROM_SCRATCH}{name}': choose one of "
                f"{', '.join(FROM_SCRATCH + known for known in RESNETS)}, or {FROM_SCRATCH} before any other tower"
            )
        return ImageTower(ResNetModel(resnet_config(name)), square_image_processor(224))
