"""What is said of a data set: by hand on the circle, by brute force, and on faults that were planted."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from conftest import write_pictures
from scipy.special import softmax
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors
from torch import tensor
from torch.nn.functional import normalize

from hf_clip.analysis import pictures as analysis_pictures
from hf_clip.analysis.measures import (
    Rows,
    best_fitting,
    clip_score,
    find_mislabelled,
    find_outliers,
    fit_shares,
    measure_agreement,
    measure_all,
    measure_word_pairs,
    neighbour_cosines,
    score_word_pairs,
)
from hf_clip.data.sources import open_source
from hf_clip.embeddings.encode import Embeddings
from hf_clip.evaluation.outcome import Outcome


def on_circle(*degrees: float) -> torch.Tensor:
    angles = torch.deg2rad(tensor(degrees, dtype=torch.float32))
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def random_unit(count: int, dim: int = 8, seed: int = 0) -> torch.Tensor:
    return normalize(torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)))


def embedded(image_embeds, text_embeds, text_to_image=None, image_ids=None, caption_ids=None) -> Embeddings:
    images, captions = torch.arange(len(image_embeds)), torch.arange(len(text_embeds))
    return Embeddings(
        image_embeds=image_embeds,
        text_embeds=text_embeds,
        image_rows=images,
        text_to_image=captions if text_to_image is None else tensor(text_to_image),
        image_ids=images if image_ids is None else tensor(image_ids),
        caption_ids=captions if caption_ids is None else tensor(caption_ids),
    )


def planted(wrong: float, count: int = 1000, noise: float = 0.5, seed: int = 0) -> tuple[Embeddings, np.ndarray]:
    """(embeddings, which captions are another's): pictures and captions around 20 clusters."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(20, 64, generator=generator)
    true = centres[torch.randint(20, (count,), generator=generator)] + torch.randn(count, 64, generator=generator)
    images, texts = (normalize(true + noise * torch.randn(count, 64, generator=generator)) for _ in range(2))
    shuffled = torch.randperm(count, generator=generator)[: round(wrong * count)]
    texts[shuffled] = texts[shuffled.roll(1)]
    is_wrong = np.zeros(count, dtype=bool)
    is_wrong[shuffled] = True
    return embedded(images, texts), is_wrong


# ---- word pairs ---------------------------------------------------------------------------------------------------


def test_word_pairs_by_hand():
    # Cosines with the prompts at 0° and 90°: 1 and 0; ½ and √3/2; equal at 45°. exp(scale) = 2.
    found = score_word_pairs(on_circle(0, 60, 45), on_circle(0, 90)[None], math.log(2))
    expected = [1 / (1 + math.exp(-2)), 1 / (1 + math.exp(math.sqrt(3) - 1)), 0.5]
    assert found[:, 0].tolist() == pytest.approx(expected)


def test_word_pairs_are_a_softmax_of_the_two():
    images, pairs = random_unit(7), random_unit(6, seed=1).view(3, 2, 8)
    scale = tensor([math.log(14.0)])  # as the model holds it: (1,)
    logits = 14 * np.einsum("id,psd->ips", images.numpy(), pairs.numpy())
    found = score_word_pairs(images, pairs, scale)
    np.testing.assert_allclose(found, softmax(logits, axis=2)[..., 0], atol=1e-6)
    np.testing.assert_allclose(score_word_pairs(images, pairs.flip(1), scale), 1 - found, atol=1e-6)


def test_word_pairs_of_a_data_set():
    # Pictures 0 and 3 are the same one: it counts twice in the mean, and once in the order.
    embeddings = embedded(on_circle(0, 90, 30, 0), on_circle(), image_ids=[5, 6, 4, 5])
    outcome = measure_word_pairs(embeddings, on_circle(0, 90, 90, 0).view(2, 2, 2), math.log(2))
    first, half = 1 / (1 + math.exp(-2)), 1 / (1 + math.exp(1 - math.sqrt(3)))
    assert outcome.metrics["word_pair_1_mean"] == pytest.approx((2 * first + (1 - first) + half) / 4)
    assert outcome.metrics["word_pair_1_above_half"] == 0.75
    assert outcome.metrics["word_pair_2_mean"] == pytest.approx(1 - outcome.metrics["word_pair_1_mean"])
    assert outcome.metrics["word_pair_2_above_half"] == 0.25
    assert outcome.details["word_pair_order"].T.tolist() == [[0, 2, 1], [1, 2, 0]]
    sums, counts = outcome.shares["word_pair_1_mean"]
    assert sums.sum() / counts.sum() == pytest.approx(outcome.metrics["word_pair_1_mean"])


# ---- CLIPScore ----------------------------------------------------------------------------------------------------


def test_clip_score_by_hand():
    assert clip_score(on_circle(0, 0, 0, 10), on_circle(0, 60, 120, 100)).tolist() == pytest.approx(
        [2.5, 1.25, 0, 0], abs=1e-6
    )


def test_clip_score_is_the_plain_formula():
    images, texts = random_unit(50), random_unit(50, seed=1)
    expected = [2.5 * max(np.dot(image, text), 0) for image, text in zip(images.numpy(), texts.numpy(), strict=True)]
    assert clip_score(images, texts).tolist() == pytest.approx(expected, abs=1e-6)
    assert min(expected) == 0


def test_agreement_of_a_data_set():
    # Picture 1 has two captions. Scores 2.5, 1.25, 0.
    embeddings = embedded(on_circle(0, 90), on_circle(0, 30, 0), text_to_image=[0, 1, 1])
    outcome = measure_agreement(embeddings)
    scores = [2.5, 1.25, 0]
    assert outcome.details["clip_score"].tolist() == pytest.approx(scores, abs=1e-6)
    assert outcome.metrics["clip_score_mean"] == pytest.approx(1.25)
    assert outcome.metrics["clip_score_std"] == pytest.approx(math.sqrt(2 / 3) * 1.25)
    quantiles = [outcome.metrics[f"clip_score_q{q}"] for q in ("05", "25", "50", "75", "95")]
    assert quantiles == pytest.approx([0.125, 0.625, 1.25, 1.875, 2.375], abs=1e-6)
    sums, counts = outcome.shares["clip_score_mean"]
    assert sums.tolist() == pytest.approx([2.5, 1.25], abs=1e-6)
    assert counts.tolist() == [1, 2]


def test_mismatched_captions_are_those_of_another_picture():
    texts = on_circle(*[0] * 10, *[90] * 10)
    embeddings = embedded(on_circle(0, 90), texts, text_to_image=[0] * 10 + [1] * 10)
    mismatched = measure_agreement(embeddings).details["mismatched_clip_score"]
    assert 0 < len(mismatched) < 20
    assert mismatched.max() < 1e-6
    same_words = dataclasses.replace(embeddings, caption_ids=torch.ones(20))
    outcome = measure_agreement(same_words)
    assert len(outcome.details["mismatched_clip_score"]) == 0
    assert "mismatched_clip_score_mean" not in outcome.metrics


def test_mismatched_pairs_agree_less():
    outcome = measure_agreement(planted(wrong=0)[0])
    assert outcome.metrics["mismatched_clip_score_mean"] < 0.3 * outcome.metrics["clip_score_mean"]


# ---- likely mislabelled -------------------------------------------------------------------------------------------


def test_shares_on_the_circle():
    # Text 0 (0°) with the picture at 50°: of the other three pictures 10° and 20° are nearer, 180° is not.
    # Of the other two texts, 45° is nearer to the picture at 50°, −90° is not.
    texts, images = on_circle(0, 45, -90), on_circle(50, 10, 20, 180)
    shares = fit_shares(texts, images, tensor([[0, 0], [1, 0], [2, 3]]))
    # The picture at 50° belongs to texts 0 and 1: neither counts against the other.
    assert shares[0].tolist() == pytest.approx([2 / 3, 0])
    assert shares[1].tolist() == pytest.approx([0, 0])
    # Text −90° is 90° from the picture at 180°: no other picture and no other text is as near.
    assert shares[2].tolist() == pytest.approx([0, 0])
    assert fit_shares(texts, images, tensor([[0, 0]]))[0].tolist() == pytest.approx([2 / 3, 1 / 2])


def test_ties_count_against_a_pair():
    same = on_circle(0, 0, 0, 0)
    assert fit_shares(same, same, torch.arange(4).repeat(2, 1).T).tolist() == [[1, 1]] * 4


def test_without_others_the_share_is_nought():
    assert fit_shares(on_circle(0), on_circle(180), tensor([[0, 0]])).tolist() == [[0, 0]]


@pytest.mark.parametrize("block", [(1, 1), (3, 5), (4, 40), (1024, 4096)])
def test_shares_by_brute_force_whatever_the_blocks(block):
    texts, images = random_unit(19), random_unit(23, seed=1)
    drawn = torch.randperm(19 * 23, generator=torch.Generator().manual_seed(2))[:60]
    pairs = torch.stack([drawn // 23, drawn % 23], dim=1)
    known = {tuple(pair) for pair in pairs.tolist()}
    scores = (texts @ images.T).tolist()
    expected = []
    for text, image in pairs.tolist():
        own = scores[text][image]
        pictures = [scores[text][other] >= own for other in range(23) if (text, other) not in known]
        captions = [scores[other][image] >= own for other in range(19) if (other, image) not in known]
        expected.append([np.mean(pictures), np.mean(captions)])
    np.testing.assert_allclose(fit_shares(texts, images, pairs, block=block), expected, atol=1e-6)


def test_shares_of_what_is_not_finite_are_refused():
    broken = tensor([[math.nan, 1.0]])
    for texts, images in ((broken, on_circle(0)), (on_circle(0), broken)):
        with pytest.raises(ValueError, match="not finite"):
            fit_shares(texts, images, tensor([[0, 0]]))


@pytest.mark.parametrize("wrong", [0.05, 0.2])
def test_planted_faults_are_found(wrong):
    embeddings, is_wrong = planted(wrong)
    outcome = find_mislabelled(embeddings)
    assert roc_auc_score(is_wrong, outcome.details["suspicion"]) > 0.95
    assert is_wrong.sum() / 1.5 < outcome.metrics["estimated_mislabelled"] < 1.5 * is_wrong.sum()
    assert outcome.metrics["estimated_mislabelled_share"] == outcome.metrics["estimated_mislabelled"] / 1000
    listed = outcome.details["mislabelled"]
    assert len(listed) == outcome.metrics["estimated_mislabelled"]
    assert is_wrong[listed[: round(len(listed) / 2)]].mean() > 0.95
    assert (np.diff(outcome.details["suspicion"][listed]) <= 0).all()


def test_without_faults_none_are_estimated():
    assert find_mislabelled(planted(wrong=0)[0]).metrics["estimated_mislabelled"] <= 10


def test_captions_at_random_are_all_suspected():
    # Half of 1000 above ½, with a deviation of √(0.25 / 1000) · 2 · 1000 = 32 of their double.
    outcome = find_mislabelled(embedded(random_unit(1000, 64), random_unit(1000, 64, seed=1)))
    assert outcome.metrics["estimated_mislabelled"] == pytest.approx(1000, abs=130)


def test_the_estimate_stops_at_all():
    same = on_circle(0, 0, 0, 0)
    assert find_mislabelled(embedded(same, same)).metrics["estimated_mislabelled"] == 4


def test_the_best_caption_is_that_which_fits_the_picture():
    # Eight pictures around the circle; the captions of two opposite ones are swapped, so that everything fits better.
    degrees = [0, 45, 90, 135, 180, 225, 270, 315]
    outcome = find_mislabelled(embedded(on_circle(*degrees), on_circle(180, 45, 90, 135, 0, 225, 270, 315)))
    assert outcome.details["suspicion"].tolist() == [1, 0, 0, 0, 1, 0, 0, 0]
    assert outcome.metrics["estimated_mislabelled"] == 4
    assert outcome.details["mislabelled"].tolist() == [0, 4, 1, 2]
    assert outcome.details["best_caption"].tolist() == [4, 0, 1, 2]


def test_the_same_caption_elsewhere_does_not_count():
    # Pictures at 0° and 5° share their caption at 0°; the other at 90° has its own.
    images, texts = on_circle(5, 0, 90), on_circle(0, 0, 90)
    alone = find_mislabelled(embedded(images, texts)).details["suspicion"]
    assert alone.tolist() == pytest.approx([(1 / 2 + 1 / 2) / 2, (0 + 1 / 2) / 2, 0])
    shared = find_mislabelled(embedded(images, texts, caption_ids=[7, 7, 3])).details["suspicion"]
    assert shared.tolist() == [0, 0, 0]


def test_the_same_picture_elsewhere_does_not_count():
    # One picture in two rows, with captions at 0° and 20° that fit it alike: each is right there.
    images, texts = on_circle(10, 10, 90), on_circle(20, 0, 90)
    alone = find_mislabelled(embedded(images, texts)).details["suspicion"]
    assert alone.tolist() == pytest.approx([1 / 2, 1 / 2, 0])
    shared = find_mislabelled(embedded(images, texts, image_ids=[9, 9, 1])).details["suspicion"]
    assert shared.tolist() == [0, 0, 0]


def test_class_names_are_captions():
    # 5 classes with 40 pictures each; every tenth picture has the next class's name.
    classes = torch.arange(200) % 5
    images = normalize(torch.eye(5)[classes] + 0.3 * random_unit(200, 5))
    wrong = torch.arange(200) % 10 == 0
    names = torch.where(wrong, (classes + 1) % 5, classes)
    outcome = find_mislabelled(embedded(images, torch.eye(5)[names], caption_ids=(names * 11).tolist()))
    assert roc_auc_score(wrong, outcome.details["suspicion"]) > 0.95
    assert outcome.metrics["distinct_captions"] == 5
    listed, best = outcome.details["mislabelled"], outcome.details["best_caption"]
    right = wrong[listed]
    assert right.any()
    assert torch.equal(names[best][right], classes[listed][right]), "the name that belongs there"


def test_blocks_change_no_estimate():
    embeddings, _ = planted(0.1, count=150)
    whole, parts = find_mislabelled(embeddings), find_mislabelled(embeddings, block=(7, 13))
    for name in ("suspicion", "mislabelled", "best_caption"):
        np.testing.assert_array_equal(whole.details[name], parts.details[name])


# ---- outliers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [(1, 1), (3, 5), (30, 4), (1024, 4096)])
def test_neighbours_are_those_of_scikit_learn(block):
    embeds = random_unit(60, seed=3)
    distances = NearestNeighbors(n_neighbors=10, metric="cosine", algorithm="brute").fit(embeds).kneighbors()[0]
    np.testing.assert_allclose(neighbour_cosines(embeds, block=block), (1 - distances).mean(1), atol=1e-5)


def test_fewer_pictures_than_neighbours():
    found = neighbour_cosines(on_circle(0, 60, 90))
    assert found.tolist() == pytest.approx([0.25, (0.5 + math.sqrt(3) / 2) / 2, math.sqrt(3) / 4], abs=1e-6)
    assert neighbour_cosines(on_circle(0)).isnan().all()


def test_duplicates_are_no_neighbours():
    # The picture at 180° stands there twice, and is far from all others all the same.
    embeddings = embedded(on_circle(180, 0, 10, 180, 20), on_circle(), image_ids=[8, 2, 3, 8, 4])
    outcome = find_outliers(embeddings, neighbours=1)
    assert outcome.metrics["distinct_images"] == 4
    assert outcome.metrics["duplicate_images"] == 1
    expected = [math.cos(math.radians(degrees)) for degrees in (160, 10, 10, 160, 10)]
    assert outcome.details["neighbour_cosine"].tolist() == pytest.approx(expected, abs=1e-6)
    assert outcome.details["outliers"][0] == 0
    assert sorted(outcome.details["outliers"]) == [0, 1, 2, 4]


def test_a_planted_outlier_is_the_first():
    embeds = normalize(torch.ones(50, 8) + 0.3 * random_unit(50))
    embeds[17] = normalize(-torch.ones(8), dim=0)
    assert find_outliers(embedded(embeds, embeds)).details["outliers"][0] == 17


@pytest.mark.parametrize("block", [(1, 1), (4, 3), (1024, 4096)])
def test_best_fitting_whatever_the_blocks(block):
    queries, candidates = random_unit(9), random_unit(20, seed=1)
    assert torch.equal(best_fitting(queries, candidates, block=block), (queries @ candidates.T).argmax(1))


# ---- all together -------------------------------------------------------------------------------------------------


def test_all_figures_of_a_data_set():
    embeddings, _ = planted(0.1, count=100)
    outcome = measure_all(embeddings, random_unit(2, 64)[None], 2.0)
    assert outcome.metrics["images"] == outcome.metrics["captions"] == 100
    parts = [find_mislabelled(embeddings), find_outliers(embeddings), measure_agreement(embeddings)]
    for part in parts:
        assert part.metrics.items() <= outcome.metrics.items()
        assert part.protocol.items() <= outcome.protocol.items()
    assert outcome.details["word_pairs"].shape == (100, 1)
    assert not outcome.notes
    json.dumps(outcome.metrics)


def test_pictures_alone():
    outcome = measure_all(embedded(random_unit(12), torch.empty(0, 8)), random_unit(2, seed=1)[None], 2.0)
    assert "clip_score_mean" not in outcome.metrics
    assert "estimated_mislabelled" not in outcome.metrics
    assert outcome.metrics["word_pair_1_mean"] == pytest.approx(outcome.details["word_pairs"].mean())
    assert outcome.notes == ["There are no captions: their agreement with the pictures was not measured."]


def test_one_picture():
    outcome = measure_all(embedded(on_circle(0), on_circle(0)))
    assert len(outcome.details["outliers"]) == 0
    assert outcome.notes == ["There is one picture: nothing to be far from."]
    assert "NaN" not in json.dumps(outcome.metrics)


def test_rows_are_called_as_the_reader_calls_them(tmp_path):
    source = open_source(write_pictures(tmp_path / "data", count=4, captions_each=2))
    embeddings = embedded(torch.eye(3), torch.eye(3).repeat_interleave(2, dim=0), [0, 0, 1, 1, 2, 2])
    embeddings.image_rows = tensor([0, 2, 3])  # row 1 was left out
    rows = Rows(source, embeddings)
    assert [rows.row(image) for image in range(3)] == [1, 3, 4]
    assert [rows.name(image) for image in range(3)] == ["0.png", "2.png", "3.png"]
    captions = ["red a", "very red a", "blue c", "very blue c", "yellow d", "very yellow d"]
    assert [rows.caption(caption) for caption in range(6)] == captions
    assert rows.picture(1).getpixel((9, 9)) == (0, 0, 255)
    assert Rows(dataclasses.replace(source, row_numbers=np.array([5, 6, 7, 8])), embeddings).row(1) == 8
    assert [Rows(None, embeddings).row(1), Rows(None, embeddings).caption(2)] == [3, ""]


# ---- pictures -----------------------------------------------------------------------------------------------------


@pytest.fixture
def figures(monkeypatch) -> list:
    kept = []
    monkeypatch.setattr(analysis_pictures, "save_figure", lambda figure, file: kept.append(figure))
    return kept


@pytest.fixture
def eight(tmp_path) -> tuple[Rows, Outcome]:
    """Eight colours around the circle; the captions of picture 0 (red) and 4 (black) are swapped."""
    source = open_source(write_pictures(tmp_path / "data"))
    images = on_circle(0, 45, 90, 135, 180, 225, 270, 315)
    embeddings = embedded(images, images[[4, 1, 2, 3, 0, 5, 6, 7]])
    return Rows(source, embeddings), measure_all(embeddings, on_circle(10, 190)[None], 1.0)


def shown(axes) -> tuple[tuple[int, ...], list[str]]:
    """(a picture's colour, the texts below it)"""
    return tuple(axes.images[0].get_array()[9, 9]), [text.get_text() for text in axes.texts]


def test_the_pictures_of_the_likely_mislabelled(eight, figures, tmp_path):
    rows, outcome = eight
    analysis_pictures.draw_mislabelled(outcome, rows, tmp_path / "a.png", count=2)
    assert [shown(axes) for axes in figures[0].axes] == [
        ((255, 0, 0), ["row 1", "red a", "better: black e"]),
        ((0, 0, 0), ["row 5", "black e", "better: red a"]),
    ]


def test_the_pictures_of_a_word_pair(eight, figures, tmp_path):
    # 10° and 190°: the fittest are red (0°) and black (180°), each followed by its neighbours.
    rows, outcome = eight
    analysis_pictures.draw_word_pairs(outcome, rows, [("warm", "cold")], tmp_path / "a.png")
    warm, cold = figures[0].subfigs
    assert [warm.get_suptitle(), cold.get_suptitle()] == ["warm", "cold"]
    probability = 1 / (1 + math.exp(-2 * math.e * math.cos(math.radians(10))))
    assert shown(warm.axes[0]) == ((255, 0, 0), [f"{probability:.2f}"])
    assert shown(cold.axes[0]) == ((0, 0, 0), [f"{probability:.2f}"])
    assert [shown(axes)[0] for axes in warm.axes[1:3]] == [(0, 128, 0), (165, 42, 42)]
    assert len(warm.axes) == len(cold.axes) == 6


def test_the_pictures_of_outliers(eight, figures, tmp_path):
    rows, outcome = eight
    outcome.details |= {"outliers": np.array([2, 5]), "neighbour_cosine": np.arange(8) / 10}
    analysis_pictures.draw_outliers(outcome, rows, tmp_path / "a.png")
    assert [shown(axes) for axes in figures[0].axes] == [
        ((0, 0, 255), ["row 3: 0.20"]),
        ((255, 165, 0), ["row 6: 0.50"]),
    ]


def test_the_histogram_holds_every_caption(eight, figures, tmp_path):
    _, outcome = eight
    analysis_pictures.draw_clip_scores(outcome, tmp_path / "a.png")
    (axes,) = figures[0].axes
    heights = [sum(bar.get_height() for bar in bars) for bars in axes.containers]
    assert heights == pytest.approx([100, 100])


def test_captions_are_text_and_no_formula(eight, tmp_path):
    rows, outcome = eight
    rows.captions = lambda image: ["$5 \\frac{ and $6 {_^"]
    analysis_pictures.draw_mislabelled(outcome, rows, tmp_path / "a.png")
    assert [file.name for file in tmp_path.glob("*.png*")] == ["a.png"]
