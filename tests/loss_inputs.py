"""What the tests of losses are computed from."""

import torch
from torch.nn.functional import normalize


def unit_embeds(pairs: int = 6, dim: int = 5, seed: int = 0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return [normalize(torch.randn(pairs, dim, generator=generator, dtype=dtype), dim=-1) for _ in range(2)]
