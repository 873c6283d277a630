"""Pictures of a run: how it learned, and what it finds. Needs matplotlib."""

import textwrap
from pathlib import Path
from typing import Any

import torch

from ..data.images import read_image
from ..data.sources import Source
from ..embedding import Embeddings
from .retrieval import top_images

RIGHT, WRONG, INK = "#1a7f37", "#b42318", "#333333"


def draw_training_curve(log_history: list[dict[str, Any]], file: Path) -> None:
    """Loss, in-batch accuracy and retrieval recall against the epoch.

    Args:
        log_history: of the Trainer's state.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    steps = [entry for entry in log_history if "loss" in entry]
    evaluations = [entry for entry in log_history if "eval_loss" in entry]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    left.plot([e["epoch"] for e in steps], [e["loss"] for e in steps], color="#0969da", label="training")
    left.plot(
        [e["epoch"] for e in evaluations], [e["eval_loss"] for e in evaluations], "o-", color="#bc4c00", label="unseen"
    )
    left.set(xlabel="epoch", ylabel="loss (nats)", ylim=(0, None), title="InfoNCE")
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
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False)
    _save(figure, file)


def draw_retrieval_grid(
    source: Source, embeddings: Embeddings, file: Path, *, queries: int = 8, k: int = 5, credit: str = ""
) -> None:
    """A row a query: the caption, then the k pictures most alike, the right one framed in green with a tick.

    Args:
        queries: how many captions, spread evenly over the source.
        credit: printed below; where the pictures' licence asks for attribution.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    captions = torch.linspace(0, len(embeddings.text_embeds) - 1, min(queries, len(embeddings.text_embeds))).long()
    captions = captions.unique()
    found = top_images(embeddings, captions, k)  # (captions, k)
    figure, grid = pyplot.subplots(
        len(captions), k + 1, figsize=(1.1 * k + 3, 1.12 * len(captions) + 0.5), width_ratios=[2.4] + [1] * k
    )
    grid = grid.reshape(len(captions), k + 1)
    for axes_row, caption, images in zip(grid, captions.tolist(), found.tolist(), strict=True):
        right_image = int(embeddings.text_to_image[caption])
        axes_row[0].axis("off")
        text = textwrap.fill(_text_of(source, embeddings, caption), 30)  # matplotlib's `wrap` reads "$" as a formula
        axes_row[0].text(1, 0.5, text, ha="right", va="center", size=10, parse_math=False)
        for axes, image in zip(axes_row[1:], images, strict=False):
            _draw_result(axes, _picture_of(source, embeddings, image), image == right_image)
        for axes in axes_row[1 + len(images) :]:
            axes.axis("off")
    figure.suptitle(f"The {min(k, found.shape[1])} pictures most alike, of {len(embeddings.image_embeds)}", size=11)
    figure.text(0.99, 0.005, credit, ha="right", va="bottom", size=7, color=INK)
    figure.subplots_adjust(left=0.01, right=0.99, top=1 - 0.4 / figure.get_figheight(), bottom=0.03, hspace=0.12)
    _save(figure, file)


def _draw_result(axes: Any, picture: Any, right: bool) -> None:
    axes.imshow(picture)
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color=RIGHT if right else "#dddddd", linewidth=3 if right else 0.8)
    if right:
        axes.text(0.96, 0.94, "✓", transform=axes.transAxes, ha="right", va="top", color=RIGHT, weight="bold", size=13)


def _text_of(source: Source, embeddings: Embeddings, caption: int) -> str:
    image = int(embeddings.text_to_image[caption])
    first = int(torch.searchsorted(embeddings.text_to_image, image))
    text = source.captions(int(embeddings.image_rows[image]))[caption - first]
    return text if len(text) <= 60 else text[:57] + "…"


def _picture_of(source: Source, embeddings: Embeddings, image: int) -> Any:
    row = source.rows[int(embeddings.image_rows[image])]
    return read_image(row[source.image_column], source.folder)[0]


def _k_of(metric: str) -> int:
    return int(metric.rpartition("@")[2])


def _save(figure: Any, file: Path) -> None:
    from matplotlib import pyplot

    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120)
    pyplot.close(figure)
