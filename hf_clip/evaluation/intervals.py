"""Whether a figure, or the difference of two, is more than chance. Differences need scipy."""

import math
from dataclasses import dataclass

import numpy as np

from ..core.errors import InputError

# Of resamples × distinct pictures, drawn at a time: 32 MB.
_CELLS = 4_000_000

Share = tuple[np.ndarray, np.ndarray]


@dataclass
class Difference:
    """
    Args:
        value: the second figure − the first.
        low, high: its confidence interval.
        p_value: of a difference at least as large, either way, were the two alike.
        level: of the interval.
    """

    value: float
    low: float
    high: float
    p_value: float
    level: float = 0.95

    @property
    def real(self) -> bool:
        """Whether the interval leaves out 0 and the p-value is below 1 − level. Of many differences, see `holm`."""
        return not self.low <= 0 <= self.high and self.p_value < 1 - self.level


def confidence_interval(
    share: Share, *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """The percentile interval of Σ sums / Σ counts under a bootstrap of pictures (Efron & Tibshirani 1993, ch. 13).

    A picture is drawn with all that is asked of it, so its captions stay together (a cluster bootstrap). Where all
    pictures are alike, both ends are the figure: what was never seen to differ tells nothing of how far it may.

    Args:
        share: (sums, counts), each (pictures,), as in `Outcome.shares`. Pictures with a count of 0 are not drawn.
        level: the share of such intervals that hold the true figure, where pictures are many.

    Raises:
        ValueError: for shares of unequal length, not finite, with a negative count, or with nothing counted.
    """
    low, high = _interval(_resampled(*_checked(share), resamples, np.random.default_rng(seed)), level)
    return low, high


def compare(first: Share, second: Share, *, level: float = 0.95, resamples: int = 2000, seed: int = 0) -> Difference:
    """The second figure − the first, over the same pictures: its interval, and how likely it is by chance.

    The interval is that of `confidence_interval`, a picture being drawn for both at once. The p-value is that of a
    paired permutation test (Fisher 1935, §21): were the two alike, each picture's difference would as likely have
    the other sign, so signs are drawn at random, and p is how often |Σ differences| is at least as large as it was.
    Of up to log2(resamples) pictures that differ, all signs are tried; of more, `resamples` random ones are, and
    the one that was is counted with them (Phipson & Smyth 2010, eq. 2), so that p is never below
    1 / (resamples + 1).

    Args:
        first, second: (sums, counts), each (pictures,), in the same order of pictures.

    Raises:
        InputError: the two are not of the same pictures.
        ValueError: as `confidence_interval`.
    """
    if not np.array_equal(first[1], second[1]):
        raise InputError(
            f"two figures over {len(first[0])} and {len(second[0])} pictures do not count the same: "
            "compare measurements of the same pictures, in the same order"
        )
    (first_sums, _), (second_sums, counts) = _checked(first), _checked(second)
    rng = np.random.default_rng(seed)
    differences = second_sums - first_sums
    low, high = _interval(_resampled(differences, counts, resamples, rng), level)
    p_value = _sign_flip_p_value(differences, resamples, rng)
    return Difference(float(differences.sum() / counts.sum()), low, high, p_value, level)


def holm(p_values: list[float]) -> list[float]:
    """p-values, each made larger so that whichever are below α, the chance that one or more of them is a false alarm
    is below α (Holm 1979): p of place i among m, from the smallest, times m − i + 1, at least that of the place
    before, at most 1.
    """
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(np.asarray(p_values)[order] * factors), 1)
    return adjusted.tolist()


def _checked(share: Share) -> Share:
    """fp64, of the pictures that count."""
    sums, counts = (np.asarray(part, dtype=np.float64) for part in share)
    if sums.ndim != 1 or sums.shape != counts.shape:
        raise ValueError(f"sums are {sums.shape} and counts {counts.shape}: both are (pictures,)")
    counted = counts > 0
    if not (np.isfinite(sums).all() and np.isfinite(counts).all() and (counts >= 0).all() and counted.any()):
        raise ValueError("sums and counts must be finite, counts not negative and one of them above 0")
    if sums[~counted].any():
        raise ValueError(f"picture {np.flatnonzero(sums * ~counted)[0]} has a sum but a count of 0")
    return sums[counted], counts[counted]


def _resampled(sums: np.ndarray, counts: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """(resamples,) figures, each of as many pictures drawn with replacement.

    How often each distinct (sum, count) is drawn is multinomial, which is the bootstrap itself and no approximation:
    of 200,000 pictures with five captions or fewer each, 20 numbers a resample in place of 200,000.
    """
    distinct, copies = np.unique(np.stack([sums, counts], axis=1), axis=0, return_counts=True)
    batch = max(_CELLS // len(distinct), 1)
    figures = []
    for start in range(0, resamples, batch):
        drawn = rng.multinomial(len(sums), copies / len(sums), size=min(batch, resamples - start))
        totals = drawn @ distinct  # (batch, 2)
        figures.append(totals[:, 0] / totals[:, 1])
    return np.concatenate(figures)


def _interval(figures: np.ndarray, level: float) -> tuple[float, float]:
    low, high = np.quantile(figures, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _sign_flip_p_value(differences: np.ndarray, resamples: int, rng: np.random.Generator) -> float:
    from scipy.stats import permutation_test

    differences = differences[differences != 0]  # a sign changes nothing there
    if len(differences) < 2:  # of one picture, |Σ| is the same with either sign
        return 1.0
    if len(differences) <= math.log2(resamples):
        return float(
            permutation_test(
                (differences,),
                lambda signed, axis: np.abs(signed.sum(axis)),
                permutation_type="samples",
                vectorized=True,
                n_resamples=resamples,
                alternative="greater",
            ).pvalue
        )
    # Of m equal differences the number that stay positive is binomial: a number for each distinct size, not picture.
    sizes, copies = np.unique(np.abs(differences), return_counts=True)
    null = np.zeros(resamples)
    for size, count in zip(sizes, copies, strict=True):
        null += size * (2 * rng.binomial(count, 0.5, size=resamples) - count)
    rounding = 1e-12 * np.abs(differences).sum()
    extreme = np.abs(null) >= abs(differences.sum()) - rounding
    return float((extreme.sum() + 1) / (resamples + 1))
