"""The linear probe against scikit-learn used directly, the whole grid of λ, and pictures counted by hand."""

import math
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score, top_k_accuracy_score
from torch import tensor

from hf_clip.core.errors import InputError
from hf_clip.evaluation.tasks import linear_probe
from hf_clip.evaluation.tasks.classes import Labelled
from hf_clip.evaluation.tasks.linear_probe import LAMBDAS, evaluate_linear_probe, search_peak
from hf_clip.evaluation.tasks.task import Protocol


def probe(train, test, validation=None, *, split="", seed=0, classes=None, **protocol):
    return evaluate_linear_probe(
        train, test, validation, Protocol(**protocol), split=split, seed=seed, classes=classes
    )


pooled = partial(probe, features="pooled")


def clouds(counts: list[int], noise: float = 1.0, seed: int = 0, dim: int = 8) -> Labelled:
    """As many pictures of each class as asked for, around its corner, shuffled."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(len(counts)).repeat_interleave(tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=generator)]
    return Labelled(torch.eye(dim)[labels] + noise * torch.randn(len(labels), dim, generator=generator), labels)


def directly(train: Labelled, strength: float) -> LogisticRegression:
    """The minimum of Σ losses + λ/2 ‖w‖², to every digit that fp64 has."""
    fit = LogisticRegression(C=1 / strength, max_iter=100_000, tol=1e-9)
    return fit.fit(train.features.double().numpy(), train.labels.numpy())


TRAIN, VALIDATION, TEST = (
    clouds([40, 25, 30, 20, 35, 30]),
    clouds([20] * 6, seed=1),
    clouds([9, 30, 21, 5, 8, 40], seed=2),
)


# ---- against scikit-learn -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 6])
def test_figures_are_those_of_scikit_learn(classes):
    train, validation, test = (split[split.labels < classes] for split in (TRAIN, VALIDATION, TEST))
    outcome = pooled(train, test, validation)
    fit = directly(train + validation, outcome.protocol["lambda"])
    pictures, labels = test.features.double().numpy(), test.labels.numpy()
    chosen = fit.predict(pictures)
    expected = {
        "linear_probe_pooled_acc1": accuracy_score(labels, chosen),
        "linear_probe_pooled_mean_per_class_recall": balanced_accuracy_score(labels, chosen),
    }
    if classes == 6:
        expected["linear_probe_pooled_acc5"] = top_k_accuracy_score(labels, fit.decision_function(pictures), k=5)
    assert outcome.metrics == pytest.approx(expected)
    assert 0.3 < expected["linear_probe_pooled_acc1"] < 0.95  # neither chance nor perfect
    assert outcome.details["answers"].tolist() == chosen.tolist()
    assert outcome.details["labels"].tolist() == labels.tolist()


def test_shares_add_up_to_the_figures():
    outcome = pooled(TRAIN, TEST, VALIDATION, shots=[2])
    assert set(outcome.shares) == set(outcome.metrics) - {"linear_probe_pooled_2shot_acc1_deviation"}
    for name, (sums, counts) in outcome.shares.items():
        assert sums.shape == counts.shape == (len(TEST),)
        assert sums.sum() / counts.sum() == pytest.approx(outcome.metrics[name])
        assert (sums <= counts).all()  # so that every resample is a share too


def test_lambda_divides_the_sum_of_the_losses():
    # One feature, ±1, all right: w solves n · σ(−w) = λ · w. Of four pictures and λ = 1: 4 / (1 + eʷ) = w at 1.0
    # by bisection; were losses averaged, 1 / (1 + eʷ) = w at 0.4.
    four = Labelled(tensor([[1.0], [1.0], [-1.0], [-1.0]]), tensor([1, 1, 0, 0]))
    weight = float(linear_probe._fit(four, 1.0).coef_[0, 0])
    assert 4 / (1 + math.exp(weight)) == pytest.approx(weight, rel=1e-4)


def test_fits_go_to_the_optimum_where_lambda_is_small():
    weights = linear_probe._fit(TRAIN, 1e-2).coef_
    assert weights == pytest.approx(directly(TRAIN, 1e-2).coef_, abs=0.01)
    early = LogisticRegression(C=1e2, max_iter=1000).fit(TRAIN.features.numpy(), TRAIN.labels.numpy()).coef_
    assert abs(early - directly(TRAIN, 1e-2).coef_).max() > abs(weights - directly(TRAIN, 1e-2).coef_).max()


def test_digits():
    data = load_digits()
    digits = Labelled(torch.from_numpy(data.data).float() / 16, torch.from_numpy(data.target))
    outcome = pooled(digits[slice(600)], digits[slice(600, None)])
    assert outcome.metrics["linear_probe_pooled_acc1"] > 0.9
    assert outcome.metrics["linear_probe_pooled_acc5"] > 0.99


def test_projected_features_are_brought_to_unit_length_and_pooled_ones_are_not():
    long = Labelled(TRAIN.features * torch.rand(len(TRAIN), 1) * 9, TRAIN.labels)
    unit = Labelled(torch.nn.functional.normalize(TRAIN.features), TRAIN.labels)
    first, second = (evaluate_linear_probe(train, TEST, VALIDATION) for train in (long, unit))
    assert first.metrics == second.metrics
    assert first.protocol["normalised"] is True
    assert set(first.metrics) == {
        f"linear_probe_projected_{name}" for name in ("acc1", "acc5", "mean_per_class_recall")
    }
    assert (
        pooled(long, TEST, VALIDATION).details["answers"].tolist()
        != pooled(unit, TEST, VALIDATION).details["answers"].tolist()
    )


# ---- the choice of λ ----------------------------------------------------------------------------------------------


def test_the_sweep_is_the_papers():
    assert LAMBDAS[::16] == pytest.approx([1e-6, 1e-4, 1e-2, 1, 1e2, 1e4, 1e6])
    assert len(LAMBDAS) == 97
    assert LAMBDAS[8] / LAMBDAS[0] == pytest.approx(10)


@pytest.mark.parametrize("skew", [1, 3, 0.2])
def test_every_peak_is_found_in_fifteen_tries(skew):
    for peak in range(97):
        tried = []

        def score(strength, peak=peak, tried=tried):
            tried.append(strength)
            distance = LAMBDAS.index(strength) - peak
            return -distance if distance > 0 else distance * skew

        assert search_peak(score) == LAMBDAS[peak]
        assert len(tried) == len(set(tried)) <= 15


def test_of_equals_the_middle_one_is_chosen():
    assert search_peak(lambda strength: 0.5) == 1
    assert search_peak(lambda strength: float(strength < 1e-2)) == pytest.approx(1e-4)
    assert search_peak(lambda strength: float(strength > 1e-3)) == pytest.approx(1e2)


def test_a_plateau_is_not_left_by_the_last_fit():
    # All λ are right on train and validation, which have as many of each class. Together with one picture more, at
    # λ = 10⁶ the intercept alone would answer its class.
    train, validation = clouds([20, 20], 0.05), clouds([20, 21], 0.05, seed=1)
    test = clouds([30, 30], 0.05, seed=2)
    assert pooled(train, test, validation).metrics["linear_probe_pooled_acc1"] == 1
    strongest = directly(train + validation, 1e6)
    assert strongest.score(test.features.double().numpy(), test.labels.numpy()) == 0.5


def test_the_choice_is_the_best_of_the_whole_grid():
    # Classes far apart in some directions, noise in many others: too weak a penalty fits noise, too strong a one all.
    train, validation = clouds([12] * 4, 0.8, dim=24), clouds([100] * 4, 0.8, seed=1, dim=24)
    right = [
        directly(train, strength).score(validation.features.double().numpy(), validation.labels.numpy())
        for strength in LAMBDAS[::4]
    ]
    found = pooled(train, validation, validation).protocol["lambda"]
    reached = directly(train, found).score(validation.features.double().numpy(), validation.labels.numpy())
    assert found in LAMBDAS
    assert reached >= max(right) - 0.0051  # two of 400 pictures: the grid's curve is ragged
    assert max(right) > right[0] + 0.02  # the choice matters


def test_the_test_has_no_say_in_the_choice():
    chosen = []
    for seed in range(2):
        generator = torch.Generator().manual_seed(seed)
        test = Labelled(TEST.features, TEST.labels[torch.randperm(len(TEST), generator=generator)])
        outcomes = [pooled(TRAIN, test, VALIDATION), pooled(TRAIN, test, shots=[3], seeds=1)]
        chosen.append(
            [[o.protocol["lambda"], *o.protocol.get("3shot_lambda", ()), *o.details["answers"]] for o in outcomes]
        )
    # The answers too, but for a score that two classes share.
    assert chosen[0] == chosen[1]


def test_the_last_fit_has_train_and_validation():
    # Class 2 is in validation alone.
    train, rest = clouds([20, 20], 0.1), clouds([20, 20, 20], 0.1, seed=1)
    outcome = pooled(train, clouds([5, 5, 5], 0.1, seed=2), rest)
    assert outcome.metrics["linear_probe_pooled_acc1"] == 1
    assert "1 class (2) that train has not" in " ".join(outcome.notes)
    fitted = []
    original = linear_probe._fit
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            linear_probe, "_fit", lambda data, strength: fitted.append(len(data)) or original(data, strength)
        )
        pooled(TRAIN, TEST, VALIDATION)
        pooled(TRAIN, TEST)
    assert fitted == [180] * 15 + [300] + [144] * 15 + [180]


def test_a_fifth_of_each_class_is_held_out():
    labels = tensor([0] * 50 + [1] * 10 + [2] * 2 + [3] + [5] * 7)[torch.randperm(70, generator=torch.Generator())]
    held = linear_probe._held_out(labels, 0)
    assert torch.bincount(labels[held], minlength=6).tolist() == [10, 2, 1, 0, 0, 1]
    assert torch.equal(held, linear_probe._held_out(labels, 0))
    assert not torch.equal(held, linear_probe._held_out(labels, 1))


def test_protocol_says_how():
    outcome = pooled(TRAIN, TEST, shots=[2], seed=4)
    protocol = outcome.protocol
    assert protocol["validation"] == "a stratified fifth of train, seed 4; of a class with one picture none"
    sizes = [protocol[f"{name}_pictures"] for name in ("train", "validation", "test")]
    assert sizes == [144, 36, 113]
    assert (protocol["features"], protocol["normalised"]) == ("pooled", False)
    assert (protocol["shots"], protocol["seeds"], protocol["seed"]) == ([2], 3, 4)
    assert len(protocol["2shot_lambda"]) == 3
    assert pooled(TRAIN, TEST, VALIDATION).protocol["validation"] == "given"


# ---- few-shot -----------------------------------------------------------------------------------------------------


def drawn(monkeypatch, **settings) -> list[Labelled]:
    """What the classifiers of a few-shot run were fitted on, one for each choice of λ."""
    fitted, original = [], linear_probe._choose_lambda
    monkeypatch.setattr(linear_probe, "_choose_lambda", lambda *splits: fitted.append(splits) or original(*splits))
    pooled(TRAIN, TEST, VALIDATION, **settings)
    return fitted[1:]


def test_draws_have_exactly_n_of_each_class_and_differ(monkeypatch):
    draws = drawn(monkeypatch, shots=[1, 4], seeds=3)
    assert [torch.bincount(train.labels).tolist() for train, _ in draws] == [[1] * 6] * 3 + [[4] * 6] * 3
    assert [torch.bincount(validation.labels).tolist() for _, validation in draws] == [[1] * 6] * 3 + [[4] * 6] * 3
    four = [{tuple(row) for row in train.features.tolist()} for train, _ in draws[3:]]
    assert [len(pictures) for pictures in four] == [24] * 3  # none twice
    assert len({frozenset(pictures) for pictures in four}) == 3


def test_draws_are_of_the_seed(monkeypatch):
    first, same, other = (drawn(monkeypatch, shots=[2], seeds=1, seed=seed)[0][0].features for seed in (0, 0, 1))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_few_shot_figures_are_mean_and_deviation_of_fits_on_the_draws(monkeypatch):
    draws = drawn(monkeypatch, shots=[3], seeds=3)
    outcome = pooled(TRAIN, TEST, VALIDATION, shots=[3], seeds=3)
    accuracies = [
        directly(train, strength).score(TEST.features.double().numpy(), TEST.labels.numpy())
        for (train, _), strength in zip(draws, outcome.protocol["3shot_lambda"], strict=True)
    ]
    assert len(set(accuracies)) > 1
    assert outcome.metrics["linear_probe_pooled_3shot_acc1"] == pytest.approx(np.mean(accuracies))
    assert outcome.metrics["linear_probe_pooled_3shot_acc1_deviation"] == pytest.approx(np.std(accuracies, ddof=1))


def test_one_seed_has_no_deviation():
    metrics = pooled(TRAIN, TEST, VALIDATION, shots=[3], seeds=1).metrics
    assert "linear_probe_pooled_3shot_acc1" in metrics
    assert not any("deviation" in name for name in metrics)


def test_classes_with_fewer_pictures_give_all_of_them():
    train = clouds([5, 2, 9])
    notes = pooled(train, TEST[TEST.labels < 3], clouds([4] * 3), shots=[4], classes=["a", "b", "c"]).notes
    assert "4 shots: 1 class (b) with fewer pictures in train, all of which were taken" in notes


def test_more_shots_are_better():
    train, validation, test = (clouds([40] * 6, 0.4, seed) for seed in range(3))
    metrics = pooled(train, test, validation, shots=[1, 16], seeds=2).metrics
    assert metrics["linear_probe_pooled_16shot_acc1"] > metrics["linear_probe_pooled_1shot_acc1"] + 0.1


# ---- what is told -------------------------------------------------------------------------------------------------


def test_classes_without_training_pictures_are_wrong_and_told():
    names = ["ant", "bee", "cat", "dog", "emu", "fox", "gnu"]
    test = clouds([9, 30, 21, 5, 8, 20, 20], seed=2)
    outcome = pooled(TRAIN, test, VALIDATION, classes=names)
    assert "the test has 1 class (gnu) without a picture to learn from: they count as wrong" in outcome.notes
    gnus = test.labels == 6
    assert not (outcome.details["answers"][gnus] == 6).any()
    for name in ("acc1", "acc5"):
        sums, _ = outcome.shares[f"linear_probe_pooled_{name}"]
        assert sums[gnus.numpy()].sum() == 0
        assert sums[~gnus.numpy()].sum() > 0


def test_many_names_are_cut():
    outcome = pooled(TRAIN[TRAIN.labels < 2], clouds([1] * 8), VALIDATION[VALIDATION.labels < 2])
    assert "6 classes (2, 3, 4, 5, 6, …)" in " ".join(outcome.notes)


def test_acc5_needs_more_than_five_classes():
    for classes in (4, 5):
        outcome = pooled(*(split[split.labels < classes] for split in (TRAIN, TEST, VALIDATION)))
        assert "linear_probe_pooled_acc5" not in outcome.metrics | outcome.shares
        assert f"linear_probe_pooled_acc5 left out: of {classes} classes it would always be 1" in outcome.notes
    assert 0 < pooled(TRAIN, TEST, VALIDATION).metrics["linear_probe_pooled_acc5"] < 1


def test_fits_that_do_not_converge_are_counted_and_silent(monkeypatch, recwarn):
    monkeypatch.setattr(linear_probe, "MAX_ITERATIONS", 2)
    notes = pooled(TRAIN, TEST, VALIDATION).notes
    assert not recwarn.list
    told = [note for note in notes if "unconverged" in note]
    assert len(told) == 1
    assert 5 <= int(told[0].split()[0]) <= 16


def test_other_warnings_go_on(monkeypatch):
    original = linear_probe._fit

    def warning_fit(*arguments):
        warnings.warn("of another kind", UserWarning, stacklevel=1)
        return original(*arguments)

    monkeypatch.setattr(linear_probe, "_fit", warning_fit)
    with pytest.warns(UserWarning, match="of another kind"):
        pooled(TRAIN, TEST, VALIDATION)


def test_a_note_is_an_exception():
    assert pooled(TRAIN, TEST, VALIDATION).notes == []


def broken(split: Labelled) -> Labelled:
    features = split.features.clone()
    features[3, 1] = math.nan
    return Labelled(features, split.labels)


@pytest.mark.parametrize(
    ("splits", "settings", "message"),
    [
        ((TRAIN[TRAIN.labels == 2], TEST), {}, "one class only"),
        ((TRAIN[:0], TEST), {}, "train has no pictures"),
        ((TRAIN, TEST[:0]), {}, "test has no pictures"),
        ((TRAIN, TEST, VALIDATION[:0]), {}, "validation has no pictures"),
        ((broken(TRAIN), TEST), {}, "features of train are not finite, first in row 3"),
        ((TRAIN, broken(TEST)), {}, "features of test are not finite"),
        ((TRAIN, TEST, broken(VALIDATION)), {}, "features of validation are not finite"),
        ((clouds([1, 1, 1]), TEST), {}, "give a validation split"),
        ((TRAIN, TEST), {"features": "raw"}, "'raw': they are one of projected, pooled"),
        ((TRAIN, TEST), {"shots": [1, 0]}, "1 or more"),
        ((TRAIN, TEST), {"shots": [1], "seeds": 0}, "1 or more"),
    ],
)
def test_what_cannot_be_measured_is_refused(splits, settings, message):
    with pytest.raises(InputError, match=message):
        probe(*splits, **settings)


def test_labels_must_fit_the_features():
    with pytest.raises(InputError, match="3 features and 2 labels"):
        Labelled(torch.ones(3, 2), tensor([0, 1]))
    with pytest.raises(InputError, match="picture 2 has label -1: classes count from 0"):
        Labelled(torch.ones(2, 2), tensor([0, -1]))


@pytest.mark.parametrize("features", ["projected", "pooled"])
def test_a_split_only_names_the_figures(features):
    first, second = (
        probe(TRAIN, TEST, VALIDATION, features=features, split=split, shots=[1], seeds=1)
        for split in ("", "own_split")
    )
    assert second.metrics == {
        name.replace(features, f"{features}_own_split"): value for name, value in first.metrics.items()
    }
    assert f"linear_probe_{features}_own_split_acc1" in second.metrics
    assert second.protocol == first.protocol
    with pytest.raises(InputError, match="'pooled_own_split': they are one of projected, pooled"):
        probe(TRAIN, TEST, features="pooled_own_split")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_given_stays_as_it_is(dtype):
    splits = [Labelled(split.features.to(dtype), split.labels) for split in (TRAIN, TEST, VALIDATION)]
    before = [split.features.clone() for split in splits]
    evaluate_linear_probe(*splits)
    assert all(split.features.equal(copy) for split, copy in zip(splits, before, strict=True))


@pytest.mark.parametrize("given", [False, True])
def test_the_choice_and_the_last_fit_share_one_copy(given, monkeypatch):
    fitted, original = [], linear_probe._fit
    monkeypatch.setattr(linear_probe, "_fit", lambda data, *rest: fitted.append(data) or original(data, *rest))
    pooled(TRAIN, TEST, VALIDATION if given else None)
    assert len({data.features.untyped_storage().data_ptr() for data in fitted}) == 1
    assert {data.features.dtype for data in fitted} == {torch.float64}
    chosen_by, last = fitted[0], fitted[-1]
    kept = slice(None) if given else ~linear_probe._held_out(TRAIN.labels, 0)
    assert chosen_by.features.equal(TRAIN[kept].features.double())
    both = TRAIN + VALIDATION if given else TRAIN
    assert sorted(last.features.tolist()) == sorted(both.features.double().tolist())
