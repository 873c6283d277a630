"""Opens a tower by name and pairs two of them into a model with its processor; opens a trained pair again."""

import contextlib
import copy
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoTokenizer,
    CLIPImageProcessor,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ResNetConfig,
    ResNetModel,
    TimmWrapperConfig,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils import CONFIG_NAME, cached_file, is_peft_available, is_timm_available, logging
from transformers.utils.peft_utils import ADAPTER_CONFIG_NAME

from ..core.errors import InputError, first_line
from .configuration_hf_clip import HFClipConfig
from .modeling_hf_clip import HFClipModel
from .processing_hf_clip import HFClipProcessor, tokenizer_limit
from .towers_hf_clip import build_tower, load_tower, refuse_other_input, tower_config

# (layer type, blocks a stage, widths of the stages): table 1 of arXiv:1512.03385, and half of its smallest.
_RESNETS = {
    "resnet-10": ("basic", [1, 1, 1, 1], [64, 128, 256, 512]),
    "resnet-18": ("basic", [2, 2, 2, 2], [64, 128, 256, 512]),
    "resnet-34": ("basic", [3, 4, 6, 3], [64, 128, 256, 512]),
    "resnet-50": ("bottleneck", [3, 4, 6, 3], [256, 512, 1024, 2048]),
    "resnet-101": ("bottleneck", [3, 4, 23, 3], [256, 512, 1024, 2048]),
    "resnet-152": ("bottleneck", [3, 8, 36, 3], [256, 512, 1024, 2048]),
}
_TORCHVISION = {name.replace("-", ""): name for name in _RESNETS if name != "resnet-10"}
_IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
_POOLING_MODES = {"cls": "cls", "mean": "mean", "lasttoken": "last"}
_POOLING_FLAGS = {"cls": "cls_token", "mean": "mean_tokens", "lasttoken": "lasttoken"}
# Text towers that read a fixed number of tokens, padding included, as they were trained.
FIXED_LENGTH = {"siglip_text_model": 64, "siglip2_text_model": 64}


def create_model_and_processor(
    vision_model: str,
    text_model: str,
    *,
    image_size: int | None = None,
    text_padding: str | None = None,
    max_text_length: int | None = None,
    default_text_length: int | None = None,
    **config: Any,
) -> tuple[HFClipModel, HFClipProcessor]:
    """Pairs two towers; projections and temperature are new.

    Args:
        vision_model: a Hub id or a folder; `timm/resnet50.a1_in1k`; `torchvision/resnet50`, with a weights name or a
            file of weights after a colon; for random weights `scratch/resnet-50` (10, 18, 34, 101, 152) or
            `scratch/` before any of these.
        text_model: a Hub id or a folder, `scratch/` before it for random weights; what sentence-transformers saved
            brings its pooling along. Of a checkpoint with both towers (CLIP, SigLIP), each takes its side.
        image_size: side of the square that pictures are resized and cropped to; default: the tower's own (224 px from
            scratch).
        text_padding, max_text_length: as in [`HFClipProcessor`]; default: what the text tower was trained with.
        default_text_length: `max_text_length` where neither is known; default: all that tokenizer and tower can take.
        config: fields of [`HFClipConfig`]: `projection_dim`, `text_pooling`, `projection`, …

    Raises:
        InputError: for a tower that cannot be opened or a setting that does not exist, naming the choices.
    """
    config = _known_settings(config)
    vision_tower, image_processor, vision_hints = _open_vision_tower(vision_model, image_size, config)
    text_tower, tokenizer, text_hints, policy = _open_text_tower(text_model, config)
    with _input_errors():
        model = HFClipModel.from_vision_text_pretrained(
            vision_model=vision_tower, text_model=text_tower, **(vision_hints | text_hints | config)
        )
        policy |= _given({"text_padding": text_padding, "max_text_length": max_text_length})
        policy = within_capacity(policy, model.text_model, tokenizer, default_text_length)
        return model, HFClipProcessor(image_processor=image_processor, tokenizer=tokenizer, **policy)


def open_model_and_processor(
    folder: str,
    *,
    vision_model: str | None = None,
    text_model: str | None = None,
    image_size: int | None = None,
    text_padding: str | None = None,
    max_text_length: int | None = None,
    default_text_length: int | None = None,
    **config: Any,
) -> tuple[HFClipModel, HFClipProcessor]:
    """A trained model and its processor, on the CPU and in evaluation mode; with another tower on a side, if asked.

    An exchanged tower brings a new projection and its half of the processor; the other side, its projection and the
    temperature stay as they were trained.

    Args:
        folder: a folder or Hub id that hf_clip wrote, or a PEFT adapter over one, which is merged into it.
        vision_model, text_model: the tower to put in, named as for [`create_model_and_processor`].
        image_size, text_padding, max_text_length, default_text_length: as there; default: as trained, or as an
            exchanged tower wants.
        config: fields of [`HFClipConfig`]; they may not contradict the trained model, but for the pooling of an
            exchanged tower.

    Raises:
        InputError: for a folder that is damaged or no HFClip, or a setting that contradicts it.
    """
    config = _known_settings(config)
    model, processor = _open_trained(folder)
    exchanged = {side: name for side, name in (("vision", vision_model), ("text", text_model)) if name is not None}
    poolings = {field: config.pop(field) for side in exchanged if (field := f"{side}_pooling") in config}
    _refuse_contradictions(folder, model.config, config)
    towers: dict[str, Any] = {"vision_model": model.vision_model, "text_model": model.text_model}
    policy: dict[str, Any] = {"text_padding": processor.text_padding, "max_text_length": processor.max_text_length}
    image_processor, tokenizer = processor.image_processor, processor.tokenizer
    fields = {field: getattr(model.config, field) for field in _shared_fields(model.config)}
    if vision_model is not None:
        towers["vision_model"], image_processor, hints = _open_vision_tower(vision_model, image_size, poolings)
        fields |= {"vision_pooling": None, "vision_width": None} | hints
    elif image_size is not None:
        image_processor = square_image_processor(image_size, image_processor)
    if text_model is not None:
        towers["text_model"], tokenizer, hints, policy = _open_text_tower(text_model, poolings)
        fields |= {"text_pooling": None, "text_width": None} | hints
    with _input_errors():
        if exchanged:
            model = _with_towers(model, towers, exchanged, fields | poolings)
        policy |= _given({"text_padding": text_padding, "max_text_length": max_text_length})
        policy = within_capacity(policy, model.text_model, tokenizer, default_text_length)
        return model, HFClipProcessor(image_processor=image_processor, tokenizer=tokenizer, **policy)


def _open_trained(folder: str) -> tuple[HFClipModel, HFClipProcessor]:
    try:
        with without_load_report():
            base = _adapted_model(folder) or folder
            config = PreTrainedConfig.get_config_dict(base)[0]
            if config.get("model_type") != HFClipConfig.model_type:
                raise ValueError(f"it holds a {config.get('model_type')} model")
            opened: Any = HFClipModel.from_pretrained(base, output_loading_info=True, ignore_mismatched_sizes=True)
            model, loaded = opened
            if unusable := len(loaded["missing_keys"]) + len(loaded["mismatched_keys"]):
                raise ValueError(f"{unusable} of its weights are missing or of another size")
            if base != folder:
                model = _merge_adapter(model, folder)
            return model, HFClipProcessor.from_pretrained(folder)
    except (AttributeError, NameError):  # faults of a program, not of a folder
        raise
    except Exception as error:  # a damaged folder fails in as many ways as it has files
        raise InputError(
            f"model {folder!r} cannot be opened: give the folder or Hub id of a model that hf_clip trained "
            f"({first_line(error)})"
        ) from error


def _adapted_model(folder: str) -> str | None:
    """What a PEFT adapter was trained over; `None` for a whole model."""
    base = read_json(folder, ADAPTER_CONFIG_NAME).get("base_model_name_or_path")
    return None if base and read_json(folder, CONFIG_NAME) else base


def _merge_adapter(model: HFClipModel, folder: str) -> HFClipModel:
    """The model with an adapter's changes in its own weights: trained on and saved like any other."""
    if not is_peft_available():
        raise ValueError('it is a PEFT adapter: pip install "hf_clip[peft]"')
    from peft import PeftModel

    trainable = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    adapted: Any = PeftModel.from_pretrained(model, folder)
    merged = adapted.merge_and_unload()
    for name, parameter in merged.named_parameters():
        parameter.requires_grad_(trainable[name])
    merged.name_or_path = merged.config.name_or_path = ""  # an adapter over these weights is none over the base
    return merged.eval()


def _with_towers(model: HFClipModel, towers: dict, exchanged: dict[str, str], fields: dict) -> HFClipModel:
    """The trained model with other towers: what does not belong to an exchanged side is taken over."""
    new = HFClipModel.from_vision_text_pretrained(**towers, **fields)
    heads = {"vision": "visual_projection", "text": "text_projection"}
    fresh = tuple(part for side in exchanged for part in (heads[side], f"{side}_model"))
    kept = {name: weight for name, weight in model.state_dict().items() if not name.startswith(fresh)}
    _, unexpected = new.load_state_dict(kept, strict=False)
    assert not unexpected
    return new.eval()


def _shared_fields(config: HFClipConfig) -> list[str]:
    """The fields of HFClip's own configuration, without the towers' and what transformers adds."""
    inherited = set(PreTrainedConfig.__dataclass_fields__) | {"text_config", "vision_config"}
    return [name for name in HFClipConfig.__dataclass_fields__ if name not in inherited]


def _refuse_contradictions(folder: str, trained: HFClipConfig, config: dict[str, Any]) -> None:
    for name, value in config.items():
        if value != getattr(trained, name):
            raise InputError(
                f"{name}={value!r} contradicts the trained model {folder!r}, which has {getattr(trained, name)!r}: "
                "leave it out"
            )


def _known_settings(config: dict[str, Any]) -> dict[str, Any]:
    unknown = set(config) - set(HFClipConfig.__dataclass_fields__)
    if unknown:
        raise InputError(f"unknown setting {unknown.pop()!r}: not a field of HFClipConfig")
    return _given(config)


def _given(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}


# ---- towers of images ---------------------------------------------------------------------------------------------


def _open_vision_tower(
    name: str, image_size: int | None, settings: dict[str, Any]
) -> tuple[PreTrainedModel, Any, dict[str, Any]]:
    """The tower, its image processor, and the settings that come with it."""
    random, source = name.startswith("scratch/"), name.removeprefix("scratch/")
    tower: PreTrainedModel
    hints: dict[str, Any] = {}
    with _input_errors("vision_model", name):
        if random and ("/" not in source and not Path(source).exists()):
            tower, image_processor = ResNetModel(_resnet_config(source)), square_image_processor(224)
        elif source.startswith("timm/") and not Path(source).is_dir():
            tower, image_processor = _open_timm(source.removeprefix("timm/"), random)
        elif source.startswith("torchvision/") and not Path(source).is_dir():
            tower, image_processor = _open_torchvision(source.removeprefix("torchvision/"), random)
        else:
            tower, hints = _open_from_hub("vision", source, random, settings)
            image_processor = open_image_processor(source)
        if image_size is not None:
            image_processor = square_image_processor(image_size, image_processor)
            _try_image_size(tower, image_size)
    return tower, image_processor, hints


def _try_image_size(tower: PreTrainedModel, size: int) -> None:
    """A ViT may refuse any size but its own: better now than in training."""
    training = tower.training
    with torch.inference_mode():
        tower.eval()(pixel_values=torch.zeros(1, 3, size, size, dtype=tower.dtype))
    tower.train(training)


def open_image_processor(name: str) -> Any:
    """What a tower's folder or Hub repository says of its pictures; no code of its own is run."""
    with _reading(name, "image processor"):
        processor = AutoImageProcessor.from_pretrained(name, trust_remote_code=False)
    if type(processor).__name__ == "TimmWrapperImageProcessor":
        return _timm_image_processor(processor.data_config)
    return processor


def _resnet_config(name: str) -> ResNetConfig:
    if name not in _RESNETS:
        raise InputError(
            f"unknown tower 'scratch/{name}': choose one of {', '.join(f'scratch/{n}' for n in _RESNETS)}, or "
            "scratch/timm/…, scratch/torchvision/…, scratch/ and a Hub id or folder"
        )
    layer_type, depths, widths = _RESNETS[name]
    return ResNetConfig(layer_type=layer_type, depths=depths, hidden_sizes=widths)


def square_image_processor(size: int, like: Any = None) -> CLIPImageProcessor:
    """Resizes the shorter side to `size` pixels, crops the centre square, and normalises as `like` (or ImageNet)."""
    said = {name: getattr(like, name, None) for name in (*_IMAGENET, "resample", "do_normalize", "rescale_factor")}
    return CLIPImageProcessor(
        size={"shortest_edge": size},
        crop_size={"height": size, "width": size},
        do_convert_rgb=True,
        **(_IMAGENET | _given(said)),
    )


def _open_timm(name: str, random: bool) -> tuple[PreTrainedModel, Any]:
    if not is_timm_available():
        raise InputError(f'timm/{name} needs timm: pip install "hf_clip[timm]"')
    import timm

    architecture = name.split(".")[0]
    if not timm.is_model(architecture):
        raise InputError(f"timm has no {architecture!r}: timm.list_models() tells which it has")
    weights = timm.get_pretrained_cfg(name)
    if not random:
        if not weights or not weights.has_weights or not weights.hf_hub_id:
            raise InputError(f"timm has no weights on the Hub for {name!r}: scratch/timm/{name} begins without")
        tower, _ = _open_from_hub("vision", weights.hf_hub_id, False, {})
        return tower, open_image_processor(weights.hf_hub_id)
    settings = weights.to_dict() if weights else {"input_size": (3, 224, 224)}
    config = TimmWrapperConfig.from_dict({"architecture": architecture, "pretrained_cfg": settings, "num_classes": 0})
    tower = build_tower(config, "pooler")
    # transformers has drawn every weight alike; timm knows how each of its layers begins.
    tower.timm_model.load_state_dict(timm.create_model(architecture, num_classes=0).state_dict())  # type: ignore[union-attr]
    return tower, _timm_image_processor(timm.data.resolve_data_config(settings))


def _timm_image_processor(data: dict[str, Any]) -> CLIPImageProcessor:
    """timm's evaluation transform as an image processor that a saved folder can hold."""
    from PIL.Image import Resampling

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


def _open_torchvision(name: str, random: bool) -> tuple[PreTrainedModel, Any]:
    """A ResNet of transformers that computes what torchvision's does."""
    import torchvision

    architecture, _, weights_name = name.partition(":")
    if architecture not in _TORCHVISION:
        raise InputError(
            f"unknown tower 'torchvision/{architecture}': choose one of "
            + ", ".join(f"torchvision/{n}" for n in _TORCHVISION)
        )
    tower = ResNetModel(_resnet_config(_TORCHVISION[architecture]))
    known = torchvision.models.get_model_weights(architecture)
    choices = known.__members__
    weights = choices.get(weights_name or "DEFAULT", choices["IMAGENET1K_V1"])
    if not random:
        is_file = weights_name and weights_name not in choices
        state = _read_weights(weights_name, choices) if is_file else _download_weights(name, weights)
        _load_torchvision_weights(tower, state, f"torchvision/{name}")
    return tower, _torchvision_image_processor(weights.transforms())


def _torchvision_image_processor(transform: Any) -> CLIPImageProcessor:
    from PIL.Image import Resampling

    return CLIPImageProcessor(
        size={"shortest_edge": transform.resize_size[0]},
        crop_size={"height": transform.crop_size[0], "width": transform.crop_size[0]},
        resample=Resampling[transform.interpolation.name],
        image_mean=list(transform.mean),
        image_std=list(transform.std),
        do_convert_rgb=True,
    )


def _download_weights(name: str, weights: Any) -> dict[str, torch.Tensor]:
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


def _read_weights(file: str, choices: Any) -> dict[str, torch.Tensor]:
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


def _load_torchvision_weights(tower: ResNetModel, state: dict[str, torch.Tensor], source: str) -> None:
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


# ---- towers of text -----------------------------------------------------------------------------------------------


def _open_text_tower(
    name: str, settings: dict[str, Any]
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, dict[str, Any], dict[str, Any]]:
    """The tower, its tokenizer, the settings that come with it, and how its texts are padded and cut."""
    random, source = name.startswith("scratch/"), name.removeprefix("scratch/")
    with _input_errors("text_model", name):
        pooling = _sentence_transformers_pooling(source)
        tower, hints = _open_from_hub("text", source, random, _given({"text_pooling": pooling}) | settings)
        with _reading(source, "tokenizer"):
            tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    policy: dict[str, Any] = _given(
        {"max_text_length": read_json(source, "sentence_bert_config.json").get("max_seq_length")}
    )
    if tower.config.model_type in FIXED_LENGTH:
        length = min(FIXED_LENGTH[tower.config.model_type], tower.config.max_position_embeddings)
        policy = {"text_padding": "max_length", "max_text_length": length}
    return tower, tokenizer, hints | _given({"text_pooling": pooling}), policy


def text_capacity(tower: Any, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """How many tokens of a text its tokenizer and its tower can take; None: neither knows a limit."""
    limits = [limit for limit in (tokenizer_limit(tokenizer), _positions(tower)) if limit is not None]
    return min(limits, default=None)


def _positions(tower: nn.Module) -> int | None:
    positions = getattr(tower.config, "max_position_embeddings", None)
    for name, module in tower.named_modules():
        # RoBERTa's kin count from behind the padding's number: of 514 rows 512 are left.
        if "position" in name and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            return module.num_embeddings - module.padding_idx - 1
    return positions


def within_capacity(
    policy: dict[str, Any], tower: Any, tokenizer: PreTrainedTokenizerBase, default: int | None = None
) -> dict[str, Any]:
    """How texts are padded and cut, so that none is longer than can be read; not by the tokenizer alone either, which
    pipelines ask."""
    capacity = text_capacity(tower, tokenizer)
    asked = policy.get("max_text_length") or default
    limits = [limit for limit in (asked, capacity) if limit is not None]
    if capacity is not None:
        tokenizer.model_max_length = capacity
    return policy | {"max_text_length": min(limits, default=None)}


def _sentence_transformers_pooling(text_model: str) -> str | None:
    """The pooling that a sentence-transformers model was trained with, if it is one, and one that we have."""
    modes = read_json(text_model, "1_Pooling/config.json")
    chosen = modes.get("pooling_mode") or [
        mode for mode, flag in _POOLING_FLAGS.items() if modes.get(f"pooling_mode_{flag}")
    ]
    chosen = [chosen] if isinstance(chosen, str) else chosen
    return _POOLING_MODES.get(chosen[0]) if len(chosen) == 1 else None


def read_json(name: str, file: str) -> dict[str, Any]:
    """A file of a folder or Hub repository; empty where there is none."""
    path = cached_file(
        name,
        file,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        _raise_exceptions_for_gated_repo=False,
    )
    return json.loads(Path(path).read_text()) if path else {}


# ---- both ---------------------------------------------------------------------------------------------------------


def _open_from_hub(
    side: str, name: str, random: bool, settings: dict[str, Any]
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The tower of one side of a Hub id or folder, and the settings that come with it."""
    _refuse_remote_code(name)
    with _reading(name, CONFIG_NAME):
        whole = AutoConfig.from_pretrained(name, trust_remote_code=False)
    part = tower_config(whole, side)
    refuse_other_input(part, side)
    field = f"{side}_pooling"
    hints = _given({field: getattr(whole, field, None)}) if part is not whole else {}
    fields: dict[str, Any] = {f"{side}_config": copy.deepcopy(part)}
    pair = HFClipConfig(**fields, **_given({field: (hints | settings).get(field)}))
    pooling = getattr(pair, field)
    lacking: list[str]
    if random:
        tower, lacking = build_tower(part, pooling), []
    else:
        tower, lacking = load_tower(name, side, whole, pooling, dtype=torch.float32, trust_remote_code=False)
    lacking = [key for key in lacking if not key.startswith("pooler.")]
    if lacking:
        raise InputError(f"{name!r} lacks {len(lacking)} of the tower's weights, {lacking[0]!r} among them")
    return tower, hints


def _refuse_remote_code(name: str) -> None:
    """A model type that transformers does not know: its code would have to travel with every saved pair."""
    with _reading(name, CONFIG_NAME):
        config = PreTrainedConfig.get_config_dict(name)[0]
    if not isinstance(config, dict):
        raise InputError(f"{name!r} holds a {CONFIG_NAME} that is no mapping: write it again")
    if "auto_map" in config and config.get("model_type") not in CONFIG_MAPPING:
        raise InputError(
            f"{name!r} needs code of its own ({config['auto_map'].get('AutoModel', 'auto_map')}), which a saved pair "
            "could not carry along: choose a tower that transformers itself has"
        )


@contextlib.contextmanager
def _reading(name: str, what: str) -> Iterator[None]:
    """Around a library's reading of somebody's files, and nothing of our own: it fails in as many ways as files do.

    Raises:
        InputError: with what the library says, where it has no kind of error for it.
    """
    try:
        yield
    except (OSError, ValueError, ImportError):  # these say by themselves what is wrong
        raise
    except Exception as error:
        said = f"{type(error).__name__}: {first_line(error)}"
        raise InputError(f"{name!r} holds no {what} that can be read ({said}): save it again") from error


@contextlib.contextmanager
def _input_errors(setting: str | None = None, name: str | None = None) -> Iterator[None]:
    """What transformers raises for a tower that does not fit becomes one line."""
    where = f"{setting} {name!r}" if setting else None
    try:
        yield
    except InputError as error:
        raise InputError(
            f"{setting}: {error}" if setting and not str(error).startswith("unknown") else str(error)
        ) from error
    except OSError as error:
        raise InputError(
            f"{where} cannot be opened: give a Hub id, a folder with config.json and weights, or for pictures "
            f"timm/…, torchvision/… or scratch/resnet-10 … scratch/resnet-152 ({first_line(error)})"
        ) from error
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{where}: its weights are no plain tensors, and code that they may hold is not run: save it again as "
            "safetensors"
        ) from error
    except ImportError as error:
        raise InputError(f"{where} needs a package that is not installed: {first_line(error)}") from error
    except (ValueError, RuntimeError) as error:
        raise InputError(f"{where}: {first_line(error)}" if where else first_line(error)) from error


@contextlib.contextmanager
def without_load_report() -> Iterator[None]:
    """transformers reports on weights in a long table; whoever opens a model wants to know whether it works."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
