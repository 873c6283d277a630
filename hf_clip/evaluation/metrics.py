"""Metrics: pure functions of tensors."""

from collections.abc import Sequence

import torch
from torch import Tensor

# A matrix product rounds the same dot product otherwise at its edges than inside, by 1e-7.
_TIE = 1e-6


def ranks_of_best_positive(
    query_embeds: Tensor, candidate_embeds: Tensor, positive: Tensor, *, block: int = 1024
) -> Tensor:
    """How many negatives score at least as much as each query's best positive: 0 is a hit at 1.

    Ties count against the model, so a collapsed model is not rewarded; scores that differ by rounding are ties.

    Args:
        query_embeds: (queries, dim); candidate_embeds: (candidates, dim); unit length.
        positive: (pairs, 2) of (query, candidate) positions; every query needs one or more.
        block: queries scored at a time; no full similarity matrix is made.

    Returns:
        (queries,) integers.

    Raises:
        ValueError: where a query has no positive or an embedding is not finite.
    """
    if not (query_embeds.isfinite().all() and candidate_embeds.isfinite().all()):
        raise ValueError("embeddings are not finite")
    positive = positive[positive[:, 0].argsort(stable=True)]
    counts = torch.bincount(positive[:, 0], minlength=len(query_embeds))  # (queries,)
    if (counts == 0).any():
        raise ValueError(f"query {int((counts == 0).nonzero()[0])} has no positive candidate")
    ends = counts.cumsum(0)
    ranks = []
    for start in range(0, len(query_embeds), block):
        queries = query_embeds[start : start + block].float()
        scores = queries @ candidate_embeds.float().T  # (block, candidates)
        pairs = positive[int(ends[start] - counts[start]) : int(ends[start + len(queries) - 1])]
        rows, columns = pairs[:, 0] - start, pairs[:, 1]
        best = scores.new_full((len(queries),), -torch.inf).scatter_reduce(0, rows, scores[rows, columns], "amax")
        scores[rows, columns] = -torch.inf
        ranks.append((scores >= best[:, None] - _TIE).sum(1))
    return torch.cat(ranks)


def recall_at_k(ranks: Tensor, k: int) -> float:
    """The share of queries whose best positive is among the first k."""
    return (ranks < k).double().mean().item()


def chance_recall_at_k(positives: Sequence[int] | Tensor, candidates: int, k: int) -> float:
    """The recall@k of a random order: the mean over queries of 1 − C(candidates − positives, k) / C(candidates, k).

    Args:
        positives: (queries,), how many positives each query has.
    """
    positives = torch.as_tensor(positives, dtype=torch.double)
    missed = torch.ones_like(positives)
    for drawn in range(min(k, candidates)):
        missed *= ((candidates - positives - drawn) / (candidates - drawn)).clamp(min=0)
    return (1 - missed).mean().item()
