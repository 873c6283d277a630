"""Nearest neighbours: how often the pictures most alike are of a picture's class. Needs scikit-learn."""

import torch
from torch.nn.functional import normalize

from ..errors import InputError
from .linear_probe import Labelled, check_space, listed, prepared, score_answers, untrained
from .outcome import Outcome


def evaluate_nearest_neighbours(
    train: Labelled,
    test: Labelled | None = None,
    *,
    features: str = "projected",
    neighbours: int = 20,
) -> Outcome:
    """How often most of the pictures of train nearest to one of the test, by cosine, are of its class.

    Each neighbour has one vote. A tie goes to the first of the classes, and of train pictures equally far any may
    vote, as in scikit-learn's `KNeighborsClassifier`. Distances are found in blocks: nothing of the size
    test × train is made.

    Args:
        test: default: leave-one-out. Each picture of train is looked for among the others; its copies, if there are
            any, are others.
        features: what they are, as in `evaluate_linear_probe`; brought to unit length here.
        neighbours: how many vote.

    Returns:
        metrics: `knn{neighbours}_{features}_acc1` and `…_mean_per_class_recall`; `…_{features}_leave_one_out_…`.
        details: "labels" and "answers", (test pictures,).

    Raises:
        InputError: more neighbours than pictures to choose them from, no pictures, features not finite.
    """
    from sklearn.neighbors import KNeighborsClassifier

    check_space(features)
    train = prepared(train, "train", features)
    asked = None if test is None else prepared(test, "test", features)
    others = len(train) - (asked is None)
    if not 1 <= neighbours <= others:
        raise InputError(f"{neighbours} neighbours cannot be chosen from {others} pictures: ask for 1 to {others}")
    classifier = KNeighborsClassifier(neighbours, algorithm="brute")
    classifier.fit(normalize(train.features).numpy(), train.labels.numpy())
    chosen = classifier.predict(None if asked is None else normalize(asked.features).numpy())
    prefix = f"knn{neighbours}_{features}" + ("_leave_one_out" if asked is None else "")
    labels = train.labels if asked is None else asked.labels
    outcome = score_answers(torch.from_numpy(chosen), labels, prefix)
    outcome.notes = _lonely(labels) if asked is None else untrained(train.labels, labels)
    outcome.protocol = {
        "classifier": f"majority of {neighbours} nearest neighbours by cosine, a tie to the first class",
        "neighbours": neighbours,
        "leave_one_out": asked is None,
        "train_pictures": len(train),
        "test_pictures": len(labels),
        "features": features,
        "normalised": True,
    }
    return outcome


def _lonely(labels: torch.Tensor) -> list[str]:
    alone = (torch.bincount(labels) == 1).nonzero().flatten().tolist()
    return (
        [f"{listed(alone)} with one picture, which has no other to be found by: it counts as wrong"] if alone else []
    )
