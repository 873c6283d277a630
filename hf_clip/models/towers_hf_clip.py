"""A tower of any kind: what it reads, how it is built and opened, and which of its parameters nothing depends on."""

from .requirements_hf_clip import TRANSFORMERS  # noqa: F401 – checks the release, before what an older one lacks

# isort: split

import copy
import hashlib
import inspect
import json
from collections.abc import Iterable
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import (
    MODEL_FOR_TEXT_ENCODING_MAPPING,
    MODEL_MAPPING,
    AutoModel,
    PreTrainedConfig,
    PreTrainedModel,
)

from .configuration_hf_clip import HFClipConfig
from .pooling_hf_clip import last_map_of, pool


def _tower_class(config: PreTrainedConfig) -> type[PreTrainedModel]:
    """The class of a tower's configuration: the encoder alone, where transformers has it as a class (T5)."""
    classes: Any = MODEL_FOR_TEXT_ENCODING_MAPPING.get(type(config), None) or MODEL_MAPPING.get(type(config), None)
    if classes is None:  # half of a pair, which AutoModel does not build alone (SigLIP's text tower)
        classes = getattr(transformers, type(config).__name__.removesuffix("Config") + "Model", None)
    if classes is None:
        raise ValueError(f"transformers has no tower for the model type {config.model_type!r}")
    return classes[0] if isinstance(classes, (list, tuple)) else classes


def _encoder(model: PreTrainedModel) -> PreTrainedModel:
    """Of an encoder-decoder without such a class (BART), its encoder."""
    has_class = type(model.config) in MODEL_FOR_TEXT_ENCODING_MAPPING
    return model.get_encoder() if model.config.is_encoder_decoder and not has_class else model


def _tower_arguments(config: PreTrainedConfig, pooling: str) -> dict[str, bool]:
    """Leaves out a pooler that would never be used: under DDP its parameters would wait for gradients forever."""
    accepted = inspect.signature(_tower_class(config).__init__).parameters
    return {"add_pooling_layer": False} if pooling != "pooler" and "add_pooling_layer" in accepted else {}


def _new_tower(config: PreTrainedConfig, pooling: str) -> PreTrainedModel:
    tower_class = _tower_class(config)
    if not (tower_class._supports_sdpa or tower_class._supports_flash_attn):
        config._attn_implementation = "eager"  # a tower without attention refuses any other choice
    return _encoder(tower_class._from_config(config, **_tower_arguments(config, pooling)))


def build_tower(config: PreTrainedConfig, pooling: str) -> PreTrainedModel:
    """A tower of random weights, without what the pooling leaves unused."""
    tower = drop_pooler(_new_tower(config, pooling), pooling)
    return freeze_unused(tower, _measure(tower.config, pooling)[1])


def load_tower(
    name: str, side: str, config: PreTrainedConfig, pooling: str, **kwargs: Any
) -> tuple[PreTrainedModel, list[str]]:
    """A pretrained tower, and the names of its parameters that the checkpoint lacks.

    Of a checkpoint that holds both (CLIP, SigLIP, a trained HFClip), the tower of one `side`: "text" or "vision".
    """
    if tower_config(config, side) is config:
        arguments = _tower_arguments(config, pooling) | {"config": config} | kwargs
        opened: Any = _tower_class(config).from_pretrained(name, output_loading_info=True, **arguments)
        model, report = opened
        tower, prefix = _encoder(model), ""
    else:
        opened = AutoModel.from_pretrained(name, config=config, output_loading_info=True, **kwargs)
        model, report = opened
        part, prefix = getattr(model, f"{side}_model", None), f"{side}_model."
        if not isinstance(part, PreTrainedModel):
            raise ValueError(f"a {config.model_type} model has no {side} tower that stands alone")
        tower = part
    freeze_unused(drop_pooler(tower, pooling), _measure(tower.config, pooling)[1])
    learning = {id(p) for p in tower.parameters() if p.requires_grad}
    lacking = [key for key, p in model.named_parameters() if key in report["missing_keys"] and id(p) in learning]
    return tower, [key.removeprefix(prefix) for key in lacking]


def tower_config(config: PreTrainedConfig, side: str) -> PreTrainedConfig:
    """The configuration of one side ("text" or "vision") of a checkpoint that holds both; else the whole."""
    return getattr(config, f"{side}_config", None) or config


def settle_tower(config: HFClipConfig, side: str, tower: PreTrainedModel | None = None) -> PreTrainedModel:
    """The tower of one `side` ("text" or "vision") of a pair: a new one unless it is given, frozen where nothing of
    its pooled output depends on it. `config` learns the width of that output and the names of those parameters; what
    it knows of this very tower already is taken as it is, so that a saved pair opens without a second one."""
    pooling = getattr(config, f"{side}_pooling")
    if tower is not None:
        setattr(config, f"{side}_config", tower.config)
    part = getattr(config, f"{side}_config")
    if getattr(config, f"{side}_width") is None:
        refuse_other_input(part, side)
        _note_measures(config, side)
    tower = drop_pooler(_new_tower(part, pooling) if tower is None else tower, pooling)
    known = getattr(config, f"{side}_unused") or {}
    if known.get("measured_for") != _digest(tower, pooling, known.get("names")):
        _note_measures(config, side)
    return freeze_unused(tower, getattr(config, f"{side}_unused")["names"])


def _note_measures(config: HFClipConfig, side: str) -> None:
    part, pooling = getattr(config, f"{side}_config"), getattr(config, f"{side}_pooling")
    width, names, digest = _measure(part, pooling)
    setattr(config, f"{side}_width", width)
    setattr(config, f"{side}_unused", {"names": names, "measured_for": digest})


def drop_pooler(tower: PreTrainedModel, pooling: str) -> PreTrainedModel:
    """The tower without a pooler that the pooling leaves unused. Nothing is hidden from ViT-MAE, which leaves out
    three quarters of an image at random, in evaluation too, unless told otherwise."""
    if tower.config.model_type == "vit_mae":
        tower.config.mask_ratio = 0.0
    if _tower_arguments(tower.config, pooling) and getattr(tower, "pooler", None) is not None:
        tower.register_module("pooler", None)
    return tower


def freeze_unused(tower: PreTrainedModel, names: Iterable[str]) -> PreTrainedModel:
    """Freezes what never gets a gradient (a mask token, a last norm beside the pooling, …): under DDP it would be
    waited for forever. The tower remembers it, for what replaces its parameters."""
    tower.unused_parameters = unused = frozenset(names)  # type: ignore[assignment]
    for name, parameter in tower.named_parameters() if unused else ():
        if name in unused:
            parameter.requires_grad_(False)
    return tower


def _measure(config: PreTrainedConfig, pooling: str) -> tuple[int, list[str], str]:
    """The width of a tower's pooled output, the names of its parameters that nothing of it depends on, and a digest of
    what that is true of: by a forward pass, since configurations tell none of it reliably."""
    example, pooled = _run_example(config, pooling)
    leaves = _leaves(pooled)
    unused = {name for name, p in example.named_parameters() if p not in leaves}
    for tied in example.all_tied_weights_keys.items():  # inside `from_pretrained` they are two parameters still
        unused -= set() if unused.issuperset(tied) else set(tied)
    return pooled.shape[-1], sorted(unused), _digest(example, pooling, sorted(unused))


def _digest(tower: PreTrainedModel, pooling: str, unused: list[str] | None) -> str:
    """Of the names of unused parameters and of what decides them: the pooling, the tower's own settings as far as
    they are no defaults (so that one that a later transformers adds changes nothing), and its parameters' names."""
    inherited = {*PreTrainedConfig.__dataclass_fields__, "_name_or_path", "output_attentions", "model_type"}
    own, usual = (
        {name: value for name, value in json.loads(json.dumps(fields, default=str)).items() if name not in inherited}
        for fields in (tower.config.to_dict(), _default_fields(type(tower.config)))
    )
    changed = {name: value for name, value in own.items() if name not in usual or value != usual[name]}
    names = [name for name, _ in tower.named_parameters(remove_duplicate=False)]
    return hashlib.sha256(json.dumps([unused, pooling, changed, names], sort_keys=True).encode()).hexdigest()[:16]


def _default_fields(kind: type[PreTrainedConfig]) -> dict[str, Any]:
    try:
        return kind().to_dict()
    except Exception:  # somebody's own, that has no defaults: all of its settings count
        return {}


def _leaves(tensor: Tensor) -> set[Tensor]:
    """The parameters that a tensor was computed from."""
    found, seen, waiting = set(), set(), [tensor.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            found |= {node.variable} if hasattr(node, "variable") else set()
            waiting += [before for before, _ in node.next_functions]
    return found


_INPUTS = {"text": "input_ids", "vision": "pixel_values"}
_SIDES = {"text": "a text tower", "vision": "an image tower"}


def refuse_other_input(config: PreTrainedConfig, side: str) -> None:
    """
    Args:
        side: "text" or "vision", of which the tower is to be.

    Raises:
        ValueError: a tower that reads something else, or needs something else beside it, saying what.
    """
    kind, (wanted, *more) = config.model_type, _inputs_of(config)
    if "spatial_shapes" in more:
        raise ValueError(
            f"a {kind} model reads patches of images of any shape (NaFlex), with a mask and their shapes, where an "
            "image tower is given images of one size: take a SigLIP 2 of one resolution (google/siglip2-…-patch16-256)"
        )
    if side == "vision" and (getattr(config, "num_frames", None) or 0) > 1:
        raise ValueError(f"a {kind} model reads videos, of {config.num_frames} frames, and no single images")
    if wanted == _INPUTS[side] and not more:
        return
    other = next((other for other, name in _INPUTS.items() if name == wanted and not more and other != side), None)
    if other is None or kind == "imagegpt":  # whose input_ids are the colors of an image
        raise ValueError(f"a {kind} model reads {' and '.join((wanted, *more))}, and {_SIDES[side]} {_INPUTS[side]}")
    raise ValueError(f"a {kind} model is no {_SIDES[side].split(' ', 1)[1]} but {_SIDES[other]}: were they exchanged?")


def _inputs_of(config: PreTrainedConfig) -> list[str]:
    """The names of what a tower's forward is given first, and of whatever else it cannot do without."""
    _, first, *others = inspect.signature(_tower_class(config).forward).parameters.values()
    required = [p for p in others if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    return [parameter.name for parameter in (first, *required)]


def _run_example(config: PreTrainedConfig, pooling: str) -> tuple[PreTrainedModel, Tensor]:
    """A new tower and what it pools of an example, without memory where the tower allows it.

    Raises:
        ValueError: the tower does not run, in its own words.
    """
    config = copy.deepcopy(config)
    config.output_attentions = False  # some towers refuse it
    images = _inputs_of(config)[0] == "pixel_values"

    def run() -> tuple[PreTrainedModel, Tensor]:
        with torch.enable_grad():
            tower = _new_tower(config, pooling).eval()
            if not images:
                return tower, pool(_call(tower, input_ids=torch.zeros(1, 4, dtype=torch.long)), pooling)
            pixels = example_pixels(config, 1).to(tower.dtype)
            return tower, pool(last_map_of(_call(tower, pixel_values=pixels)), pooling)

    try:
        with torch.device("meta"):
            return run()
    except (NotImplementedError, RuntimeError):  # it looks at values, which the meta device has not
        with torch.device("cpu"), torch.random.fork_rng(devices=[]):
            return run()


def _call(tower: PreTrainedModel, **inputs: Tensor) -> Any:
    try:
        return tower(**inputs)
    except (NotImplementedError, RuntimeError):
        raise
    except Exception as error:  # towers fail in as many ways as there are
        said = f"{type(error).__name__}: {error}"
        raise ValueError(f"a {tower.config.model_type} model does not run on an example ({said})") from error


def example_pixels(config: PreTrainedConfig, images: int) -> Tensor:
    """(images, channels, height, width) of zeros, of a size that the tower takes."""
    size = getattr(config, "image_size", None) or getattr(config, "pretrained_cfg", {}).get("input_size", [64])[-1]
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    return torch.zeros(images, getattr(config, "num_channels", 3), height, width)


def patch_numbers(tower: PreTrainedModel, pixel_values: Tensor) -> Tensor:
    """(batch, patches), rising: ViT-MAE lays its patches in the order of this noise, drawn anew in each call."""
    size = tower.config.patch_size
    patches = (pixel_values.shape[-2] // size) * (pixel_values.shape[-1] // size)
    return torch.arange(patches, dtype=torch.float32, device=pixel_values.device).expand(pixel_values.shape[0], -1)
