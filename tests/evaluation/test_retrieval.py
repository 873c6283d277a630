"""Retrieval both ways, with several captions a picture: every number worked out by hand."""

import math

import pytest
import torch

from hf_clip.embedding import Embeddings
from hf_clip.evaluation.retrieval import evaluate_retrieval, top_images


def embeddings(angles_of_images: list[float], angles_of_captions: list[list[float]]) -> Embeddings:
    """Points on the circle, in degrees; entry i of `angles_of_captions` belongs to picture i."""

    def points(angles):
        radians = torch.tensor(angles, dtype=torch.float32).deg2rad()
        return torch.stack([radians.cos(), radians.sin()], dim=1)

    counts = torch.tensor([len(angles) for angles in angles_of_captions])
    images = torch.arange(len(angles_of_images))
    captions = [angle for angles in angles_of_captions for angle in angles]
    return Embeddings(
        image_embeds=points(angles_of_images), text_embeds=points(captions), image_rows=images,
        text_to_image=images.repeat_interleave(counts), image_ids=images, caption_ids=torch.arange(len(captions)),
        skipped=[(9, "9.png", "broken")],
    )  # fmt: skip


# Captions in order: 0: 5°, 1: 85° (picture 0, at 0°); 2: 100° (picture 1, at 90°); 3: 20° (picture 2, at 170°).
WHOLE = embeddings([0, 90, 170], [[5, 85], [100], [20]])


def test_metrics_by_hand():
    # Caption → pictures by angle: 5° → 0, 1, 2 (right first); 85° → 1 (5° off), then 0 and 2 tie at 85° (two before
    # or beside the right one); 100° → 1 first; 20° → 0, 1, 2 (the right one last).
    # Picture → captions: 0° → 5° (own) first; 90° → 85°, then 100° (own); 170° → 100°, 85°, then 20° (own), 5°.
    metrics = evaluate_retrieval(WHOLE, ks=(1, 2, 3))
    assert metrics == pytest.approx({
        "images": 3, "captions": 4, "skipped_images": 1,
        "image_retrieval_recall@1": 2 / 4, "image_retrieval_recall@2": 2 / 4, "image_retrieval_recall@3": 1,
        "image_retrieval_chance@1": 1 / 3, "image_retrieval_chance@2": 2 / 3, "image_retrieval_chance@3": 1,
        "image_retrieval_median_rank": 1,  # ranks 1, 3, 1, 3: the lower of the two in the middle
        "text_retrieval_recall@1": 1 / 3, "text_retrieval_recall@2": 2 / 3, "text_retrieval_recall@3": 1,
        # Two of four for picture 0, one of four for the others: 1 − C(2, k)/C(4, k) and k/4.
        "text_retrieval_chance@1": (2 / 4 + 1 / 4 + 1 / 4) / 3,
        "text_retrieval_chance@2": (5 / 6 + 2 / 4 + 2 / 4) / 3,
        "text_retrieval_chance@3": (1 + 3 / 4 + 3 / 4) / 3,
        "text_retrieval_median_rank": 2,
    })  # fmt: skip


def test_a_collapsed_model_is_not_rewarded():
    metrics = evaluate_retrieval(embeddings([30] * 12, [[30]] * 12))
    assert [metrics[f"{way}_retrieval_recall@{k}"] for way in ("image", "text") for k in (1, 5, 10)] == [0] * 6


def test_a_perfect_model():
    angles = [10.0 * i for i in range(12)]
    metrics = evaluate_retrieval(embeddings(angles, [[angle - 1, angle + 1] for angle in angles]))
    assert {metrics[f"{way}_retrieval_recall@{k}"] for way in ("image", "text") for k in (1, 5, 10)} == {1}


def test_metrics_are_plain_numbers():
    assert all(type(value) in (int, float) and math.isfinite(value) for value in evaluate_retrieval(WHOLE).values())


def test_the_pictures_most_alike():
    assert top_images(WHOLE, torch.tensor([3, 2]), k=2).tolist() == [[0, 1], [1, 2]]
    assert top_images(WHOLE, torch.tensor([0]), k=9).tolist() == [[0, 1, 2]]
