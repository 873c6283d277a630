"""Carries CLIP, SigLIP and dual-encoder checkpoints of transformers over into models with the same logits."""

import contextlib
import copy
import os
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import (
    AutoTokenizer,
    CLIPModel,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    SiglipModel,
    VisionTextDualEncoderModel,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from ..core.atomic import staged
from ..core.errors import InputError, first_line
from ..core.public import is_path
from .configuration_hf_clip import HFClipConfig
from .image_processors import open_image_processor
from .modeling_hf_clip import HFClipModel
from .processing_hf_clip import HFClipProcessor, fixed_length, tokenizer_limit
from .reading import LoadReport, load_with_report, read_json, without_load_report
from .text_lengths import TextPolicy, fit_policy
from .towers import open_model_and_processor

# Of the largest logit: what fp32 leaves of sums that were added in another order.
TOLERANCE = 1e-5

DualEncoder = CLIPModel | SiglipModel | VisionTextDualEncoderModel
_CLASSES: dict[str, type[DualEncoder]] = {
    "clip": CLIPModel,
    "siglip": SiglipModel,
    "vision-text-dual-encoder": VisionTextDualEncoderModel,
}
_CHOICES = "CLIPModel, SiglipModel and VisionTextDualEncoderModel"
_CAPTIONS = ["a cat", "a photo of two dogs on a beach", "red", "the plan of a house, drawn in pencil"]


def convert_model_and_processor(name: str) -> tuple[HFClipModel, HFClipProcessor]:
    """A checkpoint of `CLIPModel`, `SiglipModel` or `VisionTextDualEncoderModel` as an HFClip with the same logits,
    on the CPU, in fp32 and in evaluation mode.

    Towers, projections, temperature and bias are the checkpoint's; the temperature has no cap, as the checkpoint's
    had none. Texts are padded as it was trained: SigLIP's to a fixed length, the others' to the longest.

    Args:
        name: a Hub id or a folder.

    Raises:
        InputError: for what cannot be carried over, naming it, or what gives other logits then.
    """
    source, processor = open_checkpoint(name)
    expected = example_logits(source, processor)
    model = convert_model(source)
    relative_difference(example_logits(model, processor), expected)
    return model, processor


def convert_model(source: DualEncoder) -> HFClipModel:
    """The same for a model that is already built; its weights are copied, in its precision and on its device.

    Raises:
        InputError: for a model of another class.
    """
    if isinstance(source, str | Path):
        raise InputError(f"{str(source)!r} is a name: open and convert it with convert_model_and_processor")
    if type(source) not in _CLASSES.values():
        raise InputError(f"a {type(source).__name__} cannot be carried over: only {_CHOICES} can")
    if source._hf_peft_config_loaded:
        raise InputError(f"a {type(source).__name__} with an adapter cannot be carried over: merge it first")
    vision_model, text_model = copy.deepcopy(source.vision_model), copy.deepcopy(source.text_model)
    for tower in (vision_model, text_model):
        tower.config._name_or_path = _origin(source.config, tower.config)
    model = HFClipModel.from_vision_text_pretrained(
        vision_model=vision_model,
        text_model=text_model,
        vision_pooling="pooler",
        text_pooling="pooler",
        logit_scale_max=None,
        **_settings(source.config),
    )
    for projection in (model.visual_projection, model.text_projection):
        projection.to(source.dtype)
    model.to(source.device)  # type: ignore[arg-type]
    weights = source.state_dict()
    weights["logit_scale"] = weights["logit_scale"].reshape(1)
    model.load_state_dict(weights)  # strictly: every weight has its place, under the same name
    return model.eval()


@dataclass(frozen=True)
class Conversion:
    """
    Attributes:
        folder: where the model lies.
        kind: the checkpoint's class.
        difference: of its logits on an example from the checkpoint's, as a part of the largest.
    """

    folder: Path
    kind: str
    difference: float


def convert_into(folder: str | Path, name: str) -> Conversion:
    """Writes a checkpoint into a new folder as an HFClip with the same logits.

    Args:
        name: a Hub id or a folder.

    Raises:
        InputError: see [`convert_model_and_processor`]; a folder that holds something, before anything is loaded.
    """
    folder = _new_folder(Path(folder))
    source, processor = open_checkpoint(name)
    expected = example_logits(source, processor)
    model = convert_model(source)
    with staged(folder) as aside:
        model.save_pretrained(aside)
        processor.save_pretrained(aside)
        # What was saved, not what is in memory: that is what others will open.
        difference = relative_difference(example_logits(*open_model_and_processor(str(aside))), expected)
    return Conversion(folder, type(source).__name__, difference)


def _new_folder(folder: Path) -> Path:
    """Refused before anything is loaded, rather than after."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"output_dir {folder} is a file: give a folder")
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"output_dir {folder} is not empty: give another, so that nothing in it is overwritten")
    above = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise InputError(f"output_dir {folder} cannot be made: {above} is no folder that can be written to")
    return folder


def _origin(*configs: PreTrainedConfig) -> str:
    """The first Hub id that they remember; a folder's path is nobody else's business, and would be saved."""
    names = [config._name_or_path for config in configs]
    return next((name for name in names if name and not is_path(name)), "")


def _settings(config: PreTrainedConfig) -> dict[str, Any]:
    """The fields of [`HFClipConfig`] beside the towers'."""
    if config.model_type == "siglip":
        return {"loss": "sigmoid", "projection": "none", "projection_dim": config.text_config.projection_size}
    return {"projection_dim": config.projection_dim, "logit_scale_init_value": config.logit_scale_init_value}


def open_checkpoint(name: str) -> tuple[DualEncoder, HFClipProcessor]:
    """A checkpoint as transformers opens it, in fp32 and in evaluation mode, and the processor it is to have.

    Raises:
        InputError: for what cannot be carried over, naming it.
    """
    with _input_errors(name), without_load_report():
        source_class = _source_class(name)
        source, report = load_with_report(source_class, name, dtype=torch.float32)
        _refuse_other_weights(name, source_class, report)
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        if not tokenizer.get_vocab().keys() - set(tokenizer.all_special_tokens):
            raise InputError(f"{name!r} has no tokenizer: save its processor beside the weights")
        return source, HFClipProcessor(
            image_processor=open_image_processor(name), tokenizer=tokenizer, **vars(_text_policy(source, tokenizer))
        )


def _text_policy(source: DualEncoder, tokenizer: PreTrainedTokenizerBase) -> TextPolicy:
    fixed = fixed_length(source.text_model.config)
    told = fixed if tokenizer_limit(tokenizer) is None else None
    policy = TextPolicy("longest" if fixed is None else "max_length", told)
    return fit_policy(policy, source.text_model, tokenizer)


# ---- what is refused ----------------------------------------------------------------------------------------------


def _source_class(name: str) -> type[DualEncoder]:
    """The class of a checkpoint.

    Raises:
        InputError: for one that cannot be carried over, naming its type.
    """
    config = read_json(name, "config.json")
    kind = config.get("model_type")
    if read_json(name, "adapter_config.json"):
        raise InputError(f"{name!r} is a PEFT adapter: merge it into its model (merge_and_unload) and save that")
    if kind is None and read_json(name, "open_clip_config.json"):
        raise InputError(
            f"{name!r} is an open_clip model, which is not in transformers' format: give a repository of the same "
            "model whose config.json has a model_type"
        )
    if kind is None:
        PreTrainedConfig.get_config_dict(name)  # says what a Hub id or a connection lacks
        raise InputError(f"{name!r} has no config.json with a model_type: give a checkpoint of {_CHOICES}")
    if kind == HFClipConfig.model_type:
        raise InputError(f"{name!r} is an HFClip model already: hf-clip train --model {name} goes on from it")
    if kind not in _CLASSES:
        raise InputError(
            f"{name!r} is of the type {kind}, {_why_not(kind, config)}: only {_CHOICES} can be carried over"
        )
    for part in (config, config.get("text_config") or {}, config.get("vision_config") or {}):
        if code := [code for key, code in (part.get("auto_map") or {}).items() if "Model" in key]:
            raise InputError(f"{name!r} needs code of its own ({code[0]}), which cannot be carried over")
        if part is not config and part.get("model_type", kind) not in CONFIG_MAPPING:
            raise InputError(
                f"{name!r} has a tower of the type {part['model_type']}, which transformers does not know"
            )
    if "quantization_config" in config:
        raise InputError(f"{name!r} has quantized weights, which cannot be carried over: give the model before that")
    return _CLASSES[kind]


def _why_not(kind: str, config: dict[str, Any]) -> str:
    if kind == "siglip2":
        return "which reads pictures of any shape (NaFlex; SigLIP 2 of one resolution is a SiglipModel)"
    if kind in CONFIG_MAPPING and not {"text_config", "vision_config", "image_config"}.intersection(config):
        return "which is no pair (hf-clip train takes a tower alone, as --vision_model or --text_model)"
    return "which needs code of its own" if "auto_map" in config else "which computes its logits in its own way"


def _refuse_other_weights(name: str, source_class: type[DualEncoder], report: LoadReport) -> None:
    """A checkpoint of other weights than its class has: transformers would draw the lacking ones anew."""
    mismatched = {key for key, *_ in report["mismatched_keys"]}
    faults = {
        "lacks": report["missing_keys"],
        "has another shape of": mismatched,
        "holds what has no place in it:": report["unexpected_keys"],
    }
    for fault, keys in faults.items():
        if keys:
            raise InputError(
                f"{name!r} is no whole {source_class.__name__}: it {fault} {min(keys)!r} ({len(keys)} in all)"
            )


@contextlib.contextmanager
def _input_errors(name: str) -> Iterator[None]:
    try:
        yield
    except (InputError, AttributeError, NameError):  # the latter are faults of a program, not of a folder
        raise
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{name!r}: its weights are no plain tensors, and code that they may hold is not run: save it again as "
            "safetensors"
        ) from error
    except Exception as error:  # a damaged folder fails in as many ways as it has files
        raise InputError(
            f"{name!r} cannot be carried over: give the Hub id or folder of a checkpoint of {_CHOICES}, with its "
            f"tokenizer and image processor ({first_line(error)})"
        ) from error


# ---- whether it is the same ---------------------------------------------------------------------------------------


def example_logits(model: PreTrainedModel, processor: HFClipProcessor) -> Tensor:
    """(4 pictures, 4 captions): what a model gives for pictures of noise and captions of unequal length.

    Raises:
        InputError: it gives none, or such that are not finite.
    """
    noise = np.random.default_rng(0)
    pictures = [Image.fromarray(noise.integers(0, 256, (height, 9, 3), dtype=np.uint8)) for height in (5, 7, 9, 12)]
    pictures = [picture.resize((80, 80), Image.Resampling.BICUBIC) for picture in pictures]
    config = model.config
    kind = f"{type(model).__name__} of {config.vision_config.model_type} and {config.text_config.model_type}"
    try:
        inputs = processor(images=pictures, text=_CAPTIONS, return_tensors="pt")
        if processor.text_padding == "max_length":  # the padding is read, so there is no mask
            inputs.pop("attention_mask", None)
        with torch.inference_mode():
            logits = model(**inputs).logits_per_image.float()
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"the {kind} does not run on an example, in transformers itself ({first_line(error)})"
        ) from error
    if not logits.isfinite().all():
        raise InputError(f"the logits of the {kind} are not finite: its weights are damaged")
    return logits


def relative_difference(logits: Tensor, expected: Tensor) -> float:
    """The largest difference of two logits, as a share of the largest of all.

    Raises:
        InputError: it is larger than `TOLERANCE`: the model computes something else.
    """
    difference = float((logits - expected).abs().max() / expected.abs().max())
    if difference > TOLERANCE:
        raise InputError(
            f"the logits differ by {difference:.1e} of the largest, where {TOLERANCE:.0e} is allowed: this checkpoint "
            "cannot be carried over"
        )
    return difference


__all__ = [
    "TOLERANCE",
    "Conversion",
    "convert_into",
    "convert_model",
    "convert_model_and_processor",
    "example_logits",
    "open_checkpoint",
    "relative_difference",
]
