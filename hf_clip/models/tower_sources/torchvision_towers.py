"""torchvision's ResNets, as transformers' ResNet that computes what they do."""

import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL.Image import Resampling
from transformers import CLIPImageProcessor, ResNetModel

from ...core.errors import InputError, first_line
from .resnets import RESNETS, resnet_config
from .source import ImageTower, TowerSource

_ARCHITECTURES = {name.replace("-", ""): name for name in RESNETS if name != "resnet-10"}


if TYPE_CHECKING:
    from torchvision.models import WeightsEnum
    from torchvision.transforms._presets import ImageClassification


class Torchvision(TowerSource):
    prefix = "torchvision/"
    names = {"vision": "torchvision/…"}

    def open_image_tower(self, name: str, *, pretrained: bool, pooling: str | None) -> ImageTower:
        import torchvision

        architecture, _, weights_name = name.partition(":")
        if architecture not in _ARCHITECTURES:
            choices = ", ".join(f"torchvision/{known}" for known in _ARCHITECTURES)
            raise InputError(f"unknown tower 'torchvision/{architecture}': choose one of {choices}")
        tower = ResNetModel(resnet_config(_ARCHITECTURES[architecture]))
        known = torchvision.models.get_model_weights(architecture).__members__
        weights = known.get(weights_name or "DEFAULT", known["IMAGENET1K_V1"])
        if pretrained:
            is_file = weights_name and weights_name not in known
            state = _read_weights(weights_name, known) if is_file else _download_weights(name, weights)
            _load_weights(tower, state, f"torchvision/{name}")
        return ImageTower(tower, torchvision_image_processor(weights.transforms()))


def torchvision_image_processor(transform: "ImageClassification") -> CLIPImageProcessor:
    return CLIPImageProcessor(
        size={"shortest_edge": transform.resize_size[0]},
        crop_size={"height": transform.crop_size[0], "width": transform.crop_size[0]},
        resample=Resampling[transform.interpolation.name],
        image_mean=list(transform.mean),
        image_std=list(transform.std),
        do_convert_rgb=True,
    )


def _download_weights(name: str, weights: "WeightsEnum") -> dict[str, torch.Tensor]:
    from huggingface_hub.constants import HF_HUB_OFFLINE

    cached = Path(torch.hub.get_dir(), "checkpoints", Path(weights.url).name)
    try:
        if HF_HUB_OFFLINE and not cached.exists():
            raise OSError("HF_HUB_OFFLINE is set")
        return weights.get_state_dict(progress=False, check_hash=True)
    except OSError as error:  # urllib's errors are among them
        raise InputError(
            f"the weights of torchvision/{name} cannot be downloaded ({first_line(error)}): put {weights.url} at "
            f"{cached}, or give a file of weights as torchvision/{name.partition(':')[0]}:path/to/file.pth"
        ) from error


def _read_weights(file: str, choices: Iterable[str]) -> dict[str, torch.Tensor]:
    """A state dict, or one that a training checkpoint holds, by torchvision's names."""
    if not Path(file).is_file():
        raise InputError(f"{file!r} is neither a file nor one of torchvision's weights: {', '.join(choices)}")
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise InputError(
            f"{file} is no file of plain tensors, and code that it may hold is not run: save model.state_dict()"
        ) from error
    for key in ("state_dict", "model"):
        state = state[key] if isinstance(state, dict) and isinstance(state.get(key), dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise InputError(f"{file} holds no state dict: save model.state_dict()")
    return {key.removeprefix("module."): value for key, value in state.items()}


def _load_weights(tower: ResNetModel, state: dict[str, torch.Tensor], source: str) -> None:
    expected = tower.state_dict()
    theirs = {_torchvision_key(key): key for key in expected}
    state = {key: value for key, value in state.items() if not key.startswith("fc.")}
    counts = {key for key in theirs if key.endswith("num_batches_tracked")}  # absent from torchvision's older files
    faults = {"lacks": theirs.keys() - state.keys() - counts, "has an unknown": state.keys() - theirs.keys()}
    faults["has another shape of"] = {
        key for key in theirs.keys() & state.keys() if state[key].shape != expected[theirs[key]].shape
    }
    for fault, keys in faults.items():
        if keys:
            raise InputError(f"{source} {fault} {sorted(keys)[0]!r} ({len(keys)} in all): of another architecture?")
    tower.load_state_dict(expected | {theirs[key]: value for key, value in state.items()})


def _torchvision_key(key: str) -> str:
    """torchvision's name for a weight of transformers' ResNet."""
    *path, kind, leaf = key.split(".")
    if path[0] == "embedder":
        return f"{'conv1' if kind == 'convolution' else 'bn1'}.{leaf}"
    stage, block = int(path[2]) + 1, path[4]
    if path[5] == "shortcut":
        return f"layer{stage}.{block}.downsample.{0 if kind == 'convolution' else 1}.{leaf}"
    return f"layer{stage}.{block}.{'conv' if kind == 'convolution' else 'bn'}{int(path[6]) + 1}.{leaf}"
