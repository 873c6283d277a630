"""Pairs two towers into a model with its processor; opens a trained pair again, with other towers if asked."""

import contextlib
import dataclasses
import pickle
from collections.abc import Iterator, Mapping
from typing import Any, TypedDict, Unpack

import torch
from transformers import BaseImageProcessor, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from ..core.errors import InputError, first_line
from .configuration_hf_clip import HFClipConfig
from .image_processors import square_image_processor
from .loss_hf_clip import LOSS_SETTINGS, Loss
from .losses_hf_clip import LOSSES
from .modeling_hf_clip import HFClipModel
from .processing_hf_clip import HFClipProcessor
from .text_lengths import TextPolicy, fit_policy, trained_policy
from .tower_sources.registry import find_tower_source, tower_names
from .tower_sources.source import ImageTower, TextTower
from .trained_pairs import open_trained_pair


class InputSettings(TypedDict, total=False):
    """How images and texts are prepared; what is None or left out is as the towers want it.

    image_size: side of the square that images are resized and cropped to; default: the tower's own (224 px from
        scratch).
    text_padding, max_text_length: as in [`HFClipProcessor`]; default: what the text tower was trained with.
    default_text_length: `max_text_length` where neither is known; default: all that tokenizer and tower can take.
    """

    image_size: int | None
    text_padding: str | None
    max_text_length: int | None
    default_text_length: int | None


class PairSettings(InputSettings, total=False):
    """The same, and fields of [`HFClipConfig`], which says what they are."""

    projection_dim: int | None
    projection: str | None
    text_pooling: str | None
    vision_pooling: str | None
    loss: Loss | str | None
    logit_scale_init_value: float | None
    logit_scale_max: float | str | None
    logit_bias_init_value: float | None


def create_model_and_processor(
    vision_model: str, text_model: str, **settings: Unpack[PairSettings]
) -> tuple[HFClipModel, HFClipProcessor]:
    """Pairs two towers; projections and temperature are new.

    Args:
        vision_model: a Hub id or a folder; `timm/resnet50.a1_in1k`; `torchvision/resnet50`, with a weights name or a
            file of weights after a colon; for random weights `scratch/resnet-50` (10, 18, 34, 101, 152) or
            `scratch/` before any of these; or of a source of your own (`tower_sources/registry.py`).
        text_model: a Hub id or a folder, `scratch/` before it for random weights; what sentence-transformers saved
            brings its pooling along. Of a checkpoint with both towers (CLIP, SigLIP), each takes its side.
        settings: [`PairSettings`]: `image_size`, `text_padding`, `max_text_length`, and fields of [`HFClipConfig`]:
            `projection_dim`, `text_pooling`, `projection`, `loss` (also a [`Loss`] of your own), …

    Raises:
        InputError: for a tower that cannot be opened or a setting that does not exist, naming the choices.
    """
    inputs, config = _sort_settings(settings)
    vision = _open_image_tower(vision_model, inputs.get("image_size"), config.get("vision_pooling"))
    text = _open_text_tower(text_model, config.get("text_pooling"))
    fields = _given({"vision_pooling": vision.pooling, "text_pooling": text.pooling})
    with _pair_errors():
        own_loss = _own_loss(settings.get("loss"), config)
        if own_loss is not None:
            fields |= own_loss.settings()
        model = HFClipModel.from_vision_text_pretrained(
            vision_model=vision.model, text_model=text.model, **(fields | config)
        )
        if own_loss is not None:
            model.use_loss(own_loss)
        policy = trained_policy(text.model, text.max_length)
        return model, _make_processor(model, vision.image_processor, text.tokenizer, policy, inputs)


def open_model_and_processor(
    folder: str, *, vision_model: str | None = None, text_model: str | None = None, **settings: Unpack[PairSettings]
) -> tuple[HFClipModel, HFClipProcessor]:
    """A trained model and its processor, on the CPU and in evaluation mode; with another tower on a side, if asked.

    An exchanged tower brings a new projection and its half of the processor; the other side, its projection and the
    temperature stay as they were trained.

    Args:
        folder: a folder or Hub id that hf_clip wrote, or a PEFT adapter over one, which is merged into it.
        vision_model, text_model: the tower to put in, named as for [`create_model_and_processor`].
        settings: as there; default: as trained, or as an exchanged tower wants. They may not contradict the trained
            model, but for the pooling of an exchanged tower.

    Raises:
        InputError: for a folder that is damaged or no HFClip, or a setting that contradicts it.
    """
    inputs, config = _sort_settings(settings)
    model, processor = open_trained_pair(folder)
    exchanged = {side: name for side, name in (("vision", vision_model), ("text", text_model)) if name is not None}
    poolings = {field: config.pop(field, None) for field in (f"{side}_pooling" for side in exchanged)}
    _refuse_contradictions(folder, model.config, config)
    towers: dict[str, ImageTower | TextTower] = {}
    image_processor, tokenizer = processor.image_processor, processor.tokenizer
    policy = TextPolicy(processor.text_padding, processor.max_text_length)
    if vision_model is not None:
        vision = towers["vision"] = _open_image_tower(
            vision_model, inputs.get("image_size"), poolings["vision_pooling"]
        )
        image_processor = vision.image_processor
    elif (size := inputs.get("image_size")) is not None:
        image_processor = square_image_processor(size, image_processor)
    if text_model is not None:
        text = _open_text_tower(text_model, poolings["text_pooling"])
        towers["text"] = text
        tokenizer, policy = text.tokenizer, trained_policy(text.model, text.max_length)
    with _pair_errors():
        if towers:
            model = _with_towers(model, towers, _given(poolings))
        own_loss = _own_loss(settings.get("loss"), {})
        if own_loss is not None:
            model.use_loss(own_loss)
        return model, _make_processor(model, image_processor, tokenizer, policy, inputs)


def _with_towers(
    model: HFClipModel, towers: Mapping[str, ImageTower | TextTower], poolings: dict[str, Any]
) -> HFClipModel:
    """The trained model with other towers: what does not belong to an exchanged side is taken over."""
    fields: dict[str, Any] = {field: getattr(model.config, field) for field in _shared_fields(model.config)}
    for side, tower in towers.items():
        fields |= {f"{side}_pooling": tower.pooling, f"{side}_width": None}
    models = {f"{side}_model": getattr(model, f"{side}_model") for side in ("vision", "text")}
    models |= {f"{side}_model": tower.model for side, tower in towers.items()}
    new = HFClipModel.from_vision_text_pretrained(**models, **(fields | poolings))
    heads = {"vision": "visual_projection", "text": "text_projection"}
    fresh = tuple(part for side in towers for part in (heads[side], f"{side}_model"))
    kept = {name: weight for name, weight in model.state_dict().items() if not name.startswith(fresh)}
    _, unexpected = new.load_state_dict(kept, strict=False)
    assert not unexpected
    return new.eval()


def _own_loss(loss: Loss | str | None, config: Mapping[str, Any]) -> Loss | None:
    """A loss of somebody's own, with what else is asked of its temperature; hf_clip's are known by their names."""
    if not isinstance(loss, Loss) or LOSSES.get(loss.name) is loss:
        return None
    asked = {name: config[name] for name in LOSS_SETTINGS if name in config}
    return dataclasses.replace(loss, **asked) if asked else loss


def _make_processor(
    model: HFClipModel,
    image_processor: BaseImageProcessor,
    tokenizer: PreTrainedTokenizerBase,
    policy: TextPolicy,
    inputs: InputSettings,
) -> HFClipProcessor:
    padding = inputs.get("text_padding") or policy.text_padding
    asked = TextPolicy(padding, inputs.get("max_text_length") or policy.max_text_length)
    policy = fit_policy(asked, model.text_model, tokenizer, inputs.get("default_text_length"))
    return HFClipProcessor(image_processor=image_processor, tokenizer=tokenizer, **vars(policy))


def _shared_fields(config: HFClipConfig) -> list[str]:
    """The fields of HFClip's own configuration, without the towers' and what transformers adds."""
    inherited = set(PreTrainedConfig.__dataclass_fields__) | {"text_config", "vision_config"}
    return [name for name in HFClipConfig.__dataclass_fields__ if name not in inherited]


def _refuse_contradictions(folder: str, trained: HFClipConfig, config: Mapping[str, object]) -> None:
    for name, value in config.items():
        if value != getattr(trained, name):
            raise InputError(
                f"{name}={value!r} contradicts the trained model {folder!r}, which has {getattr(trained, name)!r}: "
                "leave it out"
            )


def _sort_settings(settings: PairSettings) -> tuple[InputSettings, dict[str, Any]]:
    """(those of the inputs, fields of the configuration), as far as they were given."""
    inputs: InputSettings = {
        "image_size": settings.get("image_size"),
        "text_padding": settings.get("text_padding"),
        "max_text_length": settings.get("max_text_length"),
        "default_text_length": settings.get("default_text_length"),
    }
    known = PairSettings.__annotations__.keys()
    if unknown := settings.keys() - known:
        raise InputError(f"unknown setting {min(unknown)!r}: choose among {', '.join(known)}")
    config = {name: value for name, value in settings.items() if name not in inputs}
    if (loss := config.get("loss")) is not None:
        config["loss"] = _name_of_loss(loss)
    without_cap = {"logit_scale_max": None} if config.get("logit_scale_max", "default") is None else {}
    return inputs, _given(config) | without_cap


def _name_of_loss(loss: object) -> str:
    if isinstance(loss, Loss):
        return loss.name
    if isinstance(loss, str):
        return loss
    raise InputError(
        f"loss is {loss!r:.80}: give a name ({', '.join(LOSSES)}) or a Loss; HFClipTrainer also takes a plain function"
    )


def _given(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}


# ---- one tower ----------------------------------------------------------------------------------------------------


def _open_image_tower(name: str, image_size: int | None, pooling: str | None) -> ImageTower:
    with _tower_errors("vision", name):
        source, own_name, pretrained = find_tower_source(name, "vision")
        tower = source.open_image_tower(own_name, pretrained=pretrained, pooling=pooling)
        _check_what_came(tower, ImageTower)
        tower.model = _trainable(tower.model)
        if image_size is not None:
            tower.image_processor = square_image_processor(image_size, tower.image_processor)
            _try_image_size(tower.model, image_size)
    return tower


def _open_text_tower(name: str, pooling: str | None) -> TextTower:
    with _tower_errors("text", name):
        source, own_name, pretrained = find_tower_source(name, "text")
        tower = source.open_text_tower(own_name, pretrained=pretrained, pooling=pooling)
        _check_what_came(tower, TextTower)
        tower.model = _trainable(tower.model)
    if tower.tokenizer.pad_token is None:
        tower.tokenizer.pad_token = tower.tokenizer.eos_token or tower.tokenizer.unk_token
    return tower


def _trainable(model: PreTrainedModel) -> PreTrainedModel:
    """A source's tower in full precision.

    Raises:
        InputError: a saved pair with it could not be opened again: better now than after training.
    """
    kind = model.config.model_type if isinstance(model, PreTrainedModel) else type(model).__name__
    if kind not in CONFIG_MAPPING:
        raise InputError(
            f"transformers does not know its type {kind!r}, so a saved pair could not be opened: give a tower that it "
            "has, or make the type known with AutoConfig.register and AutoModel.register"
        )
    return model.float()


def _check_what_came(tower: object, expected: type) -> None:
    if not isinstance(tower, expected):
        raise InputError(f"its source gives a {type(tower).__name__}, and no {expected.__name__}: wrap it in one")


def _try_image_size(tower: PreTrainedModel, size: int) -> None:
    """A ViT may refuse any size but its own: better now than in training."""
    training = tower.training
    with torch.inference_mode():
        tower.eval()(pixel_values=torch.zeros(1, 3, size, size, dtype=tower.dtype))
    tower.train(training)


@contextlib.contextmanager
def _tower_errors(side: str, name: str) -> Iterator[None]:
    """What a source raises for a tower that cannot be had becomes one line."""
    setting = f"{side}_model"
    try:
        yield
    except InputError as error:
        raise InputError(str(error) if str(error).startswith("unknown") else f"{setting}: {error}") from error
    except OSError as error:
        raise InputError(
            f"{setting} {name!r} cannot be opened: give {tower_names(side)} ({first_line(error)})"
        ) from error
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{setting} {name!r}: its weights are no plain tensors, and code that they may hold is not run: save it "
            "again as safetensors"
        ) from error
    except ImportError as error:
        raise InputError(f"{setting} {name!r} needs a package that is not installed: {first_line(error)}") from error
    except (ValueError, RuntimeError) as error:
        raise InputError(f"{setting} {name!r}: {first_line(error)}") from error


@contextlib.contextmanager
def _pair_errors() -> Iterator[None]:
    """The same of two towers that do not fit together or do not take the settings."""
    try:
        yield
    except InputError:
        raise
    except (ValueError, RuntimeError) as error:
        raise InputError(first_line(error)) from error
