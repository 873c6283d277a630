"""Recall and chance against numbers worked out by hand."""

import math

import pytest
import torch
from torch import tensor
from torch.nn.functional import normalize

from hf_clip.evaluation.metrics import chance_recall_at_k, ranks_of_best_positive, recall_at_k

# Four candidates on the axes; scores of a query are its coordinates.
CANDIDATES = torch.eye(4)
QUERIES = tensor([[0.9, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.9], [0.4, 0.6, 0.5, 0.3]])


def pairs(*targets: int) -> torch.Tensor:
    return tensor(list(enumerate(targets)))


def test_recalls_with_permuted_targets():
    # Query 0's target is best; query 1's comes third (0.9, 0.3 before 0.2); query 2's comes second (0.6 before 0.5).
    ranks = ranks_of_best_positive(QUERIES, CANDIDATES, pairs(0, 1, 2))
    assert ranks.tolist() == [0, 2, 1]
    assert [recall_at_k(ranks, k) for k in (1, 2, 3, 4)] == pytest.approx([1 / 3, 2 / 3, 1, 1])
    assert ranks_of_best_positive(QUERIES, CANDIDATES, pairs(3, 3, 0)).tolist() == [3, 0, 2]


def test_of_several_positives_the_best_counts_and_the_others_are_no_negatives():
    # Query 0: targets 1 and 3 score 0.3 and 0.1; of the negatives only 0.9 is above 0.3. The order does not matter.
    positive = tensor([[2, 0], [0, 3], [1, 3], [0, 1], [2, 2], [1, 2]])
    assert ranks_of_best_positive(QUERIES, CANDIDATES, positive).tolist() == [1, 0, 1]


def test_ties_count_against_the_model():
    same = tensor([[1.0, 0.0]]).repeat(6, 1)
    ranks = ranks_of_best_positive(same, same, pairs(*range(6)))
    assert ranks.tolist() == [5] * 6
    assert [recall_at_k(ranks, k) for k in (1, 5, 6)] == [0, 0, 1]


def test_ties_are_ties_where_rounding_tells_them_apart():
    # The last block has three queries: a product of another shape, whose columns are rounded in two ways.
    torch.manual_seed(0)
    same = normalize(torch.randn(1, 512)).repeat(1003, 1)
    assert ranks_of_best_positive(same, same, pairs(*range(1003)), block=100).unique().tolist() == [1002]


def test_close_scores_are_told_apart():
    candidates = normalize(tensor([[1.0, 0.01], [1.0, 0.0]]))
    assert ranks_of_best_positive(tensor([[1.0, 0.0]]), candidates, pairs(1)).tolist() == [0]
    assert ranks_of_best_positive(tensor([[1.0, 0.0]]), candidates, pairs(0)).tolist() == [1]


@pytest.mark.parametrize("block", [1, 3, 10, 23, 1024])
def test_blocks_change_nothing(block):
    torch.manual_seed(0)
    queries, candidates = normalize(torch.randn(23, 8)), normalize(torch.randn(17, 8))
    positive = torch.cat([pairs(*torch.randint(17, (23,)).tolist()) for _ in range(2)])[torch.randperm(46)]
    scores = queries @ candidates.T
    expected = []
    for query in range(23):
        own = {int(c) for q, c in positive if q == query}
        best = max(scores[query, c] for c in own)
        expected.append(sum(bool(scores[query, c] >= best) for c in range(17) if c not in own))
    assert ranks_of_best_positive(queries, candidates, positive, block=block).tolist() == expected


def test_embeddings_are_not_changed():
    queries, candidates = QUERIES.clone(), CANDIDATES.clone()
    ranks_of_best_positive(queries, candidates, pairs(0, 1, 2))
    assert torch.equal(queries, QUERIES)
    assert torch.equal(candidates, CANDIDATES)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_what_is_not_finite_is_refused(wrong):
    broken = QUERIES.clone()
    broken[1, 1] = wrong
    for queries, candidates in ((broken, CANDIDATES), (QUERIES, broken)):
        with pytest.raises(ValueError, match="not finite"):
            ranks_of_best_positive(queries, candidates, pairs(0, 1, 2))


def test_a_query_without_a_positive_is_refused():
    with pytest.raises(ValueError, match="query 1 has no positive"):
        ranks_of_best_positive(QUERIES, CANDIDATES, tensor([[0, 0], [2, 1]]))


@pytest.mark.parametrize(
    ("positives", "candidates", "k", "expected"),
    [
        ([1], 10, 1, 1 / 10),
        ([1], 10, 5, 1 / 2),
        ([5], 100, 10, 1 - math.comb(95, 10) / math.comb(100, 10)),
        ([1, 3], 4, 2, (2 / 4 + 1) / 2),  # three of four: two draws cannot miss
        ([2], 6, 2, 1 - 4 * 3 / (6 * 5)),
        ([1], 5, 5, 1),
        ([1], 5, 10, 1),
        ([1], 1_000_000, 1, 1e-6),
    ],
)
def test_chance_is_hypergeometric(positives, candidates, k, expected):
    assert chance_recall_at_k(positives, candidates, k) == pytest.approx(expected, rel=1e-9)


def test_chance_is_what_random_embeddings_reach():
    # 2000 queries of 3 positives among 30: σ of the recall is below √(0.25 / 2000) = 0.011.
    generator = torch.Generator().manual_seed(0)
    queries = normalize(torch.randn(2000, 64, generator=generator))
    candidates = normalize(torch.randn(30, 64, generator=generator))
    drawn = torch.stack([torch.randperm(30, generator=generator)[:3] for _ in range(2000)])
    positive = torch.stack([torch.arange(2000).repeat_interleave(3), drawn.flatten()], dim=1)
    ranks = ranks_of_best_positive(queries, candidates, positive)
    for k in (1, 5, 10):
        assert recall_at_k(ranks, k) == pytest.approx(chance_recall_at_k([3] * 2000, 30, k), abs=0.045)
