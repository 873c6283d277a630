"""How much of a whole each of several sources has."""

import math
from collections.abc import Sequence

from ..core.errors import InputError


def check_weights(weights: Sequence[float], count: int) -> None:
    if len(weights) != count or count == 0:
        raise InputError(f"{len(weights)} weights for {count} sources: give one for each")
    if not all(weight > 0 and math.isfinite(weight) for weight in weights):
        raise InputError(f"weights must be positive numbers, not {list(weights)}")


def shares_of(total: int, weights: Sequence[float]) -> list[int]:
    """Whole numbers that add up to `total`, as near to the weights as can be (largest remainders)."""
    exact = [total * weight / sum(weights) for weight in weights]
    shares = [math.floor(share) for share in exact]
    largest_remainders = sorted(range(len(exact)), key=lambda i: shares[i] - exact[i])
    for i in largest_remainders[: total - sum(shares)]:
        shares[i] += 1
    return shares
