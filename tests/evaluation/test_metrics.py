"""Ranks, recall, precision, accuracy, calibration and chance against numbers worked out by hand, and scikit-learn."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, balanced_accuracy_score, top_k_accuracy_score
from torch import tensor
from torch.nn.functional import normalize

from hf_clip.evaluation.metrics import (
    TIE,
    answers,
    average_precision,
    average_precision_at_k,
    calibration,
    chance_recall_at_k,
    class_ranks,
    class_shares,
    mean_per_class_recall,
    recall_at_k,
    retrieval_ranks,
)

# Four images on the axes; scores of a text are its coordinates.
IMAGES = torch.eye(4)
TEXTS = tensor([[0.9, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.9], [0.4, 0.6, 0.5, 0.3]])


def pairs(*images: int) -> torch.Tensor:
    return tensor(list(enumerate(images)))


def text_ranks(texts, images, positive, **settings) -> list[int]:
    return retrieval_ranks(texts, images, positive, **settings)[0][:, 0].tolist()


def ranks_by_loops(texts, images, positive, best):
    """(texts, images) lists of the ranks of each query's positives, the best first."""
    scores = texts @ images.T
    found = []
    for matrix, side in ((scores, 0), (scores.T, 1)):
        of_side = []
        for query in range(len(matrix)):
            own = sorted(int(p[1 - side]) for p in positive if p[side] == query)
            others = [matrix[query, c] for c in range(matrix.shape[1]) if c not in own]
            reached = sorted(sum(bool(other >= matrix[query, c]) for other in others) for c in own)
            of_side.append(reached[:best])
        found.append(of_side)
    return found


# ---- retrieval ----------------------------------------------------------------------------------------------------


def test_recalls_with_permuted_targets():
    # Text 0's image is best; text 1's comes third (0.9, 0.3 before 0.2); text 2's comes second (0.6 before 0.5).
    ranks, _ = retrieval_ranks(TEXTS, IMAGES, pairs(0, 1, 2))
    assert ranks[:, 0].tolist() == [0, 2, 1]
    assert [recall_at_k(ranks[:, 0], k) for k in (1, 2, 3, 4)] == pytest.approx([1 / 3, 2 / 3, 1, 1])
    assert text_ranks(TEXTS, IMAGES, pairs(3, 3, 0)) == [3, 0, 2]


def test_the_other_way_round():
    # Scores of image 0: 0.9, 0.1, 0.4; of image 1: 0.3, 0.2, 0.6; of image 2: 0.2, 0.3, 0.5.
    _, ranks = retrieval_ranks(TEXTS, IMAGES, tensor([[2, 0], [0, 1], [1, 2]]))
    assert ranks[:, 0].tolist() == [1, 1, 1, -1], "image 3 has no text"


def test_of_several_positives_the_best_counts_and_the_others_are_no_negatives():
    # Text 0: images 1 and 3 score 0.3 and 0.1; of the negatives only 0.9 is above 0.3. The order does not matter.
    positive = tensor([[2, 0], [0, 3], [1, 3], [0, 1], [2, 2], [1, 2]])
    assert text_ranks(TEXTS, IMAGES, positive) == [1, 0, 1]
    ranks, _ = retrieval_ranks(TEXTS, IMAGES, positive, best=3)
    assert ranks.tolist() == [[1, 2], [0, 0], [1, 1]], "no text has three"


def test_ties_count_against_the_model():
    same = tensor([[1.0, 0.0]]).repeat(6, 1)
    for ranks in retrieval_ranks(same, same, pairs(*range(6))):
        assert ranks[:, 0].tolist() == [5] * 6
        assert [recall_at_k(ranks[:, 0], k) for k in (1, 5, 6)] == [0, 0, 1]


@pytest.mark.parametrize(
    ("rows", "block"), [(303, (100, 303)), (303, (303, 100)), (305, (7, 11)), (1003, (1024, 4096))]
)
def test_ties_are_ties_where_rounding_tells_them_apart(rows, block):
    # A last block of another shape is rounded in another way.
    torch.manual_seed(0)
    same = normalize(torch.randn(1, 512)).repeat(rows, 1)
    for ranks in retrieval_ranks(same, same, pairs(*range(rows)), block=block):
        assert ranks.unique().tolist() == [rows - 1]


@pytest.mark.parametrize("block", [(7, 9), (200, 60)])
def test_scores_too_close_for_an_fp32_product_keep_their_order(block):
    torch.manual_seed(0)
    texts, images = normalize(torch.randn(200, 3)), normalize(torch.randn(3) + 2e-6 * torch.randn(60, 3))
    targets = torch.randint(60, (200,))
    exact = texts.double() @ images.double().T
    best = exact.gather(1, targets[:, None])
    assert ((exact - best).abs() < 1e-6).double().mean() > 0.2, "or this would show nothing"
    expected = (exact >= best - TIE).sum(1) - 1
    assert text_ranks(texts, images, pairs(*targets.tolist()), block=block) == expected.tolist()
    assert len(expected.unique()) > 50


@pytest.mark.parametrize("far", [0, 6e-7])
def test_of_many_within_rounding_all_tie_wherever_the_blocks_cut(far):
    """400 images whose cosine is as that of the right one, or 6e-7 below it."""
    angle = torch.tensor([0.5] + [0.5 + far / math.sin(0.5)] * 400, dtype=torch.double)
    images = torch.stack([angle.cos(), angle.sin()], dim=1).float()
    for block in ((1024, 4096), (1, 50), (1, 7)):
        assert text_ranks(tensor([[1.0, 0.0]]), images, tensor([[0, 0]]), block=block) == [400]


def test_close_scores_are_told_apart():
    images = normalize(tensor([[1.0, 0.01], [1.0, 0.0]]))
    assert text_ranks(tensor([[1.0, 0.0]]), images, pairs(1)) == [0]
    assert text_ranks(tensor([[1.0, 0.0]]), images, pairs(0)) == [1]


@pytest.mark.parametrize("block", [(1, 1), (3, 5), (10, 4), (23, 17), (1024, 4096)])
@pytest.mark.parametrize("best", [1, 2, 40])
def test_blocks_change_nothing(block, best):
    torch.manual_seed(0)
    texts, images = normalize(torch.randn(23, 8)), normalize(torch.randn(17, 8))
    positive = torch.cat([pairs(*torch.randint(17, (23,)).tolist()) for _ in range(2)]).unique(dim=0)
    positive = positive[torch.randperm(len(positive))]
    expected = ranks_by_loops(texts, images, positive, best)
    for ranks, of_side in zip(retrieval_ranks(texts, images, positive, best=best, block=block), expected, strict=True):
        for found, wanted in zip(ranks.tolist(), of_side, strict=True):
            assert found[:1] == (wanted[:1] or [-1]), "the first is counted to its end"
            # Those behind it to `best`.
            assert [min(r, best) for r in found] == [min(r, best) for r in wanted] + [-1] * (len(found) - len(wanted))


def test_embeddings_are_not_changed():
    texts, images = TEXTS.clone(), IMAGES.clone()
    retrieval_ranks(texts, images, pairs(0, 1, 2))
    assert torch.equal(texts, TEXTS)
    assert torch.equal(images, IMAGES)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_what_is_not_finite_is_refused(wrong):
    broken = TEXTS.clone()
    broken[1, 1] = wrong
    with pytest.raises(ValueError, match="text_embeds are not finite, first in row 1"):
        retrieval_ranks(broken, IMAGES, pairs(0, 1, 2))
    with pytest.raises(ValueError, match="image_embeds are not finite, first in row 1"):
        retrieval_ranks(IMAGES, broken, pairs(0, 1, 2))


def test_a_pair_of_what_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"pair \[2, 4\] names a image that is none of the 4"):
        retrieval_ranks(TEXTS, IMAGES, pairs(0, 1, 4))
    with pytest.raises(ValueError, match=r"pair \[-1, 1\] names a text"):
        retrieval_ranks(TEXTS, IMAGES, tensor([[-1, 1]]))


def test_average_precision_at_k_by_hand():
    # Ranks 0 and 1: places 1 and 3, precisions 1/1 and 2/3. Ranks 2 and 2: places 3 and 4, precisions 1/3 and 2/4.
    ranks = tensor([[0, 1], [2, 2], [4, -1]])
    positives = tensor([2, 2, 1])
    assert average_precision_at_k(ranks, positives, 10).tolist() == pytest.approx(
        [(1 + 2 / 3) / 2, (1 / 3 + 0.5) / 2, 1 / 5]
    )
    assert average_precision_at_k(ranks, positives, 3).tolist() == pytest.approx([(1 + 2 / 3) / 2, (1 / 3) / 2, 0])
    assert average_precision_at_k(ranks, positives, 1).tolist() == [1, 0, 0], "of two at most one can be first"


def test_average_precision_of_all_is_scikit_learns():
    torch.manual_seed(1)
    texts, images = normalize(torch.randn(40, 8)), normalize(torch.randn(9, 8))
    positive = torch.stack([torch.arange(40), torch.randint(9, (40,))], dim=1)
    _, ranks = retrieval_ranks(texts, images, positive, best=40)
    found = average_precision_at_k(ranks, torch.bincount(positive[:, 1], minlength=9), 40)
    scores = (images @ texts.T).numpy()
    expected = [average_precision_score((positive[:, 1] == i).numpy(), scores[i]) for i in range(9)]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9)


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
    texts = normalize(torch.randn(2000, 64, generator=generator))
    images = normalize(torch.randn(30, 64, generator=generator))
    drawn = torch.stack([torch.randperm(30, generator=generator)[:3] for _ in range(2000)])
    positive = torch.stack([torch.arange(2000).repeat_interleave(3), drawn.flatten()], dim=1)
    ranks, _ = retrieval_ranks(texts, images, positive)
    for k in (1, 5, 10):
        assert recall_at_k(ranks[:, 0], k) == pytest.approx(chance_recall_at_k([3] * 2000, 30, k), abs=0.045)


# ---- classes ------------------------------------------------------------------------------------------------------

SCORES = tensor([[0.1, 0.7, 0.2], [0.5, 0.5, 0.0], [0.3, 0.2, 0.1], [0.2, 0.1, 0.3]])
LABELS = tensor([1, 0, 0, 1])


def test_ranks_and_answers_of_classes_by_hand():
    assert class_ranks(SCORES, LABELS).tolist() == [0, 1, 0, 2], "a shared first place is not right"
    assert answers(SCORES, LABELS).tolist() == [1, 1, 0, 2]
    collapsed = torch.ones(3, 4)
    assert class_ranks(collapsed, tensor([0, 1, 3])).tolist() == [3, 3, 3]
    assert (answers(collapsed, tensor([0, 1, 3])) != tensor([0, 1, 3])).all()


def test_only_rounding_makes_a_tie():
    close = tensor([[0.3, 0.3 + 5e-8], [0.3, 0.3 + 5e-7]], dtype=torch.double)
    assert class_ranks(close, tensor([1, 1])).tolist() == [1, 0]
    assert class_ranks(close, tensor([1, 1]), tie=0).tolist() == [0, 0]


def test_accuracies_are_scikit_learns():
    torch.manual_seed(2)
    scores, labels = torch.randn(300, 7), torch.randint(6, (300,))  # class 6 has no pictures
    scores[torch.arange(300), labels] += 1
    ranks = class_ranks(scores, labels)
    for k in (1, 3, 5):
        expected = top_k_accuracy_score(labels, scores, k=k, labels=range(7))
        assert recall_at_k(ranks, k) == pytest.approx(expected)
    expected = balanced_accuracy_score(labels, scores.argmax(1))
    assert mean_per_class_recall(ranks == 0, labels) == pytest.approx(expected)
    assert torch.equal(answers(scores, labels), scores.argmax(1))


def test_each_class_weighs_alike():
    labels = tensor([0, 0, 0, 3])  # of two classes with pictures: 4 / 2 / 3 each of three, 4 / 2 of one
    assert class_shares(labels).tolist() == pytest.approx([2 / 3, 2 / 3, 2 / 3, 2])
    assert mean_per_class_recall(tensor([True, False, False, True]), labels) == pytest.approx((1 / 3 + 1) / 2)


def test_average_precision_of_a_class():
    scores, positive = tensor([0.9, 0.8, 0.7, 0.6]), tensor([True, False, True, False])
    assert average_precision(scores, positive) == pytest.approx((1 + 2 / 3) / 2)
    # All alike: the two positives stand at places 3 and 4, behind those that tie.
    assert average_precision(torch.ones(4), positive) == pytest.approx((1 / 3 + 2 / 4) / 2)
    torch.manual_seed(3)
    scores, positive = torch.randn(200), torch.rand(200) < 0.2
    assert average_precision(scores, positive) == pytest.approx(average_precision_score(positive, scores))
    with pytest.raises(ValueError, match="no picture is of this class"):
        average_precision(scores, torch.zeros(200, dtype=torch.bool))


def test_calibration_by_hand():
    # Of two bins: (0, ½] holds 0.2 and 0.5, one of them right; (½, 1] holds 0.6, 0.8 and 1, two of them right.
    probabilities, right = tensor([0.2, 0.5, 0.6, 0.8, 1.0]), tensor([True, False, False, True, True])
    error, bins = calibration(probabilities, right, bins=2)
    np.testing.assert_allclose(bins, [[2, 0.35, 0.5], [3, 0.8, 2 / 3]], rtol=1e-6)
    assert error == pytest.approx(2 / 5 * 0.15 + 3 / 5 * (0.8 - 2 / 3))
    assert calibration(tensor([0.0]), tensor([False]))[1][0].tolist() == [1, 0, 0], "0 is of the first bin"
