"""Nearest neighbours on points of a circle, worked out by hand, and against a loop over all pairs."""

import math
import resource
from collections import Counter
from functools import partial

import numpy as np
import pytest
import sklearn.neighbors
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from torch import tensor

from hf_clip.core.errors import InputError
from hf_clip.evaluation.tasks import nearest_neighbors
from hf_clip.evaluation.tasks.classes import Labelled
from hf_clip.evaluation.tasks.nearest_neighbors import evaluate_nearest_neighbours

pooled = partial(evaluate_nearest_neighbours, features="pooled")


def circle(*points: tuple[float, int]) -> Labelled:
    """(angle in degrees, class) of each."""
    angles = tensor([angle for angle, _ in points]).double().deg2rad()
    return Labelled(torch.stack([angles.cos(), angles.sin()], dim=1), tensor([label for _, label in points]))


def random(pictures: int, seed: int, classes: int = 3) -> Labelled:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (pictures,), generator=generator)
    return Labelled(torch.eye(4)[labels] + torch.randn(pictures, 4, generator=generator), labels)


def by_a_loop(train: Labelled, test: Labelled, neighbours: int, leave_one_out: bool = False) -> list[int]:
    answers = []
    for i, picture in enumerate(test.features.double()):
        cosines = [
            (float(picture @ other / picture.norm() / other.norm()), int(label))
            for j, (other, label) in enumerate(zip(train.features.double(), train.labels, strict=True))
            if not (leave_one_out and i == j)
        ]
        votes = Counter(label for _, label in sorted(cosines, reverse=True)[:neighbours])
        first = max(votes.values())
        elected = [label for label in sorted(votes) if votes[label] == first]
        wrong = [label for label in elected if label != int(test.labels[i])]
        answers.append((wrong or elected)[0])
    return answers


TRAIN = circle((0, 0), (10, 0), (60, 1), (80, 1), (100, 1), (200, 2))


@pytest.mark.parametrize(
    ("neighbours", "answers"),
    [
        # From 5°: 0°, 10°, 60°. From 41°: 60°, 10°, 80°. From 190°: 200°, 100°, 80°. From 300°: 0°, 10°, 200°.
        (1, [0, 1, 2, 0]),
        (3, [0, 1, 1, 0]),  # from 300°: two of class 0
        (6, [1, 1, 1, 1]),  # three of six are of class 1
    ],
)
def test_points_of_a_circle(neighbours, answers):
    test = circle((5, 0), (41, 1), (190, 2), (300, 1))
    outcome = pooled(TRAIN, test, neighbours=neighbours)
    assert outcome.details["answers"].tolist() == answers
    assert outcome.details["labels"].tolist() == [0, 1, 2, 1]


def test_figures_and_shares_by_hand():
    # Right but for 300°: three of four; by class 1 of 1, 1 of 2, 1 of 1.
    outcome = pooled(TRAIN, circle((5, 0), (41, 1), (190, 2), (300, 1)), neighbours=1)
    assert outcome.metrics == pytest.approx({"knn1_pooled_acc1": 3 / 4, "knn1_pooled_mean_per_class_recall": 5 / 6})
    for name, (sums, counts) in outcome.shares.items():
        assert sums.sum() / counts.sum() == pytest.approx(outcome.metrics[name])
    # Each class weighs 4/3: a picture of class 1, which has two, 2/3.
    sums, counts = outcome.shares["knn1_pooled_mean_per_class_recall"]
    assert counts == pytest.approx([4 / 3, 2 / 3, 4 / 3, 2 / 3])
    assert sums == pytest.approx([4 / 3, 2 / 3, 4 / 3, 0])


def test_a_tie_of_votes_counts_against_the_model():
    # One vote each for 1 and 2: wrong for both, and for 0, which goes to the first of them.
    train = circle((0, 2), (10, 1))
    test = circle((1, 2), (2, 1), (3, 0), (4, 3))
    outcome = pooled(train, test, neighbours=2)
    assert outcome.details["answers"].tolist() == [1, 2, 1, 1]
    assert outcome.metrics["knn2_pooled_acc1"] == 0
    assert pooled(train, test, neighbours=1).metrics["knn1_pooled_acc1"] == 1 / 4
    assert outcome.protocol["classifier"].endswith("ties count against the model")


def test_votes_are_counted_alike_in_blocks_of_any_size(monkeypatch):
    train, test = random(101, 0), random(57, 1)
    whole = pooled(train, test, neighbours=4).details["answers"]
    monkeypatch.setattr(nearest_neighbors, "_PICTURES", 10)
    assert pooled(train, test, neighbours=4).details["answers"].equal(whole)


@pytest.mark.parametrize("neighbours", [1, 5, 20, 100])
def test_as_a_loop_over_all_pairs_has_it(neighbours):
    train, test = random(101, 0), random(57, 1)
    outcome = pooled(train, test, neighbours=neighbours)
    expected = by_a_loop(train, test, neighbours)
    assert outcome.details["answers"].tolist() == expected
    assert outcome.metrics == pytest.approx({
        f"knn{neighbours}_pooled_acc1": accuracy_score(test.labels, expected),
        f"knn{neighbours}_pooled_mean_per_class_recall": balanced_accuracy_score(test.labels, expected),
    })  # fmt: skip
    alone = pooled(train, neighbours=neighbours)
    expected = by_a_loop(train, train, neighbours, leave_one_out=True)
    assert alone.details["answers"].tolist() == expected
    assert alone.metrics == pytest.approx({
        f"knn{neighbours}_pooled_leave_one_out_acc1": accuracy_score(train.labels, expected),
        f"knn{neighbours}_pooled_leave_one_out_mean_per_class_recall": balanced_accuracy_score(train.labels, expected),
    })  # fmt: skip


def test_lengths_do_not_matter():
    train, test = random(50, 0), random(20, 1)
    longer = Labelled(train.features * torch.linspace(0.01, 50, 50)[:, None], train.labels)
    for features in ("projected", "pooled"):
        outcomes = [evaluate_nearest_neighbours(t, test, features=features, neighbours=3) for t in (train, longer)]
        assert outcomes[0].metrics == outcomes[1].metrics
        assert set(outcomes[0].metrics) == {f"knn3_{features}_acc1", f"knn3_{features}_mean_per_class_recall"}


def test_leave_one_out_does_not_see_itself():
    # Each picture is nearest to one of the other class; were it seen, all would be right.
    train = circle((0, 0), (1, 1), (90, 0), (91, 1), (180, 0), (181, 1))
    outcome = pooled(train, neighbours=1)
    assert outcome.metrics["knn1_pooled_leave_one_out_acc1"] == 0
    assert pooled(train, train, neighbours=1).metrics["knn1_pooled_acc1"] == 1


@pytest.mark.parametrize("copies", [2, 5])
def test_copies_are_others(copies):
    train = circle(*[(0, 0)] * copies, *[(1, 1)] * copies, *[(90, 0)] * copies)
    neighbours = copies - 1
    outcome = pooled(train, neighbours=neighbours)
    assert outcome.metrics[f"knn{neighbours}_pooled_leave_one_out_acc1"] == 1


def test_blocks_hold_the_memory():
    # 20,000 × 20,000 distances are 3.2 GB.
    train = random(20_000, 0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pooled(train, neighbours=5)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 300


@pytest.mark.parametrize("features", ["projected", "pooled"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_search_has_one_copy_in_fp32(features, dtype, monkeypatch):
    searched, original = [], sklearn.neighbors.NearestNeighbors.fit
    monkeypatch.setattr(
        sklearn.neighbors.NearestNeighbors, "fit", lambda self, x: searched.append(x) or original(self, x)
    )
    train = random(50, 0)
    train = Labelled(train.features.to(dtype) * 3, train.labels)
    before = train.features.clone()
    evaluate_nearest_neighbours(train, features=features, neighbours=1)
    assert searched[0].dtype == np.float32
    assert np.linalg.norm(searched[0], axis=1) == pytest.approx(1)
    assert train.features.equal(before)


def test_classes_that_cannot_be_right_are_told():
    outcome = pooled(TRAIN, circle((5, 0), (40, 3), (41, 3)), neighbours=1)
    assert outcome.notes == ["the test has 1 class (3) without a picture to learn from: they count as wrong"]
    assert outcome.metrics["knn1_pooled_acc1"] == pytest.approx(1 / 3)
    alone = pooled(TRAIN, neighbours=1)
    assert alone.notes == ["1 class (2) with one picture, which has no other to be found by: it counts as wrong"]
    assert pooled(TRAIN, circle((5, 0)), neighbours=1).notes == []
    names = ["ant", "bee", "cat", "dog"]
    assert "1 class (dog) without" in pooled(TRAIN, circle((5, 3)), neighbours=1, classes=names).notes[0]
    assert "1 class (cat) with one" in pooled(TRAIN, neighbours=1, classes=names).notes[0]


def test_protocol_says_how():
    protocol = pooled(TRAIN, circle((5, 0)), neighbours=2).protocol
    assert (protocol["train_pictures"], protocol["test_pictures"], protocol["leave_one_out"]) == (6, 1, False)
    assert (protocol["features"], protocol["normalised"], protocol["neighbours"]) == ("pooled", True, 2)
    protocol = evaluate_nearest_neighbours(TRAIN, neighbours=2).protocol
    assert (protocol["test_pictures"], protocol["leave_one_out"], protocol["features"]) == (6, True, "projected")


@pytest.mark.parametrize(
    ("train", "test", "settings", "message"),
    [
        (TRAIN, TRAIN, {"neighbours": 7}, "7 neighbours cannot be chosen from 6 pictures: ask for 1 to 6"),
        (TRAIN, None, {"neighbours": 6}, "6 neighbours cannot be chosen from 5 pictures"),
        (TRAIN, None, {"neighbours": 0}, "0 neighbours"),
        (TRAIN[:1], None, {"neighbours": 1}, r"one picture, which has no other .*give pictures .*as train_data"),
        (TRAIN, TRAIN[:0], {"neighbours": 1}, "test has no pictures"),
        (TRAIN[:0], None, {"neighbours": 1}, "train has no pictures"),
        (Labelled(torch.full((3, 2), math.inf), tensor([0, 1, 2])), None, {"neighbours": 1}, "not finite"),
        (TRAIN, TRAIN, {"neighbours": 1, "features": "raw"}, "one of projected, pooled"),
    ],
)
def test_what_cannot_be_measured_is_refused(train, test, settings, message):
    with pytest.raises(InputError, match=message):
        evaluate_nearest_neighbours(train, test, **settings)
