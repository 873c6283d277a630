"""An exponential moving average of the weights, which is evaluated and saved in their place."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import TrainerCallback

LAST_WEIGHTS = "last_weights.safetensors"


class WeightAverage(TrainerCallback):
    """Follows the weights that train and the statistics of normalisation (Polyak averaging, arXiv:1907.08610 §2).

    Args:
        decay: of the average, at each step no more than (1 + step) / (10 + step), so that the beginning is forgotten.
    """

    def __init__(self, decay: float):
        self.decay = decay
        self._average: dict[str, Tensor] = {}

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        if not self._average:
            self._average = {name: value.clone() for name, value in _moving(model).items()}

    def on_optimizer_step(self, args, state, control, model=None, **kwargs):
        step = state.global_step + 1  # the Trainer counts the step after this
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self._average.values()), list(_moving(model).values()), weight)

    @contextlib.contextmanager
    def in_place(self, model: nn.Module) -> Iterator[None]:
        """The model holds the average; afterwards its own weights again. Nothing before training has begun."""
        self._swap(model)
        try:
            yield
        finally:
            self._swap(model)

    def _swap(self, model: nn.Module) -> None:
        moving = _moving(model)
        for name, average in self._average.items():
            kept = moving[name].clone()
            moving[name].copy_(average)
            average.copy_(kept)

    def settle(self, model: nn.Module) -> None:
        """Leaves the average in the model for good."""
        self._swap(model)
        self._average = {}

    def save_last_weights(self, model: nn.Module, folder: str | Path) -> None:
        """Beside a saved average: the weights that training would go on from."""
        save_file({name: value.contiguous() for name, value in _moving(model).items()}, Path(folder, LAST_WEIGHTS))

    def resume(self, model: nn.Module, folder: str | Path) -> None:
        """Takes the average out of a model loaded from a checkpoint, and gives it the weights that were training."""
        self._average = {name: value.clone() for name, value in _moving(model).items()}
        last = load_file(Path(folder, LAST_WEIGHTS))
        for name, value in _moving(model).items():
            value.copy_(last[name])


def _moving(model: nn.Module) -> dict[str, Tensor]:
    """What changes in training, as plain tensors that share the model's memory."""
    parameters = {name: p.data for name, p in model.named_parameters() if p.requires_grad}
    return parameters | {name: b for name, b in model.named_buffers() if b.is_floating_point()}
