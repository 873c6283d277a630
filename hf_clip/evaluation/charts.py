"""Charts of an evaluation: its numbers, drawn. Needs matplotlib."""

import itertools
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import torch
from torch import Tensor

from ..core.atomic import replace_file
from .metrics import recall_at_k

INK, FAINT, FRAME = "#333333", "#8c959f", "#dddddd"
RIGHT, WRONG = "#1a7f37", "#b42318"
# A colour a model, in the order given; from the eighth on they come round again.
MODELS = ("#0969da", "#bc4c00", "#1a7f37", "#8250df", "#bf3989", "#0a3069", "#9a6700")
# The first has Latin, Greek, Cyrillic, Hebrew and Arabic; one of the others may have what it lacks.
if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_T = TypeVar("_T")

_FONTS = (
    "DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei", "PingFang SC", "Microsoft YaHei", "SimHei", "Arial Unicode MS",
)  # fmt: skip


# ---- what all pictures share --------------------------------------------------------------------------------------


@contextmanager
def house_style() -> Iterator[None]:
    """The fonts of all scripts that are installed; "$" is a sign, no formula. Around a whole function, or as `@`."""
    import matplotlib
    from matplotlib import font_manager

    installed = {font.name for font in font_manager.fontManager.ttflist}
    fonts = [name for name in _FONTS if name in installed]
    with matplotlib.rc_context({"font.family": fonts, "text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        yield


def new_figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> "Figure":
    """Inches. Unknown to pyplot: no window, nothing to close, and the caller's backend stays as it is."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout=layout)


def dress(*every: "Axes") -> None:
    """Two spines and a faint grid, below the data."""
    for axes in every:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        axes.set_axisbelow(True)


def save_figure(figure: "Figure", file: Path) -> None:
    """In the format of the suffix, whole or not at all; the folder is made."""
    file.parent.mkdir(parents=True, exist_ok=True)
    # The file written aside has another suffix.
    replace_file(file, lambda aside: figure.savefig(aside, dpi=120, format=file.suffix.removeprefix(".")))


def _with_colours(models: dict[str, _T]) -> Iterator[tuple[str, str, _T]]:
    for colour, (model, data) in zip(itertools.cycle(MODELS), models.items(), strict=False):
        yield colour, model, data


def _legend_below(figure: "Figure") -> None:
    """One of all panels, outside, where no line is; as many columns as fit."""
    handles = {
        name: line for axes in figure.axes for line, name in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    width = 0.085 * max(map(len, handles), default=0) + 0.6
    columns = min(max(int(figure.get_figwidth() / width), 1), max(len(handles), 1))
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=columns, frameon=False)


# ---- retrieval ----------------------------------------------------------------------------------------------------


@house_style()
def draw_recall_against_k(
    ranks: dict[str, dict[str, Tensor]],
    positives: dict[str, Tensor],
    candidates: dict[str, int],
    file: Path,
    ceilings: dict[str, Callable[[int], float]] | None = None,
) -> None:
    """Recall at every k, text → image and image → text, a line a model, above what chance gives.

    Args:
        ranks: by model, by what is found, "image" or "text": (queries,), how many negatives come before the best
            positive.
        positives: by what is found: (queries,), how many positives each query has.
        candidates: by what is found: how many there are.
        ceilings: by what is found: the recall at k that no model exceeds.
    """
    figure = new_figure(9, 3.9)
    panels = (("image", "text → image", "captions", "pictures"), ("text", "image → text", "pictures", "captions"))
    for axes, (found, title, queries, what) in zip(figure.subplots(1, 2), panels, strict=True):
        ks = _log_spaced(candidates[found])
        mark = "o" if len(ks) < 3 else ""  # a line through one point is not seen
        for colour, model, of_model in _with_colours(ranks):
            recalls = [100 * recall_at_k(of_model[found], k) for k in ks]
            axes.plot(ks, recalls, "-" + mark, color=colour, label=model, clip_on=False)
        chance = 100 * _chance(positives[found], candidates[found], ks)
        axes.plot(ks, chance.tolist(), "--" + mark, color=FAINT, label="chance", clip_on=False)
        if ceilings and found in ceilings:
            ceiling = [100 * ceilings[found](k) for k in ks]
            axes.plot(ks, ceiling, ":" + mark, color=INK, label="ceiling", clip_on=False)
        axes.set(title=title, xlabel=f"k, of {candidates[found]:,} {what}", ylabel=f"% of {queries}", ylim=(0, 100))
        _count_on_a_log_axis(axes, candidates[found])
        dress(axes)
    _legend_below(figure)
    save_figure(figure, file)


def _log_spaced(last: int, count: int = 100) -> list[int]:
    """1 … last, each once, all of them where they are few."""
    spaced = torch.logspace(0, math.log10(last), count, dtype=torch.double)
    return spaced.round().long().unique().tolist()


def _chance(positives: Tensor, candidates: int, ks: list[int]) -> Tensor:
    """(ks,): `metrics.chance_recall_at_k` in closed form, because that takes k steps for each k."""
    number, queries = positives.unique(return_counts=True)
    negatives, drawn = (candidates - number.double())[:, None], torch.tensor(ks, dtype=torch.double)
    # log of C(negatives, drawn) / C(candidates, drawn), (numbers, ks); drawn! is in both.
    missed = _log_arrangements(negatives, drawn) - _log_arrangements(torch.tensor(candidates), drawn)
    missed = torch.where(drawn > negatives, 0, missed.exp())
    return 1 - (queries.double() @ missed) / queries.sum()


def _log_arrangements(things: Tensor, drawn: Tensor) -> Tensor:
    """log(things! / (things − drawn)!)."""
    return torch.lgamma(things.double() + 1) - torch.lgamma((things - drawn).clamp(min=0) + 1)


def _count_on_a_log_axis(axes: "Axes", last: int) -> None:
    steps = (1, 2, 5) if last < 1000 else (1,)
    ticks = [step * 10**power for power in range(len(str(last))) for step in steps if step * 10**power <= last]
    axes.set(xscale="log", xlim=(1, max(last, 2)))
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()


@house_style()
def draw_similarities(
    cosines: dict[str, tuple[Tensor, Tensor]], file: Path, title: str = "Cosine of right and of wrong pairs"
) -> None:
    """How far apart right pairs and wrong pairs are: a panel a model, the first four of them.

    Args:
        cosines: by model: (right pairs,), (wrong pairs,).
    """
    shown = dict(itertools.islice(cosines.items(), 4))
    rows, columns = (len(shown) + 1) // 2, min(len(shown), 2)
    figure = new_figure(4.5 * columns + (columns == 1), 2.7 * rows + 0.8)
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, (model, (positive, negative)) in zip(panels, shown.items(), strict=False):
        _draw_densities(axes, positive, negative)
        axes.set_title(f"{_trimmed(model, 50)}\n{_overlap(positive, negative)}", size=10)
    for axes in panels[len(shown) :]:
        axes.axis("off")
    figure.suptitle(title if len(shown) == len(cosines) else f"{title}: the first 4 of {len(cosines)} models", size=11)
    _legend_below(figure)
    save_figure(figure, file)


def _draw_densities(axes: "Axes", positive: Tensor, negative: Tensor) -> None:
    import numpy as np

    fewest = min((len(values) for values in (positive, negative) if len(values)), default=0)
    bins = min(max(math.isqrt(fewest), 10), 60)  # fewer pairs than that in a bin are noise
    edges = np.histogram_bin_edges(torch.cat([positive, negative]).double().numpy(), bins=bins)
    for values, colour, name in ((negative, FAINT, "wrong pairs"), (positive, MODELS[0], "right pairs")):
        if len(values):
            heights, _ = np.histogram(values.double().numpy(), bins=edges, density=True)
            axes.stairs(heights, edges, fill=True, alpha=0.45, color=colour, label=name)
            axes.stairs(heights, edges, color=colour)
    axes.set(xlabel="cosine", ylabel="density", ylim=(0, None))
    dress(axes)


def _overlap(positive: Tensor, negative: Tensor) -> str:
    if not len(positive) or not len(negative):
        return f"no {'wrong' if len(positive) else 'right'} pairs"
    return f"right above wrong in {100 * _area_under_roc(positive, negative):.1f} % of draws (ROC AUC)"


def _area_under_roc(positive: Tensor, negative: Tensor) -> float:
    """The share of (right, wrong) draws where the right one is higher; a tie is half a draw (Hanley & McNeil 1982)."""
    negative = negative.sort().values
    below, up_to = (torch.searchsorted(negative, positive, right=right).double() for right in (False, True))
    return ((below + up_to) / 2 / len(negative)).mean().item()


@house_style()
def draw_by_language(recalls: dict[str, dict[str, float]], chance: dict[str, float], file: Path, k: int) -> None:
    """Recall@k of each language, a bar a model, the language of the highest mean on top.

    Args:
        recalls: by model, by language; a language that a model lacks has no bar.
        chance: by language: the recall@k of a random order.
    """
    languages = _by_mean(recalls)
    figure = new_figure(7.5, len(languages) * (0.13 * len(recalls) + 0.16) + 1.4)
    axes = figure.subplots()
    thickness = 0.8 / len(recalls)
    for place, (colour, model, of_model) in enumerate(_with_colours(recalls)):
        below = (place - (len(recalls) - 1) / 2) * thickness
        values = {row: 100 * of_model[name] for row, name in enumerate(languages) if name in of_model}
        axes.barh([row + below for row in values], list(values.values()), thickness, color=colour, label=model)
        for row, value in values.items():
            beside = max(value, 100 * chance.get(languages[row], 0)), row + below
            axes.annotate(f"{value:.1f}", beside, (3, 0), textcoords="offset points", va="center", size=7, color=INK)
    ticks = {row: 100 * chance[name] for row, name in enumerate(languages) if name in chance}
    axes.vlines(
        list(ticks.values()), [row - 0.45 for row in ticks], [row + 0.45 for row in ticks], "black", label="chance"
    )
    axes.set(xlabel="%", xlim=(0, None), ylim=(len(languages) - 0.4, -0.6), title=f"recall@{k} by language")
    axes.set_yticks(range(len(languages)), languages)
    dress(axes)
    axes.grid(visible=False, axis="y")
    _legend_below(figure)
    save_figure(figure, file)


def _by_mean(recalls: dict[str, dict[str, float]]) -> list[str]:
    """All languages, the highest mean over the models that have them first."""
    means = {}
    for language in dict.fromkeys(itertools.chain(*recalls.values())):
        found = [of_model[language] for of_model in recalls.values() if language in of_model]
        means[language] = sum(found) / len(found)
    return sorted(means, key=lambda language: -means[language])


# ---- classes ------------------------------------------------------------------------------------------------------


@house_style()
def draw_confusion(labels: Tensor, answers: Tensor, class_names: list[str], file: Path, most: int = 30) -> None:
    """What each class was taken for, in % of its pictures; of many classes those in the most confusions.

    Args:
        labels: (pictures,), the right class.
        answers: (pictures,), the class chosen.
        most: how many classes are shown.
    """
    shown = _most_confused(labels, answers, len(class_names), most)
    shares = 100 * _confusion_shares(labels, answers, len(class_names), shown)  # (right, answer)
    names = [_trimmed(class_names[place]) for place in shown.tolist()]
    numbered = len(shown) <= 12
    side = len(shown) * (0.45 if numbered else 0.24)
    figure = new_figure(max(side + 2.6, 5), max(side + 2.0, 3))
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    if numbered:
        _write_cells(axes, shares)
    else:
        figure.colorbar(image, format="{x:.0f} %", shrink=0.6, pad=0.02).outline.set_visible(False)
    size = 9 if numbered else 8
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor", size=size)
    axes.set_yticks(range(len(names)), names, size=size)
    axes.set(xlabel="answer", ylabel="right class")
    axes.spines[:].set_visible(False)
    who = "Right class and answer"
    if len(shown) < len(class_names):
        who = f"{len(shown)} of {len(class_names):,} classes, those in the most confusions"
    axes.set_title(f"{who}\n% of each class's pictures", size=11)
    save_figure(figure, file)


def _most_confused(labels: Tensor, answers: Tensor, classes: int, most: int) -> Tensor:
    """Classes in their own order."""
    wrong = labels != answers
    confusions = torch.bincount(torch.cat([labels[wrong], answers[wrong]]), minlength=classes)
    return confusions.argsort(descending=True, stable=True)[:most].sort().values


def _confusion_shares(labels: Tensor, answers: Tensor, classes: int, shown: Tensor) -> Tensor:
    """(shown, shown): of all pictures of the row's class, those answered with the column's; NaN without any."""
    place = torch.full((classes,), -1)
    place[shown] = torch.arange(len(shown))
    rows, columns = place[labels], place[answers]
    inside = (rows >= 0) & (columns >= 0)
    cells = torch.bincount(rows[inside] * len(shown) + columns[inside], minlength=len(shown) ** 2)
    return cells.view(len(shown), -1).double() / torch.bincount(labels, minlength=classes)[shown, None]


def _write_cells(axes: "Axes", shares: Tensor) -> None:
    for row, column in (shares > 0).nonzero().tolist():
        share = shares[row, column].item()
        axes.text(column, row, f"{share:.0f}", ha="center", va="center", size=9, color="white" if share > 55 else INK)


def _trimmed(name: str, longest: int = 20) -> str:
    return name if len(name) <= longest else name[: longest - 1] + "…"


@house_style()
def draw_reliability(bins: dict[str, Tensor], errors: dict[str, float], file: Path) -> None:
    """How often a model is right when it is so sure (Guo et al. 2017, arXiv:1706.04599, fig. 1), and how often it is.

    Args:
        bins: by model: (bins, 3), of `metrics.calibration`: pictures, mean probability and accuracy.
        errors: by model: the expected calibration error.
    """
    figure = new_figure(6.4, 5 + 0.42 * len(bins))
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    above.plot([0, 100], [0, 100], "--", color=FAINT, label="as often right as sure")
    for colour, model, of_model in _with_colours(bins):
        confidence, accuracy = of_model[of_model[:, 0] > 0, 1:].double().T.tolist()
        label = f"{model}\nexpected calibration error {100 * errors[model]:.1f} %"
        points = [100 * c for c in confidence], [100 * a for a in accuracy]
        above.plot(*points, "o-", color=colour, label=label, clip_on=False)
        edges = torch.linspace(0, 100, len(of_model) + 1).tolist()
        below.stairs(of_model[:, 0].tolist(), edges, color=colour)
        below.stairs(of_model[:, 0].tolist(), edges, color=colour, fill=True, alpha=0.25)
    above.set(ylabel="right, %", xlim=(0, 100), ylim=(0, 103), title="Accuracy against confidence")
    below.set(xlabel="confidence, %", ylabel="pictures", ylim=(0, None))
    below.yaxis.set_major_formatter("{x:,.0f}")
    dress(above, below)
    _legend_below(figure)
    save_figure(figure, file)
