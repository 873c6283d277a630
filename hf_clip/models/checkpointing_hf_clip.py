"""Activation checkpointing of every kind of tower, which leaves the statistics of BatchNorm as they are."""

from .requirements_hf_clip import TRANSFORMERS  # noqa: F401 – checks the release, before what an older one lacks

# isort: split

import contextlib
import functools
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

# Residual blocks of the convolutional towers that transformers does not checkpoint itself.
_CHECKPOINTED_BLOCKS = {
    "ResNetBasicLayer",
    "ResNetBottleNeckLayer",
    "RegNetXLayer",
    "RegNetYLayer",
    "ConvNextLayer",
    "ConvNextV2Layer",
    "CvtLayer",
    "DINOv3ConvNextLayer",
    "EfficientNetBlock",
    "LevitResidualLayer",
    "MobileNetV1ConvLayer",
    "MobileNetV2InvertedResidual",
    "MPNetLayer",
    "PoolFormerLayer",
}


def make_checkpointable(tower: PreTrainedModel) -> None:
    """Has every block of a tower look whether it is to be checkpointed, and a recomputation move no statistics.

    Classes are exchanged for subclasses of the same name, so weights, names and hooks stay as they are.

    Raises:
        ValueError: a tower of which no block is known.
    """
    if not tower.supports_gradient_checkpointing:
        _make_blocks_checkpointable(tower)
    for module in tower.modules():
        if isinstance(module, _BatchNorm) and not isinstance(module, _CountsABatchOnce):
            module.__class__ = _subclass(_CountsABatchOnce, type(module))  # type: ignore


def _make_blocks_checkpointable(tower: PreTrainedModel) -> None:
    """Turns the residual blocks of a tower into transformers' checkpointing layers."""
    blocks = [module for module in tower.modules() if type(module).__name__ in _CHECKPOINTED_BLOCKS]
    if not blocks:
        raise ValueError(
            f"{type(tower).__name__} does not support gradient checkpointing: freeze this tower or train without"
        )
    for block in blocks:
        if not isinstance(block, GradientCheckpointingLayer):
            block.__class__ = _subclass(GradientCheckpointingLayer, type(block))  # type: ignore


def repeated_blocks(tower: PreTrainedModel) -> list[nn.Module]:
    """The blocks that a tower is a pile of, from its input to its output; none where transformers marks none."""
    return [
        module
        for module in tower.modules()
        if isinstance(module, GradientCheckpointingLayer) or type(module).__name__ in _CHECKPOINTED_BLOCKS
    ]


@functools.cache
def _subclass(addition: type[nn.Module], module_class: type[nn.Module]) -> type[nn.Module]:
    return type(module_class.__name__, (addition, module_class), {"__module__": module_class.__module__})


class _CountsABatchOnce(nn.Module):
    """Laid over a BatchNorm: a forward inside a backward pass is a recomputation, and moves no running statistics.

    A compiled model recomputes inside its own graph, where it moves none either. The `context_fn` of torch's
    checkpoint would tell a recomputation without this class, but torch.compile refuses any context but a dispatch
    mode, a reentrant checkpoint takes none, and timm calls the checkpoint by itself.
    """

    def forward(self, *args: object, **kwargs: object) -> Tensor:
        if torch.compiler.is_compiling() or torch._C._current_graph_task_id() == -1:
            return super().forward(*args, **kwargs)
        with statistics_moved([self]):  # type: ignore[list-item]
            return super().forward(*args, **kwargs)


@contextlib.contextmanager
def statistics_moved(norms: list[_BatchNorm], momentum: float = 0.0) -> Iterator[None]:
    """BatchNorm layers normalise by the batch and save the same tensors, but move their statistics by this momentum
    (0: not at all, 1: to those of the batch), and count no batch."""
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    try:
        for norm in norms:
            norm.momentum, norm.num_batches_tracked = momentum, None
        yield
    finally:
        for norm, before in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = before
