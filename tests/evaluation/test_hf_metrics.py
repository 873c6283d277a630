"""The metrics of `evaluate` against scikit-learn and by hand, through batches, combine and save, without a network."""

import json
import math
import socket
import tempfile

import evaluate
import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, balanced_accuracy_score, top_k_accuracy_score

from hf_clip.core.errors import InputError
from hf_clip.evaluation.hf_metrics import (
    CLIPScore,
    ImageTextRetrieval,
    MeanAveragePrecision,
    MeanPerClassRecall,
    TopKAccuracy,
)

METRICS = [ImageTextRetrieval, CLIPScore, TopKAccuracy, MeanPerClassRecall, MeanAveragePrecision]


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Whatever is measured here, nothing is downloaded for it."""

    def refuse(*args, **kwargs):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def make(tmp_path):
    """A metric that keeps its batches in a folder of its own: in one that another has locked, it waits a second."""
    return lambda kind, **settings: kind(cache_dir=tempfile.mkdtemp(dir=tmp_path), **settings)


def circle(*degrees: float) -> np.ndarray:
    """Points on the unit circle."""
    return np.stack([np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))], axis=1).astype(np.float32)


# Captions 0 and 1 (5°, 85°) are of the picture at 0°; 2 (100°) of that at 90°; 3 (20°) of that at 170°.
TEXTS, IMAGES, IDS = circle(5, 85, 100, 20), circle(0, 0, 90, 170), ["a", "a", "b", "c"]
# Caption → pictures: 5° and 100° find theirs first; 85° finds 90°, then a tie at 85° off; 20° finds its own last.
# Picture → captions: 0° → 5° (own); 90° → 85°, then 100° (own); 170° → 100°, 85°, then 20° (own).
BY_HAND = {
    "image_retrieval_recall@1": 2 / 4, "image_retrieval_recall@2": 2 / 4, "image_retrieval_recall@3": 1,
    "image_retrieval_median_rank": 2,  # ranks 1, 3, 1, 3
    "text_retrieval_recall@1": 1 / 3, "text_retrieval_recall@2": 2 / 3, "text_retrieval_recall@3": 1,
    "text_retrieval_median_rank": 2,
}  # fmt: skip


def drawn_scores(pictures: int = 200, classes: int = 7, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores without ties, a little better than chance, and the right classes, of unlike frequency."""
    generator = np.random.default_rng(seed)
    labels = np.minimum(generator.geometric(0.3, pictures) - 1, classes - 1)
    scores = generator.normal(size=(pictures, classes)) + np.eye(classes)[labels]
    return scores.astype(np.float32), labels


def drawn_labels(pictures: int = 200, classes: int = 6) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(1)
    belongs = (generator.random((pictures, classes)) < 0.2).astype(np.int64)
    return (generator.normal(size=belongs.shape) + belongs).astype(np.float32), belongs


# ---- embeddings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"keep_in_memory": True}])
def test_retrieval_by_hand(make, settings):
    metric = make(ImageTextRetrieval, **settings)
    result = metric.compute(predictions=TEXTS, references=IMAGES, image_ids=IDS, ks=(1, 2, 3))
    assert result == pytest.approx(BY_HAND)
    assert list(result) == list(BY_HAND)


@pytest.mark.parametrize(
    "ids", [[7, 7, 3, 5], np.array([7, 7, 3, 5]), torch.tensor([7, 7, 3, 5]), list(torch.tensor([7, 7, 3, 5]))]
)
def test_ids_of_any_kind(make, ids):
    result = make(ImageTextRetrieval).compute(predictions=TEXTS, references=IMAGES, image_ids=ids, ks=(1, 2, 3))
    assert result == pytest.approx(BY_HAND)


def test_rows_of_a_picture_need_not_be_neighbours(make):
    order = [0, 3, 2, 1]
    ids = [IDS[row] for row in order]
    result = make(ImageTextRetrieval).compute(
        predictions=TEXTS[order], references=IMAGES[order], image_ids=ids, ks=(1, 2, 3)
    )
    assert result == pytest.approx(BY_HAND)


def test_without_ids_each_row_is_a_picture(make):
    result = make(ImageTextRetrieval).compute(predictions=TEXTS, references=IMAGES, ks=[1, 2, 3, 4])
    # 5°: its picture ties with its double. 85°: 90°, and the double. 100°: first. 20°: behind three.
    assert [result[f"image_retrieval_recall@{k}"] for k in (1, 2, 3, 4)] == [1 / 4, 2 / 4, 2 / 4, 1]
    # 0°: 5° first; its double finds 85° behind 5° and 20°. 90°: 100° second. 170°: 20° third.
    assert [result[f"text_retrieval_recall@{k}"] for k in (1, 2, 3, 4)] == [1 / 4, 2 / 4, 1, 1]


def test_retrieval_against_a_loop(make):
    generator = np.random.default_rng(0)
    ids = generator.permutation(np.repeat(np.arange(20), 3))
    pictures = generator.normal(size=(20, 8)).astype(np.float32)
    texts = (pictures[ids] + 1.5 * generator.normal(size=(60, 8))).astype(np.float32)
    cosines = (texts / np.linalg.norm(texts, axis=1)[:, None]) @ (
        pictures / np.linalg.norm(pictures, axis=1)[:, None]
    ).T
    best_pictures, best_texts = np.argsort(-cosines, axis=1), np.argsort(-cosines, axis=0)
    result = make(ImageTextRetrieval).compute(predictions=texts, references=pictures[ids], image_ids=ids)
    assert 0.1 < result["image_retrieval_recall@1"] < 0.9
    for k in (1, 5, 10):
        found = [ids[text] in best_pictures[text, :k] for text in range(60)]
        assert result[f"image_retrieval_recall@{k}"] == pytest.approx(np.mean(found))
        found = [picture in ids[best_texts[:k, picture]] for picture in range(20)]
        assert result[f"text_retrieval_recall@{k}"] == pytest.approx(np.mean(found))


def test_a_collapsed_model_is_not_rewarded(make):
    same = circle(*[30] * 12)
    result = make(ImageTextRetrieval).compute(predictions=same, references=same)
    assert [result[f"{way}_retrieval_recall@{k}"] for way in ("image", "text") for k in (1, 5, 10)] == [0] * 6
    assert result["image_retrieval_median_rank"] == 12


def test_default_ks_are_those_that_there_are_pictures_for(make):
    result = make(ImageTextRetrieval).compute(predictions=circle(1, 2, 3, 4, 5), references=circle(1, 2, 3, 4, 5))
    assert [name for name in result if "image_retrieval_recall" in name] == [
        "image_retrieval_recall@1",
        "image_retrieval_recall@5",
    ]


@pytest.mark.parametrize("k", [0, 4])
def test_a_k_above_the_candidates_is_refused(make, k):
    with pytest.raises(InputError, match=rf"^k = {k} of 3 pictures .*give ks from 1 to 3$"):
        make(ImageTextRetrieval).compute(predictions=TEXTS, references=IMAGES, image_ids=IDS, ks=(1, k))


def test_clip_score_by_hand(make):
    # 60° and 90° and 120° apart: cosines 1/2, 0 and −1/2; the last counts as 0.
    result = make(CLIPScore).compute(predictions=circle(60, 100, 0), references=circle(0, 10, 120))
    assert result == pytest.approx({"clip_score": 2.5 * (0.5 + 0 + 0) / 3}, abs=1e-6)
    assert make(CLIPScore).compute(predictions=IMAGES, references=IMAGES) == pytest.approx({"clip_score": 2.5})


@pytest.mark.parametrize("length", [1e-30, 1e-3, 250, 1e30])
def test_length_does_not_matter(make, length):
    scale = length * np.array([1, 2, 0.5, 3])[:, None]
    metrics = evaluate.combine([make(ImageTextRetrieval), make(CLIPScore)])
    result = metrics.compute(predictions=TEXTS * scale, references=IMAGES * scale[::-1], image_ids=IDS, ks=(1, 2, 3))
    cosines = [math.cos(math.radians(apart)) for apart in (5, 85, 10)]
    assert result == pytest.approx(BY_HAND | {"clip_score": 2.5 * sum(cosines) / 4}, abs=1e-6)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, None])
@pytest.mark.parametrize("kind", [ImageTextRetrieval, CLIPScore])
def test_what_is_not_finite_is_refused(make, kind, wrong):
    broken = [[1.0, 0.0], [wrong, 1.0], [1.0, 1.0]]
    for side, other in (("predictions", "references"), ("references", "predictions")):
        with pytest.raises(ValueError, match=f"{side} are not finite, first in row 1"):
            make(kind).compute(**{side: broken, other: circle(0, 1, 2)})


def test_ids_in_the_wrong_order_are_refused(make):
    with pytest.raises(InputError, match=r"^rows 0 and 3 have the image_id 'a', but different image embeddings"):
        make(ImageTextRetrieval).compute(predictions=TEXTS, references=IMAGES, image_ids=["a", "b", "c", "a"])
    with pytest.raises(InputError, match=r"^3 image_ids for 4 rows"):
        make(ImageTextRetrieval).compute(predictions=TEXTS, references=IMAGES, image_ids=IDS[:3])


def test_rounding_leaves_a_picture_itself(make):
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randn(3, 512, generator=generator).repeat_interleave(2, dim=0)
    rounded = (pictures * (1 + 1e-2 * torch.randn(pictures.shape, generator=generator))).bfloat16()
    result = make(ImageTextRetrieval).compute(predictions=pictures, references=rounded, image_ids=[0, 0, 1, 1, 2, 2])
    assert result["image_retrieval_recall@1"] == 1


def test_spaces_of_unlike_width_are_refused(make):
    with pytest.raises(InputError, match="predictions have 2 numbers a row and references 3"):
        make(CLIPScore).compute(predictions=circle(0, 1), references=np.ones((2, 3)))


# ---- classes --------------------------------------------------------------------------------------------------------


def test_accuracy_is_that_of_scikit_learn(make):
    scores, labels = drawn_scores()
    result = make(TopKAccuracy).compute(predictions=scores, references=labels, ks=(1, 2, 5))
    assert result == pytest.approx(
        {f"acc{k}": top_k_accuracy_score(labels, scores, k=k, labels=range(7)) for k in (1, 2, 5)}
    )
    result = make(MeanPerClassRecall).compute(predictions=scores, references=labels)
    assert result == pytest.approx({"mean_per_class_recall": balanced_accuracy_score(labels, scores.argmax(1))})


def test_a_class_without_pictures_has_no_part_in_the_mean(make):
    scores, labels = drawn_scores()
    kept = labels != 1
    result = make(MeanPerClassRecall).compute(predictions=scores[kept], references=labels[kept])
    right = scores[kept].argmax(1) == labels[kept]
    by_class = [right[labels[kept] == name].mean() for name in (0, 2, 3, 4, 5, 6)]
    assert result["mean_per_class_recall"] == pytest.approx(np.mean(by_class))


def test_equal_scores_count_against_the_model_and_close_ones_do_not(make):
    # Right; shares the first place; second by a hair that fp32 tells apart; right by one.
    scores = [[2.0, 1.0, 0.0], [3.0, 3.0, 0.0], [1e-8, 0.0, 2e-8], [2e-8, 0.0, 1e-8]]
    metrics = evaluate.combine([make(TopKAccuracy), make(MeanPerClassRecall)])
    result = metrics.compute(predictions=scores, references=[0, 1, 0, 0], ks=(1, 2))
    assert result == pytest.approx({"acc1": 2 / 4, "acc2": 1, "mean_per_class_recall": (2 / 3 + 0) / 2})


def test_acc5_needs_six_classes(make):
    for classes, expected in ((2, ["acc1"]), (5, ["acc1"]), (6, ["acc1", "acc5"])):
        scores, labels = drawn_scores(classes=classes)
        assert list(make(TopKAccuracy).compute(predictions=scores, references=labels)) == expected
    scores, labels = drawn_scores(classes=5)
    with pytest.raises(InputError, match=r"^k = 5 of 5 classes measures nothing: give ks from 1 to 4$"):
        make(TopKAccuracy).compute(predictions=scores, references=labels, ks=(1, 5))


@pytest.mark.parametrize("kind", [TopKAccuracy, MeanPerClassRecall])
def test_classes_that_are_not_scored_are_refused(make, kind):
    for wrong in (-1, 3):
        with pytest.raises(InputError, match=f"row 1 names the class {wrong}, but predictions score 3"):
            make(kind).compute(predictions=np.eye(3), references=[0, wrong, 2])
    with pytest.raises(InputError, match="row 2 names the class nan"):
        make(kind).compute(predictions=np.eye(3), references=[0, 1, None])
    with pytest.raises(InputError, match="one class decide nothing"):
        make(kind).compute(predictions=np.ones((3, 1)), references=[0, 0, 0])
    with pytest.raises(ValueError, match="predictions are not finite, first in row 0"):
        make(kind).compute(predictions=[[math.nan, 1.0]], references=[0])


def test_average_precision_is_that_of_scikit_learn(make):
    scores, belongs = drawn_labels()
    result = make(MeanAveragePrecision).compute(predictions=scores, references=belongs)
    expected = average_precision_score(belongs, scores, average="macro")
    assert result == pytest.approx({"mean_average_precision": expected, "classes_without_pictures": 0})
    # Probabilities may be nearer to each other than what rounding does to cosines.
    tiny = make(MeanAveragePrecision).compute(predictions=1e-9 * scores.astype(np.float64), references=belongs)
    assert tiny == pytest.approx(result)


def test_classes_without_pictures_are_counted(make):
    scores, belongs = drawn_labels()
    belongs[:, [1, 4]] = 0
    result = make(MeanAveragePrecision).compute(predictions=scores, references=belongs)
    kept = [0, 2, 3, 5]
    expected = average_precision_score(belongs[:, kept], scores[:, kept], average="macro")
    assert result == pytest.approx({"mean_average_precision": expected, "classes_without_pictures": 2})
    with pytest.raises(InputError, match="no picture is of any class"):
        make(MeanAveragePrecision).compute(predictions=scores, references=0 * belongs)


def test_average_precision_of_ties_by_hand(make):
    # Class 0: its picture shares the first place with another: at the second. Class 1: first and third, (1 + 2/3) / 2.
    result = make(MeanAveragePrecision).compute(
        predictions=[[1.0, 0.9], [1.0, 0.5], [0.0, 0.1]], references=[[1, 1], [0, 0], [0, 1]]
    )
    assert result["mean_average_precision"] == pytest.approx((1 / 2 + 5 / 6) / 2)


def test_labels_that_are_no_labels_are_refused(make):
    for wrong in (2, -1, None):
        with pytest.raises(InputError, match="row 1 has more than 0 and 1"):
            make(MeanAveragePrecision).compute(predictions=np.eye(2), references=[[1, 0], [0, wrong]])
    with pytest.raises(InputError, match="predictions have 2 numbers a row and references 3"):
        make(MeanAveragePrecision).compute(predictions=np.eye(2), references=[[1, 0, 0], [0, 1, 0]])
    with pytest.raises(ValueError, match="predictions are not finite"):
        make(MeanAveragePrecision).compute(predictions=[[1.0, math.nan]], references=[[1, 0]])


# ---- as part of `evaluate` ------------------------------------------------------------------------------------------


def inputs(kind) -> tuple[np.ndarray, np.ndarray]:
    if kind is MeanAveragePrecision:
        return drawn_labels()
    if kind in (TopKAccuracy, MeanPerClassRecall):
        return drawn_scores()
    generator = np.random.default_rng(0)
    images = generator.normal(size=(30, 8)).astype(np.float32)
    return images + generator.normal(size=(30, 8)).astype(np.float32), images


@pytest.mark.parametrize("kind", METRICS)
@pytest.mark.parametrize("form", [np.asarray, torch.tensor, np.ndarray.tolist, list])
def test_batches_of_any_kind_are_one_whole(make, kind, form):
    predictions, references = inputs(kind)
    whole = make(kind).compute(predictions=predictions, references=references)
    metric = make(kind)
    for part in (slice(0, 11), slice(11, 12), slice(12, None)):
        metric.add_batch(predictions=form(predictions[part]), references=form(references[part]))
    assert metric.compute() == whole
    metric.add_batch(predictions=form(predictions[:9]), references=form(references[:9]))
    metric.add(prediction=predictions[9], reference=references[9])
    last = metric.compute()
    assert last == make(kind).compute(predictions=predictions[:10], references=references[:10])
    assert last != whole


@pytest.mark.parametrize("group", [METRICS[:2], METRICS[2:4]])
def test_a_group_combines_and_is_saved(make, group, tmp_path):
    predictions, references = inputs(group[0])
    alone = {}
    for kind in group:
        alone |= make(kind).compute(predictions=predictions, references=references, ks=(1, 3))
    metrics = evaluate.combine([make(kind) for kind in group])
    for part in (slice(0, 13), slice(13, None)):
        metrics.add_batch(predictions=predictions[part], references=references[part])
    result = metrics.compute(ks=(1, 3))
    assert result == alone
    assert {type(value) for value in result.values()} == {float}
    saved = json.loads(evaluate.save(tmp_path / "saved" / "result.json", **result).read_text())
    assert {name: value for name, value in saved.items() if name[0] != "_"} == alone


def test_ids_go_through_combine(make):
    metrics = evaluate.combine([make(ImageTextRetrieval), make(CLIPScore)])
    result = metrics.compute(predictions=TEXTS, references=IMAGES, image_ids=IDS, ks=(1, 2, 3))
    assert result.items() >= make(CLIPScore).compute(predictions=TEXTS, references=IMAGES).items()
    assert {name: result[name] for name in BY_HAND} == pytest.approx(BY_HAND)


@pytest.mark.parametrize("kind", METRICS)
def test_nothing_is_an_error(make, kind):
    with pytest.raises(InputError, match=r"^predictions: not one row was added"):
        make(kind).compute(predictions=[], references=[])
    with pytest.raises(ValueError, match="add_batch"):
        make(kind).compute()


@pytest.mark.parametrize("kind", METRICS)
def test_rows_of_unlike_length_are_refused(make, kind):
    references = [0, 1] if kind in (TopKAccuracy, MeanPerClassRecall) else [[1, 0], [0, 1]]
    with pytest.raises(InputError, match=r"^predictions: row 0 has 2 numbers and row 1 3"):
        make(kind).compute(predictions=[[1.0, 2.0], [1.0, 2.0, 3.0]], references=references)
    with pytest.raises(ValueError, match=r"Mismatch in the number of predictions \(1\) and references \(2\)"):
        make(kind).compute(predictions=[[1.0, 2.0]], references=references)


@pytest.mark.parametrize("kind", METRICS)
def test_a_setting_that_there_is_not_is_refused(make, kind):
    predictions, references = inputs(kind)
    with pytest.raises(TypeError, match="top_k"):
        make(kind).compute(predictions=predictions, references=references, top_k=3)


@pytest.mark.parametrize("kind", METRICS)
def test_a_metric_describes_itself(make, kind):
    metric = make(kind)
    assert kind.__doc__.splitlines()[0] in metric.description
    assert "https://" in metric.description
    assert metric.citation.startswith("@")
    assert metric.citation.count("{") == metric.citation.count("}")
    assert "predictions:" in metric.compute.__doc__
    predictions, references = inputs(kind)
    for name in metric.compute(predictions=predictions, references=references):
        assert name.partition("@")[0] in metric.inputs_description


def test_after_an_error_a_metric_starts_anew(make):
    metric = make(CLIPScore)
    with pytest.raises(ValueError, match="not finite"):
        metric.compute(predictions=[[math.nan, 1.0]], references=[[1.0, 0.0]])
    assert metric.compute(predictions=IMAGES, references=IMAGES) == pytest.approx({"clip_score": 2.5})
