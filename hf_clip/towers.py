"""Opens a tower by name and pairs two of them into a model with its processor."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoTokenizer,
    CLIPImageProcessor,
    PreTrainedModel,
    ResNetConfig,
)

from .configuration_hf_clip import HFClipConfig
from .errors import InputError, first_line
from .modeling_hf_clip import HFClipModel
from .processing_hf_clip import HFClipProcessor

# (layer type, blocks a stage, widths of the stages): table 1 of arXiv:1512.03385, and half of its smallest.
_RESNETS = {
    "resnet-10": ("basic", [1, 1, 1, 1], [64, 128, 256, 512]),
    "resnet-18": ("basic", [2, 2, 2, 2], [64, 128, 256, 512]),
    "resnet-34": ("basic", [3, 4, 6, 3], [64, 128, 256, 512]),
    "resnet-50": ("bottleneck", [3, 4, 6, 3], [256, 512, 1024, 2048]),
    "resnet-101": ("bottleneck", [3, 4, 23, 3], [256, 512, 1024, 2048]),
    "resnet-152": ("bottleneck", [3, 8, 36, 3], [256, 512, 1024, 2048]),
}
_IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
_POOLING_FILE = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean", "pooling_mode_lasttoken": "last"}


def create_model_and_processor(
    vision_model: str, text_model: str, *, image_size: int | None = None, **config: Any
) -> tuple[HFClipModel, HFClipProcessor]:
    """Pairs two towers; projections and temperature are new.

    Args:
        vision_model: a Hub id, a folder, or `scratch/resnet-50` (10, 18, 34, 101, 152) for random weights.
        text_model: a Hub id or a folder; a sentence-transformers folder brings its pooling along.
        image_size: side of the square that pictures are resized and cropped to; default: the tower's own (224 px from
            scratch).
        config: fields of [`HFClipConfig`]: `projection_dim`, `text_pooling`, `projection`, …

    Raises:
        InputError: for a tower that cannot be opened or a setting that does not exist, naming the choices.
    """
    unknown = set(config) - set(HFClipConfig.__dataclass_fields__)
    if unknown:
        raise InputError(f"unknown setting {unknown.pop()!r}: not a field of HFClipConfig")
    config = {"text_pooling": _sentence_transformers_pooling(text_model)} | {
        name: value for name, value in config.items() if value is not None
    }
    vision_tower, image_processor = _open_vision_tower(vision_model, image_size)
    try:
        model = HFClipModel.from_vision_text_pretrained(
            vision_model=vision_tower, text_model_name_or_path=text_model, **config
        )
        tokenizer = AutoTokenizer.from_pretrained(text_model)
    except OSError as error:
        raise _cannot_open("text_model", text_model, error) from error
    except (TypeError, KeyError) as error:
        raise InputError(
            f"vision_model {vision_model!r} is no image tower or text_model {text_model!r} is no text tower: "
            f"were they exchanged? ({first_line(error)})"
        ) from error
    except ValueError as error:
        raise InputError(first_line(error)) from error
    return model, HFClipProcessor(image_processor=image_processor, tokenizer=tokenizer)


def _open_vision_tower(name: str, image_size: int | None) -> tuple[PreTrainedModel, Any]:
    if name.startswith("scratch/"):
        tower = AutoModel.from_config(_resnet_config(name.removeprefix("scratch/")))
        return tower, square_image_processor(image_size or 224)
    try:
        tower = AutoModel.from_pretrained(name, config=AutoConfig.from_pretrained(name), dtype=torch.float32)
        image_processor = AutoImageProcessor.from_pretrained(name)
    except OSError as error:
        raise _cannot_open("vision_model", name, error) from error
    except ValueError as error:
        raise InputError(f"vision_model {name!r}: {first_line(error)}") from error
    return tower, image_processor if image_size is None else square_image_processor(image_size, image_processor)


def _resnet_config(name: str) -> ResNetConfig:
    if name not in _RESNETS:
        raise InputError(
            f"unknown tower 'scratch/{name}': choose one of {', '.join(f'scratch/{n}' for n in _RESNETS)}"
        )
    layer_type, depths, widths = _RESNETS[name]
    return ResNetConfig(layer_type=layer_type, depths=depths, hidden_sizes=widths)


def square_image_processor(size: int, like: Any = None) -> CLIPImageProcessor:
    """Resizes the shorter side to `size` pixels, crops the centre square, and normalises as `like` (or ImageNet)."""
    statistics = {name: getattr(like, name) for name in _IMAGENET} if like is not None else _IMAGENET
    return CLIPImageProcessor(
        size={"shortest_edge": size}, crop_size={"height": size, "width": size}, do_convert_rgb=True, **statistics
    )


def _sentence_transformers_pooling(text_model: str) -> str | None:
    """The pooling that a sentence-transformers folder was trained with, if it is one."""
    file = Path(text_model, "1_Pooling", "config.json")
    if not file.is_file():
        return None
    import json

    modes = json.loads(file.read_text())
    chosen = [pooling for mode, pooling in _POOLING_FILE.items() if modes.get(mode)]
    return chosen[0] if len(chosen) == 1 else None


def _cannot_open(setting: str, name: str, error: OSError) -> InputError:
    return InputError(
        f"{setting} {name!r} cannot be opened: give a Hub id, a folder with config.json and weights, or for pictures "
        f"scratch/resnet-10 … scratch/resnet-152 ({first_line(error)})"
    )
