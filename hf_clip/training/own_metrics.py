"""Figures of the user's own: what `compute_metrics` is shown of an evaluation, and how its figures join ours."""

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
from transformers import EvalPrediction
from transformers.trainer_utils import denumpify_detensorize

from ..core.errors import InputError
from ..embeddings.encode import Embeddings


def predictions_of(embeddings: Embeddings) -> tuple[Any, np.ndarray]:
    """((image_embeds, text_embeds), the row of `image_embeds` that each caption belongs to)."""
    return (embeddings.image_embeds.numpy(), embeddings.text_embeds.numpy()), embeddings.text_to_image.numpy()


def own_metrics(
    compute_metrics: Callable[[EvalPrediction], Any], embeddings: Embeddings, known: Collection[str]
) -> dict[str, Any]:
    """The figures that a `compute_metrics` finds on a whole set, without the prefix that the Trainer lets them have.

    It gets an `EvalPrediction` of `predictions_of`: unit vectors of all processes' images and captions, fp32.

    Args:
        known: names of the figures that are there already.

    Raises:
        InputError: it gives no dict, or a figure of a name that is taken.
    """
    predictions, label_ids = predictions_of(embeddings)
    found = compute_metrics(EvalPrediction(predictions=predictions, label_ids=label_ids))  # type: ignore[arg-type]
    if not isinstance(found, dict):
        raise InputError(f"compute_metrics gives a {type(found).__name__}: it must be a dict of figures by name")
    figures = {name.removeprefix("eval_"): value for name, value in denumpify_detensorize(found).items()}
    if taken := sorted(figures.keys() & {*known, "loss"}):
        raise InputError(f"compute_metrics gives {', '.join(taken)}, which is measured already: name it otherwise")
    return figures
