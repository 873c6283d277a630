"""The pictures of a run: the curve shows the numbers logged, the grid frames the right picture and no other."""

import itertools

import matplotlib.colors
import numpy as np
import pytest
import torch
from conftest import write_pictures
from matplotlib.colors import to_rgba
from PIL import Image
from torch import tensor

from hf_clip.data.sources import open_source
from hf_clip.embeddings.encode import Embeddings
from hf_clip.evaluation import pictures
from hf_clip.evaluation.pictures import RIGHT, Queries, best_and_worst, draw_retrieval_grid, draw_training_curve

GREEN = tuple(round(255 * part) for part in matplotlib.colors.to_rgb(RIGHT))


@pytest.fixture
def source(tmp_path):
    return open_source(write_pictures(tmp_path / "data", count=8))


def found_at(place: int, count: int = 8) -> Embeddings:
    """Each caption ranks `place` wrong pictures above its own: scores fall from (i + 1 − place) around the circle."""
    ranks = (torch.arange(count)[None, :] - torch.arange(count)[:, None] + place) % count  # (captions, images)
    rows = torch.arange(count)
    return Embeddings(
        image_embeds=torch.eye(count), text_embeds=1 - ranks / count, image_rows=rows,
        text_to_image=rows, image_ids=rows, caption_ids=rows,
    )  # fmt: skip


def draw(source, embeddings, folder, queries=8, **settings) -> np.ndarray:
    spread = Queries.spread(embeddings, queries)
    draw_retrieval_grid(source, embeddings, folder / "pictures" / "retrieval.png", spread, **settings)
    return np.asarray(Image.open(folder / "pictures" / "retrieval.png").convert("RGB"))


def green(picture: np.ndarray) -> np.ndarray:
    """(pixels, 2): where the frame's colour is, from the top left."""
    return np.argwhere((picture == GREEN).all(axis=2))


def test_the_right_picture_is_framed_where_it_is_found(source, tmp_path):
    columns = [green(draw(source, found_at(place), tmp_path, queries=1, k=3))[:, 1] for place in range(3)]
    assert min(len(column) for column in columns) > 100
    for left, right in itertools.pairwise(columns):
        assert left.max() < right.min()


def test_without_the_right_picture_nothing_is_framed(source, tmp_path):
    assert len(green(draw(source, found_at(3), tmp_path, queries=8, k=3))) == 0


def test_each_caption_has_its_row(source, tmp_path):
    picture = draw(source, found_at(0), tmp_path, queries=4, k=2, credit="by someone")
    height, width, _ = picture.shape
    assert 400 < height < 1000
    assert 400 < width < 1000
    rows = np.unique(green(picture)[:, 0])
    assert np.count_nonzero(np.diff(rows) > 10) == 3, "four frames, one below the other"


def test_the_pictures_shown_are_those_found(source, tmp_path):
    # Caption 0 finds picture 6 (purple), 7 (brown), then its own (red).
    picture = draw(source, found_at(2), tmp_path, queries=1, k=3)
    centres = [np.argwhere((picture == color).all(axis=2))[:, 1].mean() for color in
               ((128, 0, 128), (165, 42, 42), (255, 0, 0))]  # fmt: skip
    assert centres == sorted(centres)


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_pictures_than_asked_for(tmp_path, count):
    source = open_source(write_pictures(tmp_path / "data", count=count))
    assert len(green(draw(source, found_at(0, count), tmp_path, queries=8, k=5))) > 100


def test_captions_are_text_and_no_formula(tmp_path):
    folder = write_pictures(tmp_path / "data", count=1)
    (folder / "metadata.jsonl").write_text('{"file_name": "0.png", "caption": "$5 \\\\frac{ and $6 {_^"}')
    draw(open_source(folder), found_at(0, 1), tmp_path)


def test_the_caption_of_each_picture(tmp_path, monkeypatch):
    source = open_source(write_pictures(tmp_path / "data", count=4, captions_each=2))
    embeddings = found_at(0, 4)
    # Row 1 was left out: pictures 0, 2, 3 with two captions each.
    embeddings.image_rows, embeddings.image_embeds = torch.tensor([0, 2, 3]), torch.eye(3)
    embeddings.text_to_image = torch.arange(3).repeat_interleave(2)
    embeddings.text_embeds = torch.eye(3).repeat_interleave(2, dim=0)
    figures = capture(monkeypatch)
    draw_retrieval_grid(source, embeddings, tmp_path / "a.png", Queries.spread(embeddings, 6), k=1)
    texts = [axes.texts[0].get_text() for axes in figures[0].axes[::2]]
    assert texts == ["red a", "very red a", "blue c", "very blue c", "yellow d", "very yellow d"]
    drawn = [tuple(axes.images[0].get_array()[9, 9]) for axes in figures[0].axes[1::2]]
    assert drawn == [(255, 0, 0)] * 2 + [(0, 0, 255)] * 2 + [(255, 255, 0)] * 2
    assert all(axes.spines["left"].get_edgecolor() == to_rgba(pictures.RIGHT) for axes in figures[0].axes[1::2])


def shown(figure) -> list[list[str]]:
    """The texts of each row's first column."""
    return [[text.get_text() for text in axes.texts] for axes in figure.axes if axes.texts and not axes.images]


def test_the_captions_asked_for_in_their_order_with_their_ranks(source, tmp_path, monkeypatch):
    figures = capture(monkeypatch)
    ranks = tensor([0, 1, 2, 36, 4, 5, 1234, 7])
    queries = Queries(tensor([6, 0, 3]), ranks, "The worst")
    draw_retrieval_grid(source, found_at(1), tmp_path / "a.png", queries, k=2)
    assert shown(figures[0]) == [
        ["purple g", "rank 1,235 of 8"],
        ["red a", "rank 1"],
        ["yellow d", "rank 37 of 8"],
    ]
    drawn = [tuple(axes.images[0].get_array()[9, 9]) for axes in figures[0].axes if axes.images]
    # One place after another: brown before purple's own, …
    assert drawn == [(255, 165, 0), (128, 0, 128), (165, 42, 42), (255, 0, 0), (0, 0, 255), (255, 255, 0)]
    assert figures[0].get_suptitle() == "The worst: the 2 pictures most alike, of 8"


def test_by_default_captions_are_spread_evenly_and_have_no_rank(source, tmp_path, monkeypatch):
    figures = capture(monkeypatch)
    draw_retrieval_grid(source, found_at(0), tmp_path / "a.png", Queries.spread(found_at(0), 3), k=1)
    assert shown(figures[0]) == [["red a"], ["yellow d"], ["brown h"]]
    assert figures[0].get_suptitle() == "The 1 pictures most alike, of 8"


def test_no_captions_are_no_picture(source, tmp_path):
    draw_retrieval_grid(source, found_at(0), tmp_path / "a.png", Queries(tensor([], dtype=torch.long)))
    assert not (tmp_path / "a.png").exists()


def test_chinese_captions_stay_in_their_column(tmp_path, monkeypatch):
    folder = write_pictures(tmp_path / "data", count=1)
    (folder / "metadata.jsonl").write_text('{"file_name": "0.png", "caption": "%s"}' % ("猫" * 40))
    figures = capture(monkeypatch)
    draw_retrieval_grid(open_source(folder), found_at(0, 1), tmp_path / "a.png")
    assert [len(line) for line in shown(figures[0])[0][0].split("\n")] == [15, 15, 10]


def test_the_best_and_the_worst():
    ranks = tensor([3, 0, 0, 9, 0, 9, 1])
    margins = tensor([-0.2, 0.1, 0.5, -0.3, 0.2, -0.4, -0.1])
    best, worst = best_and_worst(ranks, margins, 2)
    assert best.tolist() == [2, 4]
    assert worst.tolist() == [5, 3]
    best, worst = best_and_worst(ranks, margins, 5)
    assert best.tolist() == [2, 4, 1], "three are found first"
    assert worst.tolist() == [5, 3, 0, 6, 1]


def test_nothing_found_has_no_best():
    best, worst = best_and_worst(tensor([2, 1]), tensor([-0.1, -0.2]), 3)
    assert best.tolist() == []
    assert worst.tolist() == [0, 1]


def capture(monkeypatch) -> list:
    figures = []
    monkeypatch.setattr(pictures, "save_figure", lambda figure, file: figures.append(figure))
    return figures


HISTORY = [
    {"loss": 3.0, "epoch": 0.5, "step": 1},
    {"loss": 2.0, "epoch": 1.0, "step": 2},
    {"eval_loss": 2.5, "eval_image_retrieval_recall@10": 0.5, "eval_image_retrieval_recall@5": 0.25, "epoch": 1.0},
    {"train_loss": 9.0, "train_runtime": 1.0, "epoch": 1.0},
]


def test_the_curve_shows_what_was_logged(monkeypatch, tmp_path):
    figures = capture(monkeypatch)
    draw_training_curve(HISTORY, tmp_path / "a.png", "InfoNCE")
    left, right = figures[0].axes
    assert left.get_title() == "InfoNCE"
    assert [line.get_xydata().tolist() for line in left.lines] == [[[0.5, 3.0], [1.0, 2.0]], [[1.0, 2.5]]]
    assert [line.get_xydata().tolist() for line in right.lines] == [[[1.0, 25.0]], [[1.0, 50.0]]]
    assert [text.get_text() for text in right.get_legend().texts] == ["recall@5", "recall@10"]


@pytest.mark.parametrize("history", [HISTORY, HISTORY[:2], []])
def test_the_curve_is_written(history, tmp_path):
    draw_training_curve(history, tmp_path / "pictures" / "curve.png", "InfoNCE")
    assert Image.open(tmp_path / "pictures" / "curve.png").size == (1080, 408)  # 9 × 3.4 inches of 120 dots
