"""An evaluation whose weights are in half precision, and the same as before when it is over."""

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

_WIDE = ("logit_scale", "logit_bias")  # of all a model's numbers, those that stay in fp32


@contextlib.contextmanager
def in_half_precision(model: nn.Module, dtype: torch.dtype | None) -> Iterator[None]:
    """Weights and statistics of normalization in this type; afterwards their own, bit for bit, which wait on the CPU.

    Args:
        dtype: `None`: nothing changes.
    """
    tensors = [
        tensor
        for name, tensor in (*model.named_parameters(), *model.named_buffers())
        if dtype is not None and tensor.is_floating_point() and name.rpartition(".")[2] not in _WIDE
    ]
    kept = [tensor.data.cpu() for tensor in tensors]
    try:
        for tensor in tensors:
            tensor.data = tensor.data.to(dtype)
        yield
    finally:
        for tensor, before in zip(tensors, kept, strict=True):
            tensor.data = before.to(tensor.device)
