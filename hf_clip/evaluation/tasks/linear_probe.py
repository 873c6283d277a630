"""Linear probe: how well a linear classifier tells classes apart by frozen features. Needs scikit-learn."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ...core.errors import InputError
from ..metrics import answers, check_finite, class_ranks, class_shares, mean_per_class_recall, recall_at_k
from ..outcome import Outcome

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

SPACES = ("projected", "pooled")
MAX_ITERATIONS = 1000
# λ by step: 97 of them, 8 a decade, from 10⁻⁶ to 10⁶.
LAMBDAS = tuple(10 ** (step / 8 - 6) for step in range(97))
# Steps between the values first tried: two decades.
_COARSE = 16
_HELD_OUT = 5  # one of so many pictures


@dataclass
class Labelled:
    """Pictures of known class.

    Args:
        features: (pictures, dim).
        labels: (pictures,), int64, classes from 0.

    Raises:
        InputError: the two are not of as many pictures, or a label is negative.
    """

    features: Tensor
    labels: Tensor

    def __post_init__(self):
        if len(self.features) != len(self.labels):
            raise InputError(f"{len(self.features)} features and {len(self.labels)} labels: give a label for each")
        if (self.labels < 0).any():
            first = int((self.labels < 0).nonzero()[0])
            raise InputError(f"picture {first + 1} has label {int(self.labels[first])}: classes count from 0")

    def __getitem__(self, chosen: Tensor | slice) -> "Labelled":
        return Labelled(self.features[chosen], self.labels[chosen])

    def __add__(self, other: "Labelled") -> "Labelled":
        return Labelled(torch.cat([self.features, other.features]), torch.cat([self.labels, other.labels]))

    def __len__(self) -> int:
        return len(self.labels)


def evaluate_linear_probe(
    train: Labelled,
    test: Labelled,
    validation: Labelled | None = None,
    *,
    features: str = "projected",
    split: str = "",
    shots: Sequence[int] = (),
    seeds: int = 3,
    seed: int = 0,
    classes: Sequence[str] | None = None,
) -> Outcome:
    """Accuracy on the test of a logistic regression on features of train (Radford et al. 2021, arXiv:2103.00020, A.3).

    It minimises Σ losses + λ/2 · ‖weights‖², the intercept left free: λ is 1/C of scikit-learn, whose C multiplies
    the sum of the losses, not their mean. λ is chosen by accuracy on validation, of equals the middle one, among
    8 values a decade from 10⁻⁶ to 10⁶: seven of them two decades apart, then on both sides of the best at half the
    distance, four times. The classifier is then fitted on train and validation together. Without a validation, a
    fifth of each class of train, drawn by the seed, one picture or more, is held out for the choice; of a class with
    one picture none is.

    Few-shot: for each n of `shots`, `seeds` times n pictures of each class are drawn from train, and for the choice
    of λ n or fewer from validation; the classifier is fitted on the n alone.

    Fits stop where no component of the gradient of that sum is above 10⁻⁴, scikit-learn's default when the paper was
    written. Since 1.4 it looks at the gradient of the mean, and would stop far from the optimum where λ is small.

    Args:
        train, test, validation: of one model, alike processed.
        features: what they are: "projected" (after the projection; brought to unit length here) or "pooled" (before).
        split: stands behind the features in the names of the figures: how train and test were come by.
        seeds: how many draws of each n.
        classes: names, for the notes.

    Returns:
        metrics: `linear_probe_{features}_acc1`, `…_acc5` (of more than 5 classes), `…_mean_per_class_recall`, and
            `linear_probe_{features}_{n}shot_acc1` with, of two seeds or more, its sample deviation, `…_deviation`.
        details: "labels" and "answers", (test pictures,), of the classifier fitted on everything.

    Raises:
        InputError: fewer than two classes in train, no test, no picture to choose λ by, features not finite, shots or
            seeds below 1.
    """
    check_space(features)
    if min([seeds, *shots]) < 1:
        raise InputError(f"shots {list(shots)} and seeds {seeds}: give 1 or more of each")
    train, test = checked(train, "train"), _for_fits(checked(test, "test"), features)
    if len(train.labels.unique()) < 2:
        raise InputError("train has pictures of one class only: a linear probe needs two or more")
    if validation is None:
        choice = f"a stratified fifth of train, seed {seed}; of a class with one picture none"
        held_out = _held_out(train.labels, seed)
        whole, size = train[held_out.long().argsort(stable=True)], int((~held_out).sum())
    else:
        choice = "given"
        whole, size = train + checked(validation, "validation"), len(train)
    whole = _for_fits(whole, features)
    train, validation = whole[:size], whole[size:]  # views: there is one copy
    prefix = f"linear_probe_{features}" + (f"_{split}" if split else "")
    with _convergence_warnings() as unconverged:
        strength = _choose_lambda(train, validation)
        outcome = _measure(_fit(whole, strength), test, prefix)
        for n in shots:
            outcome |= _few_shot(train, validation, test, n, range(seeds), seed, prefix, classes)
    outcome.notes += untrained(whole.labels, test.labels, classes)
    if strange := _listed_unknown(train.labels, validation.labels, classes):
        outcome.notes.append(f"validation has {strange} that train has not: wrong where λ is chosen, and in few-shot")
    if unconverged:
        outcome.notes.append(f"{len(unconverged)} fits stopped unconverged, at {MAX_ITERATIONS} iterations or before")
    outcome.protocol |= {
        "classifier": f"logistic regression, L-BFGS, at most {MAX_ITERATIONS} iterations; Σ losses + λ/2 ‖weights‖²",
        "lambda": strength,
        "sweep": "accuracy on validation; 1e-06 to 1e+06, seven values, then halving around the best to 8 a decade",
        "validation": choice,
        "train_pictures": len(train),
        "validation_pictures": len(validation),
        "test_pictures": len(test),
        "features": features,
        "normalised": features == "projected",
        "seed": seed,
        "seeds": seeds if shots else 0,
        "shots": list(shots),
    }
    return outcome


# ---- also of the nearest neighbours -------------------------------------------------------------------------------


def check_space(features: str) -> None:
    if features not in SPACES:
        raise InputError(f"features are {features!r}: they are one of {', '.join(SPACES)}")


def checked(split: Labelled, name: str) -> Labelled:
    """On the CPU.

    Raises:
        InputError: no pictures; features not finite.
    """
    if not len(split):
        raise InputError(f"{name} has no pictures: nothing to measure")
    try:
        check_finite(split.features, f"features of {name}")
    except ValueError as error:
        raise InputError(str(error)) from None
    return Labelled(split.features.cpu(), split.labels.cpu())


def score_answers(chosen: Tensor, labels: Tensor, prefix: str) -> Outcome:
    """`{prefix}_acc1` and `{prefix}_mean_per_class_recall` of the classes chosen, (pictures,), with their shares."""
    right = chosen == labels
    weights = class_shares(labels)
    return Outcome(
        metrics={
            f"{prefix}_acc1": recall_at_k((~right).long(), 1),
            f"{prefix}_mean_per_class_recall": mean_per_class_recall(right, labels),
        },
        shares={
            f"{prefix}_acc1": _mean_of(right),
            # The weights' sum is the number of pictures. Counted so, resamples stay in [0, 1].
            f"{prefix}_mean_per_class_recall": ((right * weights).numpy(), weights.numpy()),
        },
        details={"labels": labels, "answers": chosen},
    )


def untrained(train: Tensor, test: Tensor, classes: Sequence[str] | None = None) -> list[str]:
    """A sentence about the classes of the test without a picture in train, if there are any."""
    unknown = _listed_unknown(train, test, classes)
    return [f"the test has {unknown} without a picture to learn from: they count as wrong"] if unknown else []


def _listed_unknown(train: Tensor, other: Tensor, classes: Sequence[str] | None) -> str:
    unknown = other[~torch.isin(other, train)].unique().tolist()
    return listed(unknown, classes) if unknown else ""


def listed(labels: list[int], classes: Sequence[str] | None = None) -> str:
    """How many classes, and the names of the first five."""
    names = [classes[label] if classes and label < len(classes) else str(label) for label in labels[:5]]
    count = f"{len(labels)} class{'es' if len(labels) > 1 else ''}"
    return f"{count} ({', '.join(names)}{', …' if len(labels) > 5 else ''})"


def _mean_of(values: Tensor) -> tuple[np.ndarray, np.ndarray]:
    return values.double().numpy(), np.ones(len(values))


# ---- the classifier -----------------------------------------------------------------------------------------------


def _for_fits(split: Labelled, features: str) -> Labelled:
    """A copy in fp64; of unit length after the projection."""
    values = split.features.to(torch.double, copy=True)
    return Labelled(normalize(values, out=values) if features == "projected" else values, split.labels)


def _fit(data: Labelled, strength: float) -> "LogisticRegression":
    from sklearn.linear_model import LogisticRegression

    classifier = LogisticRegression(C=1 / strength, max_iter=MAX_ITERATIONS, tol=1e-4 / len(data))
    return classifier.fit(data.features.numpy(), data.labels.numpy())


def _scores(classifier: "LogisticRegression", data: Labelled) -> Tensor:
    """(pictures, classes), fp64; −inf for a class that the classifier has not seen."""
    decisions = torch.from_numpy(classifier.decision_function(data.features.numpy()))
    if decisions.ndim == 1:
        decisions = torch.stack([-decisions, decisions], dim=1)
    classes = 1 + max(int(data.labels.max()), int(classifier.classes_.max()))
    scores = torch.full((len(data), classes), -torch.inf, dtype=torch.float64)
    scores[:, torch.from_numpy(classifier.classes_)] = decisions
    return scores


def _ranks(classifier: "LogisticRegression", data: Labelled) -> Tensor:
    return class_ranks(_scores(classifier, data), data.labels, tie=0)


def _choose_lambda(train: Labelled, validation: Labelled) -> float:
    return search_peak(lambda strength: recall_at_k(_ranks(_fit(train, strength), validation), 1))


def search_peak(score: Callable[[float], float]) -> float:
    """The λ of `LAMBDAS` that scores best, found as the paper does: where scores rise to one peak and fall after it,
    it is the peak of all 97, after 15 of them. Of equals, the middle one: next to the edge of a plateau, the last fit,
    on more pictures, may fall off it.
    """
    scores = {step: score(LAMBDAS[step]) for step in range(0, len(LAMBDAS), _COARSE)}

    def best() -> int:
        equals = sorted(step for step in scores if scores[step] == max(scores.values()))
        return equals[len(equals) // 2]

    distance = _COARSE // 2
    while distance:
        peak = best()
        for step in (peak - distance, peak + distance):
            if 0 <= step < len(LAMBDAS):
                scores[step] = score(LAMBDAS[step])
        distance //= 2
    return LAMBDAS[best()]


def _measure(classifier: "LogisticRegression", test: Labelled, prefix: str) -> Outcome:
    scores = _scores(classifier, test)
    outcome = score_answers(answers(scores, test.labels, tie=0), test.labels, prefix)
    if len(classifier.classes_) <= 5:
        outcome.notes.append(f"{prefix}_acc5 left out: of {len(classifier.classes_)} classes it would always be 1")
        return outcome
    ranks = class_ranks(scores, test.labels, tie=0)
    outcome.metrics[f"{prefix}_acc5"] = recall_at_k(ranks, 5)
    outcome.shares[f"{prefix}_acc5"] = _mean_of(ranks < 5)
    return outcome


@contextmanager
def _convergence_warnings() -> Iterator[list[warnings.WarningMessage]]:
    """Those of the block, kept in a list; any others go on."""
    from sklearn.exceptions import ConvergenceWarning

    kept: list[warnings.WarningMessage] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        yield kept
        kept += [warning for warning in caught if issubclass(warning.category, ConvergenceWarning)]
    for warning in caught:
        if warning not in kept:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


# ---- which pictures -----------------------------------------------------------------------------------------------


def _places(labels: Tensor, rng: np.random.Generator) -> Tensor:
    """(pictures,): the place of each picture among those of its class, in a random order."""
    shuffled = torch.from_numpy(rng.permutation(len(labels)))
    order = shuffled[labels[shuffled].argsort(stable=True)]
    counts = torch.bincount(labels)
    places = torch.empty_like(labels)
    places[order] = torch.arange(len(labels)) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    return places


def _held_out(labels: Tensor, seed: int) -> Tensor:
    """(pictures,), boolean: a fifth of each class, one picture or more, none of a class with one picture."""
    counts = torch.bincount(labels)
    if (counts < 2).all():
        raise InputError("no class of train has two pictures, so none can be held out: give a validation split")
    wanted = (counts / _HELD_OUT).round().clamp(min=1) * (counts > 1)
    return _places(labels, np.random.default_rng(seed)) < wanted[labels]


def _few_shot(
    train: Labelled,
    validation: Labelled,
    test: Labelled,
    n: int,
    draws: range,
    seed: int,
    prefix: str,
    classes: Sequence[str] | None,
) -> Outcome:
    """The mean over the draws, and of two or more its sample deviation."""
    right, strengths = [], []
    for draw in draws:
        rng = np.random.default_rng((seed, n, draw))
        few = train[_places(train.labels, rng) < n]
        strengths.append(_choose_lambda(few, validation[_places(validation.labels, rng) < n]))
        right.append(_ranks(_fit(few, strengths[-1]), test) == 0)
    by_picture = torch.stack(right).double()  # (draws, pictures)
    name = f"{prefix}_{n}shot_acc1"
    outcome = Outcome(
        metrics={name: by_picture.mean().item()},
        shares={name: _mean_of(by_picture.mean(0))},
        protocol={f"{n}shot_lambda": strengths},
    )
    if len(draws) > 1:
        outcome.metrics[f"{name}_deviation"] = by_picture.mean(1).std().item()
    counts = torch.bincount(train.labels)
    scarce = ((counts > 0) & (counts < n)).nonzero().flatten().tolist()
    if scarce:
        outcome.notes.append(
            f"{n} shots: {listed(scarce, classes)} with fewer pictures in train, all of which were taken"
        )
    return outcome
