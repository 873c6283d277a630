"""A trained model as the public functions take it: by its folder or Hub id, or opened with its processor."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ParamSpec, TypeVar

import torch

from ..core.errors import InputError
from ..core.public import public_name
from .modeling_hf_clip import HFClipModel
from .processing_hf_clip import HFClipProcessor
from .towers import open_model_and_processor

TrainedModel = str | Path | tuple[HFClipModel, HFClipProcessor]

_Asked = ParamSpec("_Asked")
_Answer = TypeVar("_Answer")


def open_trained(model: TrainedModel) -> tuple[HFClipModel, HFClipProcessor]:
    """Model and processor, in evaluation mode: of a name on the GPU, if there is one; opened ones where they lie.

    Raises:
        InputError: no such model, or something else in its place.
    """
    if isinstance(model, str | Path):
        opened, processor = open_model_and_processor(str(model))
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return opened.to(device).eval(), processor  # type: ignore[arg-type]
    opened, processor = _checked(model)
    return opened.eval(), processor


def _checked(model: tuple[HFClipModel, HFClipProcessor]) -> tuple[HFClipModel, HFClipProcessor]:
    if not (isinstance(model, tuple) and len(model) == 2 and isinstance(model[0], HFClipModel)):
        raise InputError(
            f"model is a {type(model).__name__}: give a folder, a Hub id, or the pair (model, processor) of an "
            "HFClipModel and its HFClipProcessor"
        )
    return model


def name_of(model: TrainedModel) -> str:
    """What a report calls it: nothing of where it lies."""
    name = str(model) if isinstance(model, str | Path) else _checked(model)[0].name_or_path
    return public_name(name) if name else "HFClipModel"


def keep_modes(function: Callable[_Asked, _Answer]) -> Callable[_Asked, _Answer]:
    """A function whose first argument is a model, or several in a list or mapping; of those that were opened already,
    each module is in training or evaluation mode afterwards as it was before."""

    @functools.wraps(function)
    def kept(*given: _Asked.args, **named: _Asked.kwargs) -> _Answer:
        models = given[0] if given else named.get("model")
        # Module by module: frozen towers may be in evaluation mode while the rest is trained.
        modes = {module: module.training for model in _opened_among(models) for module in model.modules()}
        try:
            return function(*given, **named)
        finally:
            for module, training in modes.items():
                module.training = training

    return kept


def _opened_among(models: object) -> list[HFClipModel]:
    if isinstance(models, Mapping):
        models = list(models.values())
    pairs = models if isinstance(models, list) else [models]
    return [pair[0] for pair in pairs if isinstance(pair, tuple) and pair and isinstance(pair[0], HFClipModel)]
