"""Pictures of a run: how it learned, and what it finds. Needs matplotlib."""

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from unicodedata import east_asian_width

import torch
from PIL import Image
from torch import Tensor

from ..data.images import read_image
from ..data.sources import Source
from ..embeddings.encode import Embeddings
from .charts import FAINT, FRAME, INK, RIGHT, dress, house_style, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass
class Queries:
    """Captions to show, in this order.

    Args:
        captions: their positions.
        ranks: (all captions,), how many wrong pictures come before the right one; printed with each caption.
        title: printed above, before how many pictures there are.
    """

    captions: Tensor
    ranks: Tensor | None = None
    title: str = ""

    @classmethod
    def spread(cls, embeddings: Embeddings, count: int = 8) -> "Queries":
        """So many, spread evenly over the captions."""
        captions = len(embeddings.text_embeds)
        return cls(torch.linspace(0, captions - 1, min(count, captions)).long().unique())


@house_style()
def draw_training_curve(log_history: list[dict[str, float]], file: Path, loss: str) -> None:
    """Loss, in-batch accuracy and retrieval recall against the epoch.

    Args:
        log_history: of the Trainer's state.
        loss: what was trained on, in a few words.
    """
    steps = [entry for entry in log_history if "loss" in entry]
    evaluations = [entry for entry in log_history if "eval_loss" in entry]
    figure = new_figure(9, 3.4)
    left, right = figure.subplots(1, 2)
    left.plot([e["epoch"] for e in steps], [e["loss"] for e in steps], color="#0969da", label="training")
    left.plot(
        [e["epoch"] for e in evaluations], [e["eval_loss"] for e in evaluations], "o-", color="#bc4c00", label="unseen"
    )
    left.set(xlabel="epoch", ylabel="loss (nats)", ylim=(0, None), title=loss)
    recalls = sorted({name for e in evaluations for name in e if "image_retrieval_recall@" in name}, key=_k_of)
    for name, shade in zip(recalls, ("#0a3069", "#0969da", "#80ccff", "#b6e3ff", "#ddf4ff"), strict=False):
        right.plot(
            [e["epoch"] for e in evaluations],
            [100 * e[name] for e in evaluations],
            "o-",
            color=shade,
            label=f"recall@{_k_of(name)}",
        )
    right.set(xlabel="epoch", ylabel="% of captions", ylim=(0, None), title="text → image, unseen pictures")
    dress(left, right)
    for axes in (left, right):
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False)
    save_figure(figure, file)


@house_style()
def draw_retrieval_grid(
    source: Source,
    embeddings: Embeddings,
    file: Path,
    queries: Queries | None = None,
    *,
    k: int = 5,
    credit: str = "",
) -> None:
    """A row a query: the caption, then the k pictures most alike, the right one framed in green with a tick.

    With ranks, a last column shows the right picture where it is not among them.

    Args:
        queries: the captions to show; default: eight of them; with none, there is no file.
        credit: printed below; where the pictures' licence asks for attribution.
    """
    queries = queries or Queries.spread(embeddings)
    captions, ranks = queries.captions, queries.ranks
    if not len(captions):  # of a model that finds nothing there are no best ones
        return
    found = top_images(embeddings, captions, k)  # (captions, k)
    columns = k + (ranks is not None)
    figure = new_figure(1.1 * columns + 3, 1.12 * len(captions) + 0.5, layout=None)
    grid = figure.subplots(len(captions), columns + 1, squeeze=False, width_ratios=[2.4] + [1] * columns)
    for axes_row, caption, images in zip(grid, captions.tolist(), found.tolist(), strict=True):
        right_image = int(embeddings.text_to_image[caption])
        axes_row[0].axis("off")
        axes_row[0].text(1, 0.5, _wrapped(_text_of(source, embeddings, caption)), ha="right", va="center", size=10)
        if ranks is not None:
            rank = _rank_in_words(int(ranks[caption]), len(embeddings.image_embeds))
            axes_row[0].text(1, 0.02, rank, ha="right", va="bottom", size=8, color=FAINT)
        for axes, image in zip(axes_row[1:], images, strict=False):
            _draw_result(axes, _picture_of(source, embeddings, image), image == right_image)
        for axes in axes_row[1 + len(images) :]:
            axes.axis("off")
        if ranks is not None and right_image not in images:
            _draw_result(axes_row[-1], _picture_of(source, embeddings, right_image), False)
            axes_row[-1].axis("on")
            axes_row[-1].set_xlabel("not found", size=8, color=FAINT, labelpad=1)
            axes_row[-1].spines[:].set(color=RIGHT, linestyle="--", linewidth=1.2)
    most_alike = f"the {found.shape[1]} pictures most alike, of {len(embeddings.image_embeds)}"
    figure.suptitle(f"{queries.title}: {most_alike}" if queries.title else most_alike.capitalize(), size=11)
    figure.text(0.99, 0.005, credit, ha="right", va="bottom", size=7, color=INK)
    figure.subplots_adjust(left=0.01, right=0.99, top=1 - 0.4 / figure.get_figheight(), bottom=0.03, hspace=0.12)
    save_figure(figure, file)


def top_images(embeddings: Embeddings, captions: Tensor, k: int) -> Tensor:
    """(captions, k) positions of the pictures most alike each of the captions at the positions given."""
    scores = embeddings.text_embeds[captions] @ embeddings.image_embeds.T  # (captions, images)
    return scores.topk(min(k, scores.shape[1]), dim=1).indices


def best_and_worst(ranks: Tensor, margins: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Positions of up to `count` captions that find their picture first, by the widest margin, the widest first; and
    of those whose picture comes last, at the same rank those of the smallest margin.

    Args:
        ranks: (captions,), how many wrong pictures come before the right one.
        margins: (captions,), the score of the right picture less that of the best wrong one.
    """
    narrow_first = margins.argsort(stable=True)
    worst = narrow_first[ranks[narrow_first].argsort(descending=True, stable=True)]
    wide_first = margins.argsort(descending=True, stable=True)
    return wide_first[ranks[wide_first] == 0][:count], worst[:count]


def _draw_result(axes: "Axes", picture: Image.Image, right: bool) -> None:
    axes.imshow(picture)
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color=RIGHT if right else FRAME, linewidth=3 if right else 0.8)
    if right:
        axes.text(0.96, 0.94, "✓", transform=axes.transAxes, ha="right", va="top", color=RIGHT, weight="bold", size=13)


def _text_of(source: Source, embeddings: Embeddings, caption: int) -> str:
    image = int(embeddings.text_to_image[caption])
    first = int(torch.searchsorted(embeddings.text_to_image, image))
    text = source.captions(int(embeddings.image_rows[image]))[caption - first]
    return text if len(text) <= 60 else text[:57] + "…"


def _picture_of(source: Source, embeddings: Embeddings, image: int) -> Image.Image:
    row = source.rows[int(embeddings.image_rows[image])]
    return read_image(row[source.image_column], source.folder)[0]


def _wrapped(text: str) -> str:
    """In lines as wide as the first column; Chinese, Japanese and Korean characters are twice as wide as others."""
    wide = sum(east_asian_width(character) in "WF" for character in text)
    return textwrap.fill(text, 15 if 2 * wide > len(text) else 30)


def _rank_in_words(rank: int, images: int) -> str:
    return f"rank {rank + 1:,} of {images:,}" if rank else "rank 1"


def _k_of(metric: str) -> int:
    return int(metric.rpartition("@")[2])
