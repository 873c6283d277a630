"""Linear probe: how well a linear classifier tells classes apart by frozen features. Needs scikit-learn."""

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ...core.errors import InputError
from ...data.evaluation_set import EvaluationSet
from ..metrics import answers, class_ranks, recall_at_k
from ..outcome import Outcome
from .classes import (
    ClassTask,
    Labelled,
    accuracies,
    add_chance,
    checked,
    labelled,
    list_unknown,
    listed,
    mean_of,
    number_classes,
    score_answers,
    split_by_content,
    untrained,
)
from .task import Given, Protocol

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

MAX_ITERATIONS = 1000
# λ by step: 97 of them, 8 a decade, from 10⁻⁶ to 10⁶.
LAMBDAS = tuple(10 ** (step / 8 - 6) for step in range(97))
# Steps between the values first tried: two decades.
_COARSE = 16
_HELD_OUT = 5  # one of so many pictures


def evaluate_linear_probe(
    train: Labelled,
    test: Labelled,
    validation: Labelled | None = None,
    protocol: Protocol | None = None,
    *,
    split: str = "",
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

    Few-shot: for each n of the protocol's `shots`, `seeds` times n pictures of each class are drawn from train, and
    for the choice of λ n or fewer from validation; the classifier is fitted on the n alone.

    Fits stop where no component of the gradient of that sum is above 10⁻⁴, scikit-learn's default when the paper was
    written. Since 1.4 it looks at the gradient of the mean, and would stop far from the optimum where λ is small.

    Args:
        train, test, validation: of one model, alike processed.
        protocol: features are "projected" (after the projection; brought to unit length here) or "pooled" (before).
        split: stands behind the features in the names of the figures: how train and test were come by.
        classes: names, for the notes.

    Returns:
        metrics: `linear_probe_{features}_acc1`, `…_acc5` (of more than 5 classes), `…_mean_per_class_recall`, and
            `linear_probe_{features}_{n}shot_acc1` with, of two seeds or more, its sample deviation, `…_deviation`.
        details: "labels" and "answers", (test pictures,), of the classifier fitted on everything.

    Raises:
        InputError: fewer than two classes in train, no test, no picture to choose λ by, features not finite, shots or
            seeds below 1.
    """
    protocol = protocol or Protocol()
    features, shots, seeds = protocol.features, protocol.shots, protocol.seeds
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
            outcome |= _few_shot(_Splits(train, validation, test), n, _Draws(seeds, seed), prefix, classes)
    outcome.notes += untrained(whole.labels, test.labels, classes)
    if strange := list_unknown(train.labels, validation.labels, classes):
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
    outcome.shares[f"{prefix}_acc5"] = mean_of(ranks < 5)
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


class _Splits(NamedTuple):
    train: Labelled
    validation: Labelled
    test: Labelled


class _Draws(NamedTuple):
    """How many, and what they come from."""

    number: int
    seed: int


def _few_shot(splits: _Splits, n: int, draws: _Draws, prefix: str, classes: Sequence[str] | None) -> Outcome:
    """The mean over the draws, and of two or more its sample deviation."""
    train, validation, test = splits
    right, strengths = [], []
    for draw in range(draws.number):
        rng = np.random.default_rng((draws.seed, n, draw))
        few = train[_places(train.labels, rng) < n]
        strengths.append(_choose_lambda(few, validation[_places(validation.labels, rng) < n]))
        right.append(_ranks(_fit(few, strengths[-1]), test) == 0)
    by_picture = torch.stack(right).double()  # (draws, pictures)
    name = f"{prefix}_{n}shot_acc1"
    outcome = Outcome(
        metrics={name: by_picture.mean().item()},
        shares={name: mean_of(by_picture.mean(0))},
        protocol={f"{n}shot_lambda": strengths},
    )
    if draws.number > 1:
        outcome.metrics[f"{name}_deviation"] = by_picture.mean(1).std().item()
    counts = torch.bincount(train.labels)
    scarce = ((counts > 0) & (counts < n)).nonzero().flatten().tolist()
    if scarce:
        outcome.notes.append(
            f"{n} shots: {listed(scarce, classes)} with fewer pictures in train, all of which were taken"
        )
    return outcome


class LinearProbe(ClassTask):
    name = "linear-probe"
    title = "Linear probe"
    phrase = "a linear probe"
    hub_type = ("image-classification", "Image classification from frozen features")
    pattern = "linear_probe_"
    one_label = True
    learns_from = ("train", "validation")
    package = ("sklearn", "scikit-learn")

    def choosable(self, rows: EvaluationSet | None, protocol: Protocol) -> list[str]:
        return [f"linear_probe_{protocol.features}_own_split_{what}" for what in accuracies(rows)]

    def measure(self, given: Given) -> Outcome:
        train, validation, protocol = given.train, given.validation, given.protocol
        if train is None:
            parts = split_by_content(given.embeddings)
        else:
            parts = {"test": given.embeddings, "train": train} | ({"validation": validation} if validation else {})
            parts = number_classes(parts)
        of_parts = {name: labelled(part, protocol.features) for name, part in parts.items()}
        outcome = evaluate_linear_probe(
            of_parts["train"],
            of_parts["test"],
            of_parts.get("validation"),
            protocol,
            split="" if train else "own_split",
            classes=parts["test"].class_names,
        )
        if train is None:
            outcome.protocol["split"] = "the data's own, by picture: ⅗ train, ⅕ validation, ⅕ test"
        return add_chance(outcome, parts)

    def about_interval(self, metric: str) -> str:
        return "of few-shot probes for these draws" if re.search(r"_\d+shot_", metric) else ""

    def short_label(self, metric: str) -> str:
        return metric.replace("linear_probe_", "linear probe ")
