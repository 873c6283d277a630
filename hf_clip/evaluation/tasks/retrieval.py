"""Retrieval both ways, by the protocol that papers quote (CLIP_benchmark's names)."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ...core.errors import InputError
from ...data.evaluation_set import EvaluationSet
from ...embeddings.encode import Embeddings
from .. import charts
from ..intervals import Share
from ..metrics import (
    average_precision_at_k,
    chance_recall_at_k,
    median_rank,
    pair_cosines,
    recall_at_k,
    retrieval_ranks,
)
from ..outcome import Outcome
from ..pictures import Queries, best_and_worst, draw_retrieval_grid
from ..records import Figure, Figures
from ..words import percent
from .task import Drawn, Given, Protocol, Task

KS = (1, 5, 10)
WAYS = {"image": "text → image", "text": "image → text"}  # by what is found


def evaluate_retrieval(
    embeddings: Embeddings, ks: Sequence[int] | None = None, *, device: torch.device | str | None = None
) -> Outcome:
    """Recall at each k, beside what chance would give and what the data allow.

    `image_retrieval_recall@k`: over the captions, the share whose own picture is among the k pictures most alike.
    `text_retrieval_recall@k`: over the pictures, the share of which one caption or more is among the k captions most
    alike. `…_chance@k`: the same for a random order. `…_ceiling@k`: the same for the best order there can be, where
    captions of different pictures are the same to the text tower. `…_map@k`: the mean of `average_precision_at_k`.
    `median_rank`s count from 1.

    Args:
        ks: default: of 1, 5 and 10, those that are no more than the candidates.
        device: where similarities are computed; default: where the embeddings are.

    Raises:
        InputError: a picture without a caption, a caption without a picture; a k above the number of candidates.
        ValueError: for embeddings that are not finite.
    """
    images, captions = len(embeddings.image_embeds), len(embeddings.text_embeds)
    _check_captioned(embeddings)
    asked, ks = ks, [k for k in (KS if ks is None else ks) if k <= min(images, captions)]
    if asked is not None and len(ks) < len(asked):
        raise InputError(
            f"recall@{max(asked)} of {images} pictures and {captions} captions is always 1: "
            f"give k up to {min(images, captions)}"
        )
    pairs = torch.stack([torch.arange(captions), embeddings.text_to_image], dim=1)
    text_embeds = _same_of_same(embeddings.text_embeds, embeddings.caption_ids)
    image_embeds = _same_of_same(embeddings.image_embeds, embeddings.image_ids)
    positives = {"image": torch.ones(captions), "text": torch.bincount(embeddings.text_to_image)}
    of_images, of_texts = retrieval_ranks(text_embeds, image_embeds, pairs, best=max(ks, default=1), device=device)
    ranks = {"image": of_images, "text": of_texts}
    outcome = Outcome(
        metrics={"images": images, "captions": captions, "skipped_images": len(embeddings.skipped)},
        protocol={"ties": "count against the model", "positives": "the pairs of the data; the best one counts"},
        details={"ranks": {way: rank[:, 0] for way, rank in ranks.items()}, "positives": positives},
    )
    outcome.details["cosines"] = (
        pair_cosines(embeddings.text_embeds, embeddings.image_embeds, pairs),
        _wrong_cosines(embeddings),
    )
    outcome.details["ceilings"] = ceilings = _ceilings(embeddings)
    captions_of = positives["text"].double()
    for way, candidates in (("image", images), ("text", captions)):
        first = ranks[way][:, 0]
        for k in ks:
            precision = average_precision_at_k(ranks[way], positives[way], k)
            outcome.metrics |= {
                f"{way}_retrieval_recall@{k}": recall_at_k(first, k),
                f"{way}_retrieval_chance@{k}": chance_recall_at_k(positives[way], candidates, k),
                f"{way}_retrieval_ceiling@{k}": recall_at_k(ceilings[way], k),
                f"{way}_retrieval_map@{k}": precision.mean().item(),
            }
            for name, scores in (("recall", (first < k).double()), ("map", precision)):
                outcome.shares[f"{way}_retrieval_{name}@{k}"] = _by_picture(way, scores, embeddings, captions_of)
        outcome.metrics[f"{way}_retrieval_median_rank"] = median_rank(first)
    _say_what_is_left_out(outcome, asked, images, captions, embeddings)
    return outcome


def _wrong_cosines(embeddings: Embeddings, count: int = 100_000) -> Tensor:
    """Of captions with pictures that are not theirs, drawn at random: the same for the same data."""
    generator = torch.Generator().manual_seed(0)
    images, captions = len(embeddings.image_embeds), len(embeddings.text_embeds)
    drawn = torch.stack([torch.randint(n, (count,), generator=generator) for n in (captions, images)], dim=1)
    wrong = drawn[embeddings.text_to_image[drawn[:, 0]] != drawn[:, 1]]
    return pair_cosines(embeddings.text_embeds, embeddings.image_embeds, wrong)


def _check_captioned(embeddings: Embeddings) -> None:
    images = len(embeddings.image_embeds)
    unknown = (embeddings.text_to_image < 0) | (embeddings.text_to_image >= images)
    if unknown.any():
        caption = int(unknown.nonzero()[0])
        raise InputError(
            f"caption {caption} belongs to picture {int(embeddings.text_to_image[caption])}, and there are {images}: "
            "leave out captions without a picture"
        )
    uncaptioned = torch.bincount(embeddings.text_to_image, minlength=images) == 0
    if uncaptioned.any():
        first, count = int(embeddings.image_rows[uncaptioned][0]), int(uncaptioned.sum())
        raise InputError(
            f"{count} pictures have no caption, the first in row {first + 1}: retrieval needs one for each"
        )


def _same_of_same(embeds: Tensor, ids: Tensor) -> Tensor:
    """With one embedding for all captions, or pictures, that are the same: those of another batch are rounded
    otherwise, and would win or lose where they tie."""
    _, kind, count = ids.unique(return_inverse=True, return_counts=True)
    repeated = (count[kind] > 1).nonzero()[:, 0]
    if not len(repeated):
        return embeds
    first = torch.full((len(count),), len(ids)).scatter_reduce(0, kind, torch.arange(len(ids)), "amin")
    same = embeds.clone()
    same[repeated] = embeds[first[kind[repeated]]]
    return same


def _ceilings(embeddings: Embeddings) -> dict[str, Tensor]:
    """The lowest ranks there can be: captions that are the same score the same, whatever the model.

    image: (captions,), the place of each caption's picture among all pictures with that caption.
    text: (images,), how many captions of other pictures are the same as one of a picture's own, at the least.
    """
    images = len(embeddings.image_embeds)
    _, caption, count = embeddings.caption_ids.unique(return_inverse=True, return_counts=True)
    pairs, own, own_count = (caption * images + embeddings.text_to_image).unique(
        return_inverse=True, return_counts=True
    )
    order = own_count.argsort(descending=True)  # a picture that has the caption twice is better put first
    order = order[(pairs // images)[order].argsort(stable=True)]
    of_caption = torch.bincount(pairs // images)
    places = torch.empty_like(order)
    places[order] = torch.arange(len(order)) - (of_caption.cumsum(0) - of_caption).repeat_interleave(of_caption)
    least = torch.full((images,), len(caption))
    others = count[caption] - own_count[own]  # (captions,)
    return {"image": places[own], "text": least.scatter_reduce(0, embeddings.text_to_image, others, "amin")}


def _by_picture(way: str, scores: Tensor, embeddings: Embeddings, captions_of: Tensor) -> Share:
    """(sums, counts), each (images,)."""
    if way == "text":
        return scores.numpy(), torch.ones_like(scores).numpy()
    sums = torch.zeros(len(captions_of), dtype=torch.double).index_add(0, embeddings.text_to_image, scores)
    return sums.numpy(), captions_of.numpy()


def _say_what_is_left_out(
    outcome: Outcome, asked: Sequence[int] | None, images: int, captions: int, embeddings: Embeddings
) -> None:
    if asked is None and min(images, captions) < max(KS):
        outcome.notes.append(f"recall above k = {min(images, captions)} is left out: there is no more to find")
    shared = captions - len(embeddings.caption_ids.unique())
    if shared:
        outcome.notes.append(
            f"{shared} captions repeat another, as the text tower reads them: recall cannot reach 1, but the ceiling "
            "beside it"
        )
    if cut := embeddings.cut_captions:
        outcome.notes.append(f"{cut} of {captions} captions are longer than the text tower reads, and were cut")
    repeated = images - len(embeddings.image_ids.unique())
    if repeated:
        outcome.notes.append(f"{repeated} pictures repeat another: each ties with its like, which counts against it")


class Retrieval(Task):
    name = "retrieval"
    title = "Retrieval"
    phrase = "retrieval"
    hub_type = ("image-text-retrieval", "Image–text retrieval")
    pattern = "(image|text)_retrieval_"
    needs_captions = by_language = True
    choices = tuple(f"{way}_retrieval_{what}" for way in WAYS for what in ("recall@K", "map@K", "median_rank"))
    why_ceiling = "as captions stand on several pictures"

    def suits(self, captioned: bool, classes: bool) -> bool:
        return captioned

    def with_best(self, protocol: Protocol, metric: str) -> Protocol:
        """With the metric's k among those measured; of none asked for, the usual ones below it, beyond which there may
        be no candidates."""
        asked, found = protocol.ks, re.search(r"@(\d+)$", metric)
        k = int(found[1]) if found else 0
        if not k or k in (asked or KS):
            return protocol
        return replace(protocol, ks=sorted({*(asked or (usual for usual in KS if usual < k)), k}))

    def check(self, rows: EvaluationSet, called: str, protocol: Protocol, best: str = "") -> None:
        super().check(rows, called, protocol, best)
        of_best = re.search(r"_retrieval_\w+@(\d+)$", best)
        k = max([*(protocol.ks or ()), int(of_best[1]) if of_best else 0])
        if k > len(rows):
            raise InputError(
                f"recall@{k} of the {len(rows)} pictures of {called} is always 1: set eval_k and "
                "metric_for_best_model to a smaller k"
            )

    def measure(self, given: Given) -> Outcome:
        return evaluate_retrieval(given.embeddings, given.protocol.ks, device=given.model.device)

    def draw(self, outcomes: dict[str, Outcome], folder: Path, suffix: str) -> list[str]:
        first = next(iter(outcomes.values())).details
        charts.draw_recall_against_k(
            {model: outcome.details["ranks"] for model, outcome in outcomes.items()},
            first["positives"],
            {"image": len(first["ranks"]["text"]), "text": len(first["ranks"]["image"])},
            folder / f"recall_{suffix}.png",
            {way: partial(recall_at_k, first["ceilings"][way]) for way in WAYS},
        )
        cosines = {model: outcome.details["cosines"] for model, outcome in outcomes.items()}
        charts.draw_similarities(cosines, folder / f"similarities_{suffix}.png")
        return [f"recall_{suffix}.png", f"similarities_{suffix}.png"]

    def draw_examples(self, drawn: Drawn, folder: Path, suffix: str) -> list[str]:
        """Two grids of captions with the pictures found: of those that did best, and of those that did worst."""
        ranks, (cosines, _) = drawn.outcome.details["ranks"]["image"], drawn.outcome.details["cosines"]
        best, worst = best_and_worst(ranks, cosines, 8)
        names = []
        for name, captions in {"best": best, "worst": worst}.items():
            if len(captions):
                names.append(f"{name}_retrievals{suffix}.png")
                shown = Queries(captions, ranks, f"The captions that did {name}")
                draw_retrieval_grid(drawn.source, drawn.embeddings, folder / names[-1], shown)
        return names

    def check_size(self, protocol: Protocol, images: int) -> None:
        if (k := max(protocol.ks or (0,))) > images:
            raise InputError(f"recall@{k} of {images} pictures is always 1: give k up to {images}")

    def chance(self, metric: str) -> str:
        return metric.replace("recall@", "chance@") if "recall@" in metric else super().chance(metric)

    def ceiling(self, metric: str) -> str:
        return metric.replace("recall@", "ceiling@") if "recall@" in metric else super().ceiling(metric)

    def label(self, metric: str) -> str:
        """`image_retrieval_recall@5` is "text → image, recall@5"."""
        way, _, rest = metric.partition("_retrieval_")
        return f"{WAYS[way]}, {super().label(rest)}" if way in WAYS else super().label(metric)

    def short_label(self, metric: str) -> str:
        return self.label(metric).replace(",", "")

    def shown(self, metric: str, value: float) -> str:
        return f"{value:g}" if metric.endswith("_rank") else super().shown(metric, value)

    def in_card(self, metric: str) -> bool:
        return "_map@" not in metric

    def hub_metric(self, metric: str) -> str:
        return metric.partition("_retrieval_")[2].partition("@")[0]

    def headline(self, figures: Figures) -> list[Figure]:
        """Recall both ways at the largest k."""
        recalls = [figure for name, figure in figures.items() if "_recall@" in name and figure.k]
        return [figure for figure in recalls if figure.k == max(each.k or 0 for each in recalls)]

    def limits(self, figures: Figures, data: str) -> Iterator[str]:
        by_way = {way: figure for figure in self.headline(figures) for way in WAYS if figure.metric.startswith(way)}
        to_image, to_text = by_way.get("image"), by_way.get("text")
        if to_image is None or to_text is None or to_image.images is None or to_image.captions is None:
            return
        k, images, captions = to_image.k, to_image.images, to_image.captions
        yield (
            f"Retrieval on {data}: given a caption, its picture is among the first {k} of {images:,} in "
            f"{percent(to_image.value)} of the cases, and in {percent(1 - to_image.value)} it is not; given a "
            f"picture, one of its captions is among the first {k} of {captions:,} in {percent(to_text.value)}."
        )
        if _are_apart(to_image, to_text):
            better, worse = ("pictures", "texts") if to_image.value > to_text.value else ("texts", "pictures")
            yield (
                f"It finds {better} clearly better than {worse}: recall@{k} is {to_image.bracketed} for pictures and "
                f"{to_text.bracketed} for texts."
            )
        rank_of_image, rank_of_text = (figures.get(f"{way}_retrieval_median_rank") for way in ("image", "text"))
        if rank_of_image and rank_of_text:
            yield (
                f"The median rank of the right picture is {rank_of_image.value:g} of {images:,}, that of the right "
                f"caption {rank_of_text.value:g} of {captions:,}."
            )


def _are_apart(one: Figure, other: Figure) -> bool:
    """Whether their intervals have nothing in common."""
    if one.interval is None or other.interval is None:
        return False
    return one.interval[0] > other.interval[1] or other.interval[0] > one.interval[1]
