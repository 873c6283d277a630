"""Retrieval both ways, with several captions a picture: every number worked out by hand."""

import dataclasses
import itertools
import json
import math

import pytest
import torch
from conftest import SAME, tiny_model, write_pictures

from hf_clip.core.errors import InputError
from hf_clip.data.sources import open_source
from hf_clip.embeddings.encode import Embeddings, embed_source
from hf_clip.embeddings.options import EmbedOptions
from hf_clip.evaluation.pictures import top_images
from hf_clip.evaluation.tasks.retrieval import evaluate_retrieval


def embeddings(angles_of_images: list[float], angles_of_captions: list[list[float]], texts=None) -> Embeddings:
    """Points on the circle, in degrees; entry i of `angles_of_captions` belongs to picture i.

    `texts`: of each caption a number that is the same where the text is; default: all differ.
    """

    def points(angles):
        radians = torch.tensor(angles, dtype=torch.float32).deg2rad()
        return torch.stack([radians.cos(), radians.sin()], dim=1)

    counts = torch.tensor([len(angles) for angles in angles_of_captions])
    images = torch.arange(len(angles_of_images))
    captions = [angle for angles in angles_of_captions for angle in angles]
    return Embeddings(
        image_embeds=points(angles_of_images), text_embeds=points(captions), image_rows=images,
        text_to_image=images.repeat_interleave(counts), image_ids=images,
        caption_ids=torch.tensor(texts or range(len(captions))),
        skipped=[(9, "9.png", "broken")],
    )  # fmt: skip


# Captions in order: 0: 5°, 1: 85° (picture 0, at 0°); 2: 100° (picture 1, at 90°); 3: 20° (picture 2, at 170°).
WHOLE = embeddings([0, 90, 170], [[5, 85], [100], [20]])


def test_metrics_by_hand():
    # Caption → pictures by angle: 5° → 0, 1, 2 (right first); 85° → 1 (5° off), then 0 and 2 tie at 85° (two before
    # or beside the right one); 100° → 1 first; 20° → 0, 1, 2 (the right one last).
    # Picture → captions: 0° → 5° (own) first; 90° → 85°, then 100° (own); 170° → 100°, 85°, then 20° (own), 5°.
    metrics = evaluate_retrieval(WHOLE, ks=(1, 2, 3)).metrics
    # Precisions at the places of the positives: caption → pictures 1, 1/3, 1, 1/3; of picture 0 the captions are at
    # places 1 and 3 (5°; then 20° of picture 2 before 85°): 1/1 and 2/3; of picture 1 at 2; of picture 2 at 3.
    assert metrics == pytest.approx({
        "image_retrieval_map@1": 2 / 4, "image_retrieval_map@2": 2 / 4, "image_retrieval_map@3": 2 / 3,
        "text_retrieval_map@1": 1 / 3, "text_retrieval_map@2": (1 / 2 + 1 / 2) / 3,
        "text_retrieval_map@3": ((1 + 2 / 3) / 2 + 1 / 2 + 1 / 3) / 3,
        **{f"{way}_retrieval_ceiling@{k}": 1 for way in ("image", "text") for k in (1, 2, 3)},
        "images": 3, "captions": 4, "skipped_images": 1,
        "image_retrieval_recall@1": 2 / 4, "image_retrieval_recall@2": 2 / 4, "image_retrieval_recall@3": 1,
        "image_retrieval_chance@1": 1 / 3, "image_retrieval_chance@2": 2 / 3, "image_retrieval_chance@3": 1,
        "image_retrieval_median_rank": 2,  # ranks 1, 3, 1, 3
        "text_retrieval_recall@1": 1 / 3, "text_retrieval_recall@2": 2 / 3, "text_retrieval_recall@3": 1,
        # Two of four for picture 0, one of four for the others: 1 − C(2, k)/C(4, k) and k/4.
        "text_retrieval_chance@1": (2 / 4 + 1 / 4 + 1 / 4) / 3,
        "text_retrieval_chance@2": (5 / 6 + 2 / 4 + 2 / 4) / 3,
        "text_retrieval_chance@3": (1 + 3 / 4 + 3 / 4) / 3,
        "text_retrieval_median_rank": 2,
    })  # fmt: skip


def test_a_collapsed_model_is_not_rewarded():
    metrics = evaluate_retrieval(embeddings([30] * 12, [[30]] * 12)).metrics
    assert [metrics[f"{way}_retrieval_recall@{k}"] for way in ("image", "text") for k in (1, 5, 10)] == [0] * 6


def test_a_perfect_model():
    angles = [10.0 * i for i in range(12)]
    metrics = evaluate_retrieval(embeddings(angles, [[angle - 1, angle + 1] for angle in angles])).metrics
    assert {metrics[f"{way}_retrieval_recall@{k}"] for way in ("image", "text") for k in (1, 5, 10)} == {1}


def test_metrics_are_plain_numbers():
    assert all(
        type(value) in (int, float) and math.isfinite(value) for value in evaluate_retrieval(WHOLE).metrics.values()
    )


def test_what_pictures_add_makes_the_figure():
    outcome = evaluate_retrieval(WHOLE, ks=(1, 2, 3))
    for name, (sums, counts) in outcome.shares.items():
        assert len(sums) == len(counts) == 3
        assert sums.sum() / counts.sum() == pytest.approx(outcome.metrics[name]), name
    assert len(outcome.shares) == 12
    sums, counts = outcome.shares["image_retrieval_recall@1"]
    assert (sums.tolist(), counts.tolist()) == ([1, 1, 0], [2, 1, 1]), "5° of picture 0, 100° of picture 1"


def test_the_same_caption_on_several_pictures_is_a_ceiling():
    # Caption 7 stands on pictures 0, 1 and 2, on the last twice; captions 8 and 9 on one each. A perfect model: all
    # three pictures are at the caption's place. Best order for caption 7: picture 2 (two queries), then the others.
    perfect = embeddings([0, 0, 0, 90], [[0, 1], [0], [0, 0], [90]], texts=[7, 8, 7, 7, 7, 9])
    outcome = evaluate_retrieval(perfect, ks=(1, 2, 3))
    ceilings = [outcome.metrics[f"image_retrieval_ceiling@{k}"] for k in (1, 2, 3)]
    assert ceilings == pytest.approx([4 / 6, 5 / 6, 1])
    # Picture 0 has a caption of its own; 1 and 2 have only the shared one, which stands thrice and twice elsewhere.
    ceilings = [outcome.metrics[f"text_retrieval_ceiling@{k}"] for k in (1, 2, 3)]
    assert ceilings == pytest.approx([2 / 4, 2 / 4, 3 / 4])
    assert outcome.metrics["image_retrieval_recall@1"] <= 4 / 6
    assert "3 captions repeat another" in outcome.notes[0]


def test_captions_that_read_the_same_bound_what_can_be_found(tmp_path, processor):
    folder = write_pictures(tmp_path / "data", count=16)
    captions = SAME + [f"{same} {'b' * 70}" for same in SAME]  # the b's do not all fit
    rows = [{"file_name": f"{i}.png", "caption": caption} for i, caption in enumerate(captions)]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = tiny_model()
    outcome = evaluate_retrieval(
        embed_source(model, processor, open_source(folder), options=EmbedOptions(progress=False)), ks=(1, 8)
    )
    assert outcome.metrics["image_retrieval_ceiling@1"] == 1 / 8
    assert outcome.metrics["image_retrieval_ceiling@8"] == 1
    assert outcome.metrics["text_retrieval_ceiling@1"] == 0, "seven other captions are the same"
    assert outcome.metrics["image_retrieval_recall@1"] <= 1 / 8
    notes = " ".join(outcome.notes)
    assert "14 captions repeat another, as the text tower reads them" in notes
    assert "8 of 16 captions are longer than the text tower reads" in notes


@pytest.mark.parametrize("seed", range(5))
def test_no_order_of_the_pictures_is_above_the_ceiling(seed):
    # By trying all orders of the pictures, for each caption its own.
    generator = torch.Generator().manual_seed(seed)
    texts = torch.randint(4, (9,), generator=generator).tolist()
    of_images = torch.cat([torch.arange(4), torch.randint(4, (5,), generator=generator)]).sort().values.tolist()
    angles = [[0.0] * of_images.count(image) for image in range(4)]
    found = evaluate_retrieval(embeddings([0, 30, 60, 90], angles, texts=texts), ks=(1, 2)).metrics
    for k in (1, 2):
        best = 0
        for text in set(texts):
            images = [image for image, of in zip(of_images, texts, strict=True) if of == text]
            best += max(sum(image in order[:k] for image in images) for order in itertools.permutations(range(4)))
        assert found[f"image_retrieval_ceiling@{k}"] == pytest.approx(best / 9)


def test_the_same_caption_ties_also_where_another_batch_rounded_it_otherwise():
    # Captions 1 and 2 are the same text; the second came out 5e-6 nearer to its picture.
    near = embeddings([0, 90], [[5, 40], [40.0003]], texts=[1, 2, 2])
    told_apart = embeddings([0, 90], [[5, 40], [40.0003]])
    # Picture 90°: its own caption is farther off than 40° by nothing: it ties with that of picture 0°.
    assert evaluate_retrieval(told_apart, ks=(1,)).metrics["text_retrieval_recall@1"] == 1
    assert evaluate_retrieval(near, ks=(1,)).metrics["text_retrieval_recall@1"] == 1 / 2


def test_a_k_above_the_candidates_is_left_out_or_refused():
    outcome = evaluate_retrieval(WHOLE)
    assert "image_retrieval_recall@1" in outcome.metrics
    assert not any("@5" in name for name in outcome.metrics)
    assert "recall above k = 3 is left out: there is no more to find" in outcome.notes
    with pytest.raises(InputError, match="recall@5 of 3 pictures and 4 captions is always 1: give k up to 3"):
        evaluate_retrieval(WHOLE, ks=(1, 5))


def test_a_caption_without_a_picture_is_named():
    for wrong in (3, -1):
        broken = dataclasses.replace(WHOLE, text_to_image=torch.tensor([0, 0, 1, wrong]))
        with pytest.raises(InputError, match=f"caption 3 belongs to picture {wrong}, and there are 3"):
            evaluate_retrieval(broken)


def test_embeddings_that_are_not_finite_are_refused():
    broken = WHOLE.image_embeds.clone()
    broken[1, 0] = math.nan
    with pytest.raises(ValueError, match="image_embeds are not finite, first in row 1"):
        evaluate_retrieval(dataclasses.replace(WHOLE, image_embeds=broken))


def test_a_picture_without_a_caption_is_named():
    with pytest.raises(InputError, match="1 pictures have no caption, the first in row 2"):
        evaluate_retrieval(embeddings([0, 90, 170], [[5], [], [20]]))


def test_the_pictures_most_alike():
    assert top_images(WHOLE, torch.tensor([3, 2]), k=2).tolist() == [[0, 1], [1, 2]]
    assert top_images(WHOLE, torch.tensor([0]), k=9).tolist() == [[0, 1, 2]]
