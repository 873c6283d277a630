"""What does not learn stays in evaluation mode."""

from collections.abc import Iterable

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def frozen_modules(parts: Iterable[nn.Module]) -> list[nn.Module]:
    """Of a model's parts those of which nothing trains, and every BatchNorm whose weights do not (below an adapter,
    say): moved statistics would be lost with the adapter."""
    parts = [part for part in parts if any(True for _ in part.parameters())]  # a dropout is not frozen
    norms = [module for part in parts for module in part.modules() if isinstance(module, _BatchNorm)]
    return [module for module in parts + norms if not any(p.requires_grad for p in module.parameters())]
