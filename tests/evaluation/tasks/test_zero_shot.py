"""Zero-shot figures against scikit-learn, plain loops and numbers worked out by hand."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from conftest import tiny_model
from sklearn.metrics import average_precision_score, balanced_accuracy_score, f1_score, top_k_accuracy_score
from torch import tensor
from torch.nn.functional import normalize

from hf_clip.core.errors import InputError
from hf_clip.embeddings.encode import Embeddings
from hf_clip.evaluation.intervals import confidence_interval
from hf_clip.evaluation.tasks import zero_shot
from hf_clip.evaluation.tasks.registry import measure
from hf_clip.evaluation.tasks.task import Protocol
from hf_clip.evaluation.tasks.zero_shot import class_embeddings, embed_classes, evaluate_zero_shot

SCALE = tensor([math.log(20.0)])


def embeddings(images: torch.Tensor, labels: torch.Tensor | None, rows=None) -> Embeddings:
    return Embeddings(
        image_embeds=images, text_embeds=images[:0], labels=labels,
        image_rows=torch.arange(len(images)) if rows is None else tensor(rows),
        text_to_image=torch.arange(0), image_ids=torch.arange(len(images)), caption_ids=torch.arange(0),
        skipped=[(900, "900.png", "broken")],
    )  # fmt: skip


def circle(*angles: float) -> torch.Tensor:
    """Points on it, in degrees."""
    radians = tensor(angles, dtype=torch.float32).deg2rad()
    return torch.stack([radians.cos(), radians.sin()], dim=1)


def labelled(classes: int = 7, pictures: int = 400, seed: int = 0) -> tuple[Embeddings, torch.Tensor]:
    """Pictures of all classes but the last, each a little more like its own."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes - 1, (pictures,), generator=generator)
    class_embeds = normalize(torch.randn(classes, 16, generator=generator))
    images = normalize(torch.randn(pictures, 16, generator=generator) + class_embeds[labels])
    return embeddings(images, labels), class_embeds


def several_labels(pictures: int = 300, classes: int = 6, seed: int = 0) -> tuple[Embeddings, torch.Tensor]:
    """Of class 2 there is no picture; the first picture is of no class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.rand(pictures, classes, generator=generator) < 0.3
    labels[:, 2], labels[0] = False, False
    class_embeds = normalize(torch.randn(classes, 16, generator=generator))
    images = normalize(torch.randn(pictures, 16, generator=generator) + labels.float() @ class_embeds)
    return embeddings(images, labels), class_embeds


# ---- class embeddings ---------------------------------------------------------------------------------------------

TEMPLATES = ["{c}", "a photo of a {c}", "{c} seen from very far away"]


def by_a_loop(model, processor, prompts: list[list[str]]) -> torch.Tensor:
    """The mean of unit vectors, brought to unit length; the model sees one prompt at a time."""
    rows = []
    for of_class in prompts:
        units = []
        for prompt in of_class:
            with torch.no_grad():
                tokens = processor.tokenizer(prompt, return_tensors="pt")
                vector = model.eval().get_text_features(**tokens).pooler_output[0].double()
            units.append(vector / vector.norm())
        mean = sum(units) / len(units)
        rows.append(mean / mean.norm())
    return torch.stack(rows).float()


def test_a_class_is_the_mean_of_all_its_names_in_all_templates(processor):
    model = tiny_model()
    names = [["red", "crimson"], ["green"], ["blue", "azure", "navy"]]
    prompts = [[template.replace("{c}", name) for template in TEMPLATES for name in of_class] for of_class in names]
    found = class_embeddings(model, processor, names, TEMPLATES)
    torch.testing.assert_close(found, by_a_loop(model, processor, prompts), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))
    backwards = class_embeddings(model, processor, [of[::-1] for of in names], TEMPLATES[::-1])
    torch.testing.assert_close(found, backwards, atol=1e-6, rtol=0)


def test_the_mean_is_of_unit_vectors(processor):
    # Were the model's vectors averaged as they are, the longest would count most.
    model = tiny_model()
    torch.nn.init.constant_(model.text_projection.weight[:, :16], 3.0)
    prompts = ["a", "the quick brown fox jumps over it"]
    found = class_embeddings(model, processor, [["x"], ["y"]], {"x": prompts, "y": ["b"]})
    torch.testing.assert_close(found, by_a_loop(model, processor, [prompts, ["b"]]), atol=1e-5, rtol=0)


def test_prompts_are_embedded_many_at_a_time_and_go_to_their_classes(processor):
    model, sizes = tiny_model(), []
    model.register_forward_pre_hook(lambda *call: sizes.append(len(call[2]["input_ids"])), with_kwargs=True)
    # 50 classes with 1 to 3 prompts of unlike length: 99 in all, in two goes.
    prompts = {
        f"class {i}": [
            "ab cd ef gh"[: 2 + i % 9] + f" {'xyz'[n]} {'abcde'[i % 5]}{'qrstuvwxyz'[i // 5]}"
            for n in range(1 + i % 3)
        ]
        for i in range(50)
    }
    found = class_embeddings(model, processor, [[name] for name in prompts], prompts)
    assert sizes == [64, 35]
    torch.testing.assert_close(found, by_a_loop(model, processor, list(prompts.values())), atol=1e-5, rtol=0)


def test_the_same_prompts_give_the_same_bits(processor):
    # 100 names of three letters and one of forty: the model is given 64 texts at once, and would pad the copies of
    # the first name apart from it.
    names = [["red"], *([a + b + "c"] for a in "abcdefghij" for b in "abcdefghi"), *[["red"]] * 9, ["y" * 40]]
    found = class_embeddings(tiny_model(), processor, names, ["{c}", "a {c}"])
    assert len(found.unique(dim=0)) == 92


def test_classes_that_read_the_same_tie_and_cut_prompts_are_counted(processor):
    model, names = tiny_model(), [["Red"], ["red "], ["green"], ["x" * 70], ["x" * 60]]
    class_embeds, notes = embed_classes(model, processor, names, ["{c}", "a {c}", "{c} b c d e"])
    assert torch.equal(class_embeds[0], class_embeds[1])
    assert len(class_embeds.unique(dim=0)) == 4
    # Of 62 letters: three of the first, and two of the second with those before and behind them.
    (note,) = notes
    assert note == f"4 of 15 prompts are longer than the text tower reads, and were cut: {'x' * 60 + '…'!r}"
    data = dataclasses.replace(embeddings(class_embeds, torch.arange(5)), class_names=[of[0] for of in names])
    protocol = Protocol(templates="{}", class_names=names)
    outcome = measure("zero-shot", model, processor, data, protocol)
    assert "1 of 5 prompts are longer than the text tower reads" in " ".join(outcome.notes)
    assert "1 classes have the prompts of another, as the text tower reads them" in " ".join(outcome.notes)
    assert outcome.details["answers"].tolist()[:2] == [1, 0], "neither can be told from the other"


# ---- one label a picture ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_accuracies_are_scikit_learns(seed):
    data, class_embeds = labelled(seed=seed)
    outcome = evaluate_zero_shot(data, class_embeds, SCALE)
    scores, labels = (data.image_embeds @ class_embeds.T).numpy(), data.labels.numpy()
    for k in (1, 5):
        expected = top_k_accuracy_score(labels, scores, k=k, labels=range(7))
        assert outcome.metrics[f"zero_shot_acc{k}"] == pytest.approx(expected)
        assert outcome.metrics[f"zero_shot_acc{k}_chance"] == pytest.approx(k / 7)
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        expected = balanced_accuracy_score(labels, scores.argmax(1))
    assert outcome.metrics["zero_shot_mean_per_class_recall"] == pytest.approx(expected)
    assert outcome.metrics["zero_shot_mean_per_class_recall_chance"] == pytest.approx(1 / 7)
    counts = ("images", "skipped_images", "classes", "classes_without_pictures")
    assert [outcome.metrics[name] for name in counts] == [400, 1, 7, 1]
    assert outcome.notes == ["1 of 7 classes have no picture: they can be answered, but enter no mean over classes"]
    assert outcome.details["answers"].tolist() == scores.argmax(1).tolist()
    assert outcome.details["labels"].equal(data.labels)


def test_acc5_only_of_five_classes_or_more():
    data, class_embeds = labelled(classes=5)
    assert evaluate_zero_shot(data, class_embeds, SCALE).metrics["zero_shot_acc5"] == 1, "of five it is always right"
    data, class_embeds = labelled(classes=4)
    outcome = evaluate_zero_shot(data, class_embeds, SCALE)
    assert not any("acc5" in name for name in (*outcome.metrics, *outcome.shares))
    assert "acc5 is left out: of 4 classes it would always be 1" in outcome.notes


@pytest.mark.parametrize("bias", [None, tensor([-3.0])])
def test_a_collapsed_model_is_never_right(bias):
    one = normalize(torch.randn(1, 16, generator=torch.Generator().manual_seed(0)))
    data = embeddings(one.repeat(40, 1), torch.arange(40) % 8)
    metrics = evaluate_zero_shot(data, one.repeat(8, 1), SCALE, bias, "softmax" if bias is None else "sigmoid").metrics
    assert [metrics[f"zero_shot_{name}"] for name in ("acc1", "acc5", "mean_per_class_recall")] == [0, 0, 0]


def test_classes_with_the_same_prompts_are_noted_and_tie(processor):
    names = [["red"], ["green"], ["red"], ["blue"]]
    class_embeds = class_embeddings(tiny_model(), processor, names, TEMPLATES)
    outcome = evaluate_zero_shot(embeddings(class_embeds, torch.arange(4)), class_embeds, SCALE)
    assert outcome.metrics["zero_shot_acc1"] == 2 / 4, "green and blue"
    assert outcome.details["answers"].tolist() == [2, 1, 0, 3]
    assert any(
        note.startswith("1 classes have the prompts of another, as the text tower reads them")
        for note in outcome.notes
    )


# Three pictures at 0°, 50° and 90°, classes at 0°, 60° and 120°: cosines 1, ½, −½; 0.985, 0.342 where 10° and 70°
# off; 0.866, 0.866 at 30° from two.
ON_A_CIRCLE = embeddings(circle(0, 50, 100), tensor([0, 1, 1]))
CLASSES = circle(0, 60, 120)


def test_the_softmax_models_probabilities_and_calibration_by_hand():
    scale = math.log(2.0)
    outcome = evaluate_zero_shot(ON_A_CIRCLE, CLASSES, tensor([scale]))
    assert outcome.details["answers"].tolist() == [0, 1, 2]
    expected = []
    for angle, answer in ((0, 0), (50, 60), (100, 120)):
        odds = [math.exp(2 * math.cos(math.radians(angle - of_class))) for of_class in (0, 60, 120)]
        expected.append(math.exp(2 * math.cos(math.radians(angle - answer))) / sum(odds))
    assert outcome.details["probabilities"].tolist() == pytest.approx(expected, abs=1e-6)  # 0.707, 0.587, 0.593
    # In fifteenths: the first is in (10/15, 11/15], and right; the others, one of them right, share (8/15, 9/15].
    both = (expected[1] + expected[2]) / 2
    error = 1 / 3 * (1 - expected[0]) + 2 / 3 * abs(1 / 2 - both)
    assert outcome.metrics["zero_shot_calibration_error"] == pytest.approx(error, abs=1e-6)
    assert outcome.details["reliability"][:, 0].tolist() == [0] * 8 + [2, 0, 1] + [0] * 4
    assert outcome.protocol["probabilities"] == "softmax over the classes"


def test_the_sigmoid_models_probabilities_and_calibration_by_hand():
    outcome = evaluate_zero_shot(ON_A_CIRCLE, CLASSES, tensor([math.log(4.0)]), tensor([-3.5]), "sigmoid")
    expected = [1 / (1 + math.exp(3.5 - 4 * math.cos(math.radians(off)))) for off in (0, 10, 20)]
    assert outcome.details["probabilities"].tolist() == pytest.approx(expected, abs=1e-6)  # 0.622, 0.608, 0.564
    # (8/15, 9/15] holds the last, which is wrong; (9/15, 10/15] the others, which are right.
    error = 1 / 3 * expected[2] + 2 / 3 * (1 - (expected[0] + expected[1]) / 2)
    assert outcome.metrics["zero_shot_calibration_error"] == pytest.approx(error, abs=1e-6)
    assert outcome.protocol["probabilities"] == "sigmoid, each class alone"
    # The order of the classes is the same whatever the temperature.
    assert outcome.metrics["zero_shot_acc1"] == pytest.approx(2 / 3)


def test_shares_sum_to_the_figures_and_resampled_stay_within_reach():
    data, class_embeds = labelled(classes=12, pictures=60)
    outcome = evaluate_zero_shot(data, class_embeds, SCALE)
    assert set(outcome.shares) == {"zero_shot_acc1", "zero_shot_acc5", "zero_shot_mean_per_class_recall"}
    for name, (sums, counts) in outcome.shares.items():
        assert sums.shape == counts.shape == (60,)
        assert sums.sum() / counts.sum() == pytest.approx(outcome.metrics[name])
        assert 0.1 < outcome.metrics[name] < 0.9, "neither none nor all"
    # Nearly all right, a class of one picture beside one of 59: drawn thrice, it must not make the mean exceed 1.
    data = embeddings(circle(*[0.0] * 58, 90, 90), tensor([0] * 59 + [1]))
    share = evaluate_zero_shot(data, circle(0, 90), SCALE).shares["zero_shot_mean_per_class_recall"]
    assert confidence_interval(share)[1] <= 1


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("bias", [None, tensor([-5.0])])
def test_blocks_change_nothing(several, bias, monkeypatch):
    data, class_embeds = several_labels() if several else labelled()
    whole = evaluate_zero_shot(data, class_embeds, SCALE, bias, "softmax" if bias is None else "sigmoid")
    monkeypatch.setattr(zero_shot, "_PICTURES", 7)
    found = evaluate_zero_shot(data, class_embeds, SCALE, bias, "softmax" if bias is None else "sigmoid")
    assert found.metrics == pytest.approx(whole.metrics, abs=1e-6)
    for name, part in found.details.items():
        np.testing.assert_allclose(part, whole.details[name], atol=1e-6)
    for name, share in found.shares.items():
        np.testing.assert_array_equal(share, whole.shares[name])


# ---- several labels a picture -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_several_labels_are_scikit_learns(seed):
    data, class_embeds = several_labels(seed=seed)
    bias = tensor([-5.0])
    outcome = evaluate_zero_shot(data, class_embeds, SCALE, bias, "softmax" if bias is None else "sigmoid")
    scores, labels = (data.image_embeds @ class_embeds.T).numpy(), data.labels.numpy()
    kept = [0, 1, 3, 4, 5]
    expected = [average_precision_score(labels[:, i], scores[:, i]) for i in kept]
    np.testing.assert_allclose(outcome.details["average_precisions"], expected, rtol=1e-9)
    assert outcome.metrics["zero_shot_map"] == pytest.approx(np.mean(expected))
    assert outcome.metrics["zero_shot_map_chance"] == pytest.approx(labels[:, kept].mean())
    assert outcome.metrics["classes_without_pictures"] == 1
    above = 1 / (1 + np.exp(5 - 20 * scores)) > 0.5
    assert 0.1 < above.mean() < 0.9
    assert above[:, 2].any(), "answers of the empty class are wrong ones"
    expected = f1_score(labels, above, average="micro")
    assert outcome.metrics["zero_shot_micro_f1"] == pytest.approx(expected)
    assert not any("acc" in name or "calibration" in name for name in outcome.metrics)


def test_without_probabilities_of_their_own_classes_have_no_threshold():
    data, class_embeds = several_labels()
    assert "zero_shot_micro_f1" not in evaluate_zero_shot(data, class_embeds, SCALE).metrics
    assert evaluate_zero_shot(data, class_embeds, SCALE, tensor([-99.0]), "sigmoid").metrics["zero_shot_micro_f1"] == 0


def test_a_collapsed_model_has_no_precision_beyond_the_last_places():
    labels = torch.zeros(10, 2, dtype=torch.bool)
    labels[0], labels[1, 1] = True, True
    data = embeddings(circle(*[30.0] * 10), labels)
    # Of one picture its place is 10 of 10; of two 9 and 10.
    assert evaluate_zero_shot(data, circle(0, 90), SCALE).metrics["zero_shot_map"] == pytest.approx(
        (1 / 10 + (1 / 9 + 2 / 10) / 2) / 2
    )


# ---- what is refused ----------------------------------------------------------------------------------------------


def test_labels_that_are_no_class_are_refused_with_their_row():
    data, class_embeds = labelled()
    data.image_rows = data.image_rows + 10
    data.labels[[3, 5]] = 9
    with pytest.raises(InputError, match=r"row 14 has label 9, and the classes are 0 to 6: name each of them"):
        evaluate_zero_shot(data, class_embeds, SCALE)
    data.labels[1] = -1
    with pytest.raises(InputError, match=r"row 12 has label -1"):
        evaluate_zero_shot(data, class_embeds, SCALE)
    data, class_embeds = several_labels()
    with pytest.raises(InputError, match="the data have 6 classes, and 5 are named: name each of them"):
        evaluate_zero_shot(data, class_embeds[:5], SCALE)


def test_data_without_labels_are_refused():
    data, class_embeds = labelled()
    data.labels = None
    with pytest.raises(InputError, match="no labels that are classes: set label_column, or give class names"):
        evaluate_zero_shot(data, class_embeds, SCALE)
    data, class_embeds = several_labels()
    data.labels[:] = False
    with pytest.raises(InputError, match="no picture has a label: there is nothing to measure"):
        evaluate_zero_shot(data, class_embeds, SCALE)


@pytest.mark.parametrize("several", [False, True])
def test_embeddings_that_are_not_finite_are_refused(several):
    data, class_embeds = several_labels() if several else labelled()
    data.image_embeds[4, 1] = math.nan
    with pytest.raises(ValueError, match="image_embeds are not finite, first in row 4"):
        evaluate_zero_shot(data, class_embeds, SCALE)
    data.image_embeds[4, 1] = 0
    class_embeds[2, 0] = math.inf
    with pytest.raises(ValueError, match="class_embeds are not finite, first in row 2"):
        evaluate_zero_shot(data, class_embeds, SCALE)
