"""The losses by name: a line of imports here makes one known."""

# ruff: noqa: F401 – each import is an entry
from .requirements_hf_clip import TRANSFORMERS

# isort: split

from .infonce_hf_clip import INFONCE
from .loss_hf_clip import Loss
from .sigmoid_hf_clip import SIGMOID

LOSSES: dict[str, Loss] = {loss.name: loss for loss in list(vars().values()) if isinstance(loss, Loss)}


def find_loss(name: str) -> Loss:
    """
    Raises:
        ValueError: it is none of these.
    """
    if name not in LOSSES:
        raise ValueError(f"unknown loss {name!r}: choose one of {', '.join(LOSSES)}, or give a Loss of your own")
    return LOSSES[name]


__all__ = ["LOSSES", "find_loss"]
