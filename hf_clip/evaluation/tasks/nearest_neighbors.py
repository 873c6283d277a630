"""Nearest neighbours: how often the pictures most alike are of a picture's class. Needs scikit-learn."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ...core.errors import InputError
from ...data.evaluation_set import EvaluationSet
from ..metrics import answers
from ..outcome import Outcome
from .classes import (
    ClassTask,
    Labelled,
    add_chance,
    checked,
    labelled,
    listed,
    number_classes,
    score_answers,
    untrained,
)
from .task import Given, Protocol, check_features

_PICTURES = 1024  # whose votes are counted at a time


def evaluate_nearest_neighbours(
    train: Labelled,
    test: Labelled | None = None,
    *,
    features: str = "projected",
    neighbours: int = 20,
    classes: Sequence[str] | None = None,
) -> Outcome:
    """How often most of the pictures of train nearest to one of the test, by cosine, are of its class.

    Each neighbour has one vote. A tie of votes counts against the model; scikit-learn's `KNeighborsClassifier` gives
    it to the first class. Of train pictures equally far any may vote. Distances are found in blocks: nothing of the
    size test × train is made.

    Args:
        test: default: leave-one-out. Each picture of train is looked for among the others; its copies, if there are
            any, are others.
        features: what they are, as in `evaluate_linear_probe`; brought to unit length here.
        neighbours: how many vote.
        classes: names, for the notes.

    Returns:
        metrics: `knn{neighbours}_{features}_acc1` and `…_mean_per_class_recall`; `…_{features}_leave_one_out_…`.
        details: "labels" and "answers", (test pictures,).

    Raises:
        InputError: more neighbours than pictures to choose them from, no pictures, features not finite.
    """
    from sklearn.neighbors import NearestNeighbors

    check_features(features)
    train = checked(train, "train")
    asked = None if test is None else checked(test, "test")
    others = len(train) - (asked is None)
    if not others:
        raise InputError(
            "the data have one picture, which has no other for a neighbour: give pictures to find neighbours among, "
            "as train_data"
        )
    if not 1 <= neighbours <= others:
        raise InputError(f"{neighbours} neighbours cannot be chosen from {others} pictures: ask for 1 to {others}")
    search = NearestNeighbors(n_neighbors=neighbours, algorithm="brute").fit(_unit(train))
    nearest = search.kneighbors(None if asked is None else _unit(asked), return_distance=False)
    prefix = f"knn{neighbours}_{features}" + ("_leave_one_out" if asked is None else "")
    labels = train.labels if asked is None else asked.labels
    outcome = score_answers(_elected(train.labels[torch.from_numpy(nearest)], labels), labels, prefix)
    outcome.notes = _lonely(labels, classes) if asked is None else untrained(train.labels, labels, classes)
    outcome.protocol = {
        "classifier": f"majority of {neighbours} nearest neighbours by cosine; ties count against the model",
        "neighbours": neighbours,
        "leave_one_out": asked is None,
        "train_pictures": len(train),
        "test_pictures": len(labels),
        "features": features,
        "normalised": True,
    }
    return outcome


def _unit(split: Labelled) -> np.ndarray:
    """fp32: scikit-learn multiplies blocks of it in fp64."""
    return normalize(split.features.float()).numpy()


def _elected(votes: Tensor, labels: Tensor) -> Tensor:
    """(pictures,): the class of most votes; where the right one shares the first place, the first of the others.

    Args:
        votes: (pictures, neighbours), the class of each neighbour.
        labels: (pictures,), the right class.
    """
    classes = 1 + int(max(votes.max(), labels.max()))
    elected = []
    for cast, right in zip(votes.split(_PICTURES), labels.split(_PICTURES), strict=True):
        counts = torch.zeros(len(cast), classes, dtype=torch.double)
        counts.scatter_add_(1, cast, torch.ones_like(cast, dtype=torch.double))
        elected.append(answers(counts, right, tie=0))
    return torch.cat(elected)


def _lonely(labels: Tensor, classes: Sequence[str] | None) -> list[str]:
    alone = (torch.bincount(labels) == 1).nonzero().flatten().tolist()
    if not alone:
        return []
    return [f"{listed(alone, classes)} with one picture, which has no other to be found by: it counts as wrong"]


class NearestNeighbors(ClassTask):
    name = "knn"
    title = "Nearest neighbours"
    phrase = "classification by nearest neighbours"
    hub_type = ("image-classification", "Image classification from frozen features")
    pattern = r"knn\d*_"
    one_label = True
    learns_from = ("train",)
    package = ("sklearn", "scikit-learn")

    def choosable(self, rows: EvaluationSet | None, protocol: Protocol) -> list[str]:
        prefix = f"knn{protocol.neighbours}_{protocol.features}_leave_one_out"
        return [f"{prefix}_{what}" for what in ("acc1", "mean_per_class_recall")]

    def check(self, rows: EvaluationSet, called: str, protocol: Protocol, best: str = "") -> None:
        super().check(rows, called, protocol, best)
        if protocol.neighbours >= len(rows):
            raise InputError(
                f"{protocol.neighbours} neighbours cannot be chosen from the {len(rows) - 1} other pictures of "
                f"{called}: set eval_neighbours to fewer"
            )

    def measure(self, given: Given) -> Outcome:
        train, protocol = given.train, given.protocol
        parts = number_classes({"test": given.embeddings} | ({"train": train} if train else {}))
        of_parts = {name: labelled(part, protocol.features) for name, part in parts.items()}
        outcome = evaluate_nearest_neighbours(
            of_parts.get("train", of_parts["test"]),
            of_parts["test"] if train else None,
            features=protocol.features,
            neighbours=protocol.neighbours,
            classes=parts["test"].class_names,
        )
        return add_chance(outcome, parts)

    def short_label(self, metric: str) -> str:
        return metric
