"""A trained model as the public functions take it: by its folder or Hub id, or opened with its processor."""

from pathlib import Path

import torch

from ..core.errors import InputError
from ..core.public import public_name
from .modeling_hf_clip import HFClipModel
from .processing_hf_clip import HFClipProcessor
from .towers import open_model_and_processor

TrainedModel = str | Path | tuple[HFClipModel, HFClipProcessor]


def open_trained(model: TrainedModel) -> tuple[HFClipModel, HFClipProcessor]:
    """Model and processor, in evaluation mode: of a name on the GPU, if there is one; opened ones where they lie.

    Raises:
        InputError: no such model, or something else in its place.
    """
    if isinstance(model, str | Path):
        opened, processor = open_model_and_processor(str(model))
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return opened.to(device).eval(), processor  # type: ignore[arg-type]
    if not (isinstance(model, tuple) and len(model) == 2 and isinstance(model[0], HFClipModel)):
        raise InputError(
            f"model is a {type(model).__name__}: give a folder, a Hub id, or the pair (model, processor) of an "
            "HFClipModel and its HFClipProcessor"
        )
    return model[0].eval(), model[1]


def name_of(model: TrainedModel) -> str:
    """What a report calls it: nothing of where it lies."""
    name = str(model) if isinstance(model, str | Path) else open_trained(model)[0].name_or_path
    return public_name(name) if name else "HFClipModel"
