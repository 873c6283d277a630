"""Pictures of an analysis: what word pairs, mislabelled rows and outliers look like. Needs matplotlib."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..evaluation.charts import FAINT, FRAME, INK, MODELS, RIGHT, WRONG, dress, house_style, new_figure, save_figure
from ..evaluation.outcome import Outcome
from .measures import Rows

_COLUMNS = 6


@house_style()
def draw_clip_scores(outcome: Outcome, file: Path) -> None:
    """A histogram of the CLIPScores of all captions, and of captions of other pictures beside."""
    figure = new_figure(6.4, 3.2)
    axes = figure.subplots()
    own, mismatched = outcome.details["clip_score"], outcome.details["mismatched_clip_score"]
    edges = np.linspace(0, max(own.max(), mismatched.max(initial=0), 0.01), 50)
    for scores, name, colour in ((mismatched, "with another's caption", FAINT), (own, "with its own", MODELS[0])):
        if len(scores):
            weights = np.full(len(scores), 100 / len(scores))
            axes.hist(scores, edges.tolist(), weights=weights, color=colour, alpha=0.6, label=name)
    axes.set(xlabel="CLIPScore", ylabel="% of captions", title="How well pictures and captions agree")
    dress(axes)
    axes.legend(frameon=False)
    save_figure(figure, file)


@house_style()
def draw_word_pairs(outcome: Outcome, rows: Rows, pairs: Sequence[tuple[str, str]], file: Path) -> None:
    """A row a pair: on the left the pictures that the first fits best, on the right those that the second does, each
    with the probability of that one."""
    order, scores = outcome.details["word_pair_order"], outcome.details["word_pairs"]
    count = min(_COLUMNS, len(order))
    figure = new_figure(2.2 * count + 0.6, 1.6 * len(pairs))
    grid = figure.subfigures(len(pairs), 2, squeeze=False)
    for number, (pair, halves) in enumerate(zip(pairs, grid, strict=True)):
        for side, images in enumerate((order[:count, number], order[: -count - 1 : -1, number])):
            halves[side].suptitle(_wrapped(pair[side], 60, 1), size=10)
            for axes, image in zip(halves[side].subplots(1, count, squeeze=False)[0], images, strict=True):
                probability = abs(side - scores[image, number])
                _draw_cell(axes, rows.picture(image), [(f"{probability:.2f}", INK)])
    save_figure(figure, file)


@house_style()
def draw_mislabelled(outcome: Outcome, rows: Rows, file: Path, count: int = 18) -> None:
    """The most suspect pairs: the picture, its row, its caption in red, and in green the caption that fits it best."""
    cells = []
    for caption, better in zip(outcome.details["mislabelled"][:count], outcome.details["best_caption"], strict=False):
        image = int(rows.embeddings.text_to_image[caption])
        texts = [(f"row {rows.row(image)}", INK), (rows.caption(caption), WRONG)]
        cells.append((rows.picture(image), [*texts, (f"better: {rows.caption(better)}", RIGHT)]))
    _draw_grid(cells, file, 2.4)


@house_style()
def draw_outliers(outcome: Outcome, rows: Rows, file: Path, count: int = 18) -> None:
    """The pictures farthest from all others, with their rows and mean cosines to the nearest."""
    cosines = outcome.details["neighbour_cosine"]
    cells = [
        (rows.picture(image), [(f"row {rows.row(image)}: {cosines[image]:.2f}", INK)])
        for image in outcome.details["outliers"][:count]
    ]
    _draw_grid(cells, file, 1.75)


def _draw_grid(cells: list[tuple[Any, list[tuple[str, str]]]], file: Path, height: float) -> None:
    lines = -(-len(cells) // _COLUMNS)
    columns = min(_COLUMNS, len(cells))
    figure = new_figure(1.7 * columns, height * lines)
    grid = figure.subplots(lines, columns, squeeze=False).flatten()
    for axes, (picture, texts) in zip(grid, cells, strict=False):
        _draw_cell(axes, picture, texts)
    for axes in grid[len(cells) :]:
        axes.axis("off")
    save_figure(figure, file)


def _draw_cell(axes: Any, picture: Any, texts: list[tuple[str, str]]) -> None:
    """A picture with its texts below, each in its colour."""
    picture.thumbnail((300, 300))
    axes.imshow(picture)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(color=FRAME)
    below = 0
    for text, colour in texts:
        text = _wrapped(text, 26, 2)
        axes.annotate(
            text, (0.5, 0), (0, -3 - below), xycoords="axes fraction", textcoords="offset points", ha="center",
            va="top", size=8, color=colour,
        )  # fmt: skip
        below += 10 * (1 + text.count("\n")) + 1


def _wrapped(text: str, width: int, lines: int) -> str:
    return "\n".join(textwrap.wrap(text, width, max_lines=lines, placeholder="…"))
