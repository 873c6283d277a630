"""Intervals and p-values against scipy, simulations whose truth is known, and enumerations by hand."""

import itertools
import math
import tracemalloc
import warnings

import numpy as np
import pytest
from scipy import stats

from hf_clip.core.errors import InputError
from hf_clip.evaluation import intervals as comparison
from hf_clip.evaluation.intervals import Difference, compare, confidence_interval, holm


def each(*values: float) -> tuple[np.ndarray, np.ndarray]:
    """One query a picture."""
    return np.array(values, dtype=float), np.ones(len(values))


def coin_tosses(pictures: int, chance: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return rng.binomial(1, chance, pictures).astype(float), np.ones(pictures)


# ---- intervals ----------------------------------------------------------------------------------------------------


def test_the_interval_holds_the_truth_as_often_as_it_says():
    # 400 runs at 90 %: σ of the share is √(0.9 · 0.1 / 400) = 0.015; four of them on each side.
    rng = np.random.default_rng(0)
    ends = [confidence_interval(coin_tosses(300, 0.3, rng), level=0.9, resamples=400) for _ in range(400)]
    assert np.mean([low <= 0.3 <= high for low, high in ends]) == pytest.approx(0.9, abs=0.06)


def test_captions_of_a_picture_stay_together():
    # All five captions of a picture are right or all wrong: what varies is 200 pictures, not 1000 captions. σ is then
    # √(0.5 · 0.5 / 200), √5 times that of 1000 captions drawn one by one.
    rng = np.random.default_rng(0)
    right, truth = rng.binomial(1, 0.5, (400, 200)), 0.5
    clustered = [confidence_interval((5.0 * row, np.full(200, 5.0)), resamples=400) for row in right]
    naive = [confidence_interval(each(*np.repeat(row, 5)), resamples=400) for row in right]
    width = np.mean([high - low for low, high in clustered])
    assert width == pytest.approx(2 * 1.96 * math.sqrt(0.25 / 200), rel=0.06)
    assert width / np.mean([high - low for low, high in naive]) == pytest.approx(math.sqrt(5), rel=0.06)
    covered = [np.mean([low <= truth <= high for low, high in ends]) for ends in (clustered, naive)]
    assert covered[0] == pytest.approx(0.95, abs=0.045)
    assert covered[1] < 0.75  # Φ(1.96 / √5) gives 0.62


@pytest.mark.parametrize("level", [0.68, 0.95])
def test_the_interval_is_that_of_scipy(level):
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 6, 150)
    sums = rng.binomial(counts, rng.beta(1, 1, 150))
    theirs = stats.bootstrap(
        (sums, counts), lambda s, c, axis: s.sum(axis) / c.sum(axis), paired=True, vectorized=True,
        n_resamples=20_000, confidence_level=level, method="percentile", rng=1,
    ).confidence_interval  # fmt: skip
    ours = confidence_interval((sums, counts), level=level, resamples=20_000)
    assert ours == pytest.approx(tuple(theirs), abs=0.003)  # of a width of 0.07 and more
    assert theirs.high - theirs.low > 0.06


def test_one_seed_one_interval_however_many_are_drawn_at_a_time(monkeypatch):
    share = each(*np.random.default_rng(0).random(50))
    first = confidence_interval(share, seed=3)
    assert first == confidence_interval(share, seed=3) != confidence_interval(share, seed=4)
    monkeypatch.setattr(comparison, "_CELLS", 7)
    assert confidence_interval(share, seed=3) == pytest.approx(first, abs=1e-12)


@pytest.mark.parametrize(
    ("share", "value"),
    [
        (each(0.3), 0.3),
        (each(1, 1, 1), 1),
        (each(*[0.1] * 7), 0.1),
        ((np.array([1.0, 5.0, 2.0]), np.array([1.0, 5.0, 2.0])), 1),  # unlike counts, all right
        ((np.array([0.0, 2.0, 0.0]), np.array([0.0, 5.0, 0.0])), 0.4),  # one picture counts
    ],
)
def test_where_pictures_do_not_differ_both_ends_are_the_figure(share, value):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert confidence_interval(share) == pytest.approx((value, value), abs=1e-12)
        low, high = confidence_interval(share)
        assert low == high
        assert compare(share, share) == Difference(0, 0, 0, 1)


def test_pictures_that_count_for_nothing_change_nothing():
    sums, counts = coin_tosses(40, 0.4, np.random.default_rng(0))
    padded = (np.append(sums, [0, 0]), np.append(counts, [0, 0]))
    assert confidence_interval(padded) == confidence_interval((sums, counts))


@pytest.mark.parametrize(
    ("share", "message"),
    [
        ((np.ones(3), np.ones(2)), r"\(3,\) and counts \(2,\)"),
        ((np.array([math.nan, 1]), np.ones(2)), "finite"),
        ((np.zeros(2), np.zeros(2)), "one of them above 0"),
        ((np.zeros(0), np.zeros(0)), "one of them above 0"),
        ((np.zeros(2), np.array([1.0, -1.0])), "not negative"),
        ((np.ones(2), np.array([1.0, 0.0])), "picture 1 has a sum"),
    ],
)
def test_shares_that_mean_nothing_are_refused(share, message):
    with pytest.raises(ValueError, match=message):
        confidence_interval(share)
    with pytest.raises(ValueError, match=message):
        compare(share, share)


@pytest.mark.parametrize("values", [6, 200_000])
def test_memory_is_bounded(values):
    # 2000 resamples of 200,000 pictures, all at once, are 3.2 GB; of 100 resamples, 160 MB.
    rng = np.random.default_rng(0)
    sums = rng.integers(values, size=200_000) / values
    resamples = 2000 if values == 6 else 60
    tracemalloc.start()
    confidence_interval((sums, np.ones(200_000)), resamples=resamples)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 90e6


# ---- differences --------------------------------------------------------------------------------------------------


def by_enumeration(differences: list[float]) -> float:
    sums = [abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
            for signs in itertools.product((-1, 1), repeat=len(differences))]  # fmt: skip
    return sum(total >= abs(sum(differences)) - 1e-9 for total in sums) / len(sums)


@pytest.mark.parametrize(
    ("differences", "p_value"),
    [
        ([1, 1, 1], 2 / 8),  # +++ and −−−
        ([1, 1, 1, 0, 0], 2 / 8),  # those that are equal have no say
        ([1, 1, 1, -1], 10 / 16),  # |Σ| = 2 or more but for the six of two and two
        ([2, 1], 2 / 4),
        ([2, 1, -1], 6 / 8),  # |Σ| is 4 twice, 2 four times, 0 twice
        ([1, -1], 1),
        ([0.1, 0.2, 0.3, 0.4, 0.5], 2 / 32),
    ],
)
def test_p_values_of_few_pictures_by_hand(differences, p_value):
    first = each(*[3] * len(differences))
    second = each(*(3 + d for d in differences))
    assert compare(first, second).p_value == pytest.approx(p_value)
    assert compare(second, first).p_value == pytest.approx(p_value)
    assert by_enumeration(differences) == pytest.approx(p_value)


def test_p_values_of_more_pictures_come_near_all_signs():
    # 12 pictures: 4096 signs, more than are drawn; σ of the estimate is below √(0.25 / 20000) = 0.0036.
    rng = np.random.default_rng(0)
    for differences in (rng.normal(0.3, 1, 12), rng.integers(-2, 4, 12) / 7):
        found = compare(each(*np.zeros(12)), each(*differences), resamples=4000)
        assert found.p_value == pytest.approx(by_enumeration(list(differences)), abs=0.03)


def test_with_one_caption_each_it_is_the_sign_test():
    # Right and wrong: McNemar's exact test, the binomial of those that changed.
    first, second = np.zeros(400), np.zeros(400)
    first[:30], second[:10], second[100:142] = 1, 1, 1  # 20 were lost, 42 gained
    found = compare(each(*first), each(*second), resamples=40_000)
    assert found.value == pytest.approx((42 - 20) / 400)
    assert found.p_value == pytest.approx(stats.binomtest(20, 62).pvalue, abs=0.002)


def test_null_differences_have_uniform_p_values():
    # 300 pairs of figures of the same truth, over 60 pictures that are not equally hard for either.
    rng = np.random.default_rng(0)
    p_values = []
    for seed in range(300):
        first, second = rng.beta(2, 2, 60) + rng.normal(0, [[0.1], [0.1]], (2, 60))
        p_values.append(compare(each(*first), each(*second), resamples=400, seed=seed).p_value)
    assert stats.kstest(p_values, "uniform").pvalue > 0.01
    assert np.mean(np.array(p_values) < 0.05) == pytest.approx(0.05, abs=4 * math.sqrt(0.05 * 0.95 / 300))


def test_a_planted_difference_is_found_and_its_sign_kept():
    rng = np.random.default_rng(0)
    counts = np.full(500, 5)
    hard = rng.beta(2, 2, 500) * 0.9
    first, second = rng.binomial(counts, hard), rng.binomial(counts, hard + 0.1)
    better, worse = compare((first, counts), (second, counts)), compare((second, counts), (first, counts))
    assert better.real
    assert worse.real
    assert better.value == pytest.approx(second.mean() / 5 - first.mean() / 5) == pytest.approx(-worse.value)
    assert 0 < better.low < better.value < better.high
    assert better.low < 0.1 < better.high
    assert better.p_value == 1 / 2001  # the least that 2000 draws can give


def test_pairing_finds_what_two_intervals_do_not():
    rng = np.random.default_rng(0)
    first = rng.binomial(1, 0.5, 1000).astype(float)
    second = first.copy()
    second[np.flatnonzero(first == 0)[:20]] = 1
    overlap = confidence_interval(each(*first))[1] > confidence_interval(each(*second))[0]
    assert overlap
    assert compare(each(*first), each(*second)).real


def test_the_interval_of_a_difference_is_that_of_scipy():
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 6, 200)
    first, second = (rng.binomial(counts, chance) for chance in (0.4, 0.5))

    def difference(a, b, c, axis):
        return (b.sum(axis) - a.sum(axis)) / c.sum(axis)

    theirs = stats.bootstrap(
        (first, second, counts), difference, paired=True, vectorized=True, n_resamples=20_000, method="percentile",
        rng=1,
    ).confidence_interval  # fmt: skip
    ours = compare((first, counts), (second, counts), resamples=20_000)
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs), abs=0.003)


@pytest.mark.parametrize(
    ("difference", "real"),
    [
        (Difference(0.1, 0.01, 0.2, 0.01), True),
        (Difference(-0.1, -0.2, -0.01, 0.01), True),
        (Difference(0.1, 0.01, 0.2, 0.06), False),
        (Difference(0.1, -0.01, 0.2, 0.01), False),
        (Difference(0.1, 0.0, 0.2, 0.01), False),
        (Difference(0.1, 0.01, 0.2, 0.02, level=0.99), False),
        (Difference(0.1, 0.01, 0.2, 0.06, level=0.9), True),
    ],
)
def test_real_needs_both(difference, real):
    assert difference.real is real


def test_only_the_same_pictures_are_compared():
    with pytest.raises(InputError, match="over 3 and 4 pictures"):
        compare(each(1, 0, 1), each(1, 0, 1, 1))
    with pytest.raises(InputError, match="do not count the same"):
        compare((np.ones(2), np.array([1.0, 2.0])), (np.ones(2), np.array([2.0, 1.0])))
    with pytest.raises(InputError, match="do not count the same"):
        compare((np.zeros(2), np.array([1.0, 0.0])), (np.zeros(2), np.array([0.0, 1.0])))


# ---- of many ------------------------------------------------------------------------------------------------------


def test_holm_by_hand():
    # Sorted 0.01, 0.02, 0.03, 0.5 times 4, 3, 2, 1: 0.04, 0.06, 0.06, 0.5.
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([0.02, 0.02]) == pytest.approx([0.04, 0.04])
    assert holm([0.01, 0.012]) == pytest.approx([0.02, 0.02])  # never below the one before
    assert holm([0.7, 0.8]) == [1, 1]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_holm_is_the_closed_test_of_bonferroni():
    # p of a hypothesis is the largest Bonferroni p, size · least, of all sets of hypotheses that hold it.
    p_values = np.random.default_rng(0).beta(0.3, 2, 7).tolist()
    sets = [s for size in range(1, 8) for s in itertools.combinations(range(7), size)]
    expected = [min(1, max(len(s) * min(p_values[j] for j in s) for s in sets if i in s)) for i in range(7)]
    assert holm(p_values) == pytest.approx(expected)
