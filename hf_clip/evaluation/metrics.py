"""Metrics: pure functions of tensors."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

# An fp32 matrix product rounds the same dot product otherwise at its edges than inside: below this it tells nothing.
ROUNDING = 1e-6
# Cosines, computed in fp64, of embeddings that are rounded to fp32: closer ones tie.
TIE = torch.finfo(torch.float32).eps
# A query's candidates within `ROUNDING` of its positive; of more than that, all are taken for ties.
_LOOKED_AT = 256
# Of CLIPScore: Hessel et al. 2021, arXiv:2104.08718, eq. 1.
_CLIP_SCORE_WEIGHT = 2.5
# More pairs than that are gathered at a time only to be multiplied.
_PAIRS = 8192


def retrieval_ranks(
    text_embeds: Tensor,
    image_embeds: Tensor,
    pairs: Tensor,
    *,
    best: int = 1,
    block: tuple[int, int] = (1024, 4096),
    device: torch.device | str | None = None,
) -> tuple[Tensor, Tensor]:
    """Of every text among the images, and of every image among the texts, the ranks of its best positives.

    Ties count against the model, so a collapsed one is not rewarded. Scores that an fp32 product is too coarse for are
    computed again in fp64, so that what ties does not depend on where the blocks cut.

    Args:
        text_embeds: (texts, dim); image_embeds: (images, dim); unit length.
        pairs: (pairs, 2) of (text, image) positions that belong together, each pair once.
        best: of how many positives of a query, the highest scored first.
        block: texts and images scored at a time; nothing of the size texts × images is made.
        device: where they are scored; default: where the embeddings are.

    Returns:
        (texts, b), (images, b), int64, on the CPU, b being `best` or, if fewer, the most positives of a query: how
        many negatives score at least as much as a query's best, second best, … positive; 0 is the first place. −1
        where it has fewer positives. Behind the best one it is counted up to `best`: more says only that.

    Raises:
        ValueError: for embeddings that are not finite, or pairs of what does not exist.
    """
    check_finite(text_embeds, "text_embeds")
    check_finite(image_embeds, "image_embeds")
    _check_pairs(pairs, len(text_embeds), len(image_embeds))
    device = device or text_embeds.device
    pairs = pairs[pairs[:, 0].argsort(stable=True)]
    scores = pair_cosines(text_embeds, image_embeds, pairs)
    # (best, texts), (best, images), fp64: what a negative must reach to count.
    wanted = [
        _best_positives(scores, pairs[:, side], count, best).to(device)
        for side, count in enumerate((len(text_embeds), len(image_embeds)))
    ]
    counts = [_Counts(threshold, best) for threshold in wanted]
    ends = torch.bincount(pairs[:, 0], minlength=len(text_embeds)).cumsum(0)
    for texts in _blocks(len(text_embeds), block[0]):
        queries = text_embeds[texts].to(device, torch.float32)
        own = pairs[int(ends[texts.start - 1]) if texts.start else 0 : int(ends[texts.stop - 1])]
        for images in _blocks(len(image_embeds), block[1]):
            tile = queries @ image_embeds[images].to(device, torch.float32).T  # (texts, images) of the block
            inside = own[(own[:, 1] >= images.start) & (own[:, 1] < images.stop)].to(device)
            tile[inside[:, 0] - texts.start, inside[:, 1] - images.start] = -torch.inf
            counts[0].add(tile, texts, text_embeds[texts], image_embeds[images])
            counts[1].add(tile.T, images, image_embeds[images], text_embeds[texts])
    by_text, by_image = (count.ranks() for count in counts)
    return by_text, by_image


def _blocks(count: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


class _Counts:
    """How many negatives reach what is wanted of each query, summed over blocks.

    Args:
        wanted: (best, queries), fp64, +inf where a query has fewer positives.
        limit: behind the first place, counting ends there.
    """

    def __init__(self, wanted: Tensor, limit: int):
        self.wanted, self.limit = wanted, limit
        # Above by more than an fp32 product rounds; within that; and of these, those that reach it in fp64.
        self.above, self.close, self.exact = (torch.zeros_like(wanted, dtype=torch.int64) for _ in range(3))

    def add(self, tile: Tensor, part: slice, query_embeds: Tensor, candidate_embeds: Tensor) -> None:
        """Counts a block.

        Args:
            tile: (queries, candidates), fp32.
            part: which queries these are.
            query_embeds, candidate_embeds: those of the block, (queries, dim), (candidates, dim).
        """
        highest = tile.amax(1)  # (queries,)
        for place in range(len(self.wanted)):
            wanted, above, close, exact = (
                counts[place, part] for counts in (self.wanted, self.above, self.close, self.exact)
            )
            open_ones = highest >= wanted.float() - ROUNDING
            if place:
                open_ones &= above < self.limit
            queries = open_ones.nonzero()[:, 0]
            if 2 * len(queries) > len(wanted):  # to pick them out would take longer
                queries, scores = torch.arange(len(wanted), device=wanted.device), tile
            else:
                scores = tile[queries]
            low, high = wanted.float()[queries, None] - ROUNDING, wanted.float()[queries, None] + ROUNDING
            # As fp32: a sum of booleans takes ten times as long. Exact up to 2²⁴ of them.
            count = torch.empty_like(scores)
            reached = torch.ge(scores, low, out=count).sum(1).long()
            surely = torch.gt(scores, high, out=count).sum(1).long()
            above[queries] += surely
            close[queries] += reached - surely
            looked_at = ((reached > surely) & (close[queries] <= _LOOKED_AT)).nonzero()[:, 0]
            if len(looked_at):
                of_these = scores[looked_at]
                row, candidate = ((of_these >= low[looked_at]) & (of_these <= high[looked_at])).nonzero(as_tuple=True)
                query = queries[looked_at[row]]
                pairs = torch.stack([query, candidate], dim=1).cpu()
                cosine = pair_cosines(query_embeds, candidate_embeds, pairs).to(wanted.device)
                exact += torch.bincount(query[cosine >= wanted[query] - TIE], minlength=len(wanted))

    def ranks(self) -> Tensor:
        """(queries, best), on the CPU; −1 where a query has fewer positives."""
        ranks = self.above + torch.where(self.close > _LOOKED_AT, self.close, self.exact)
        return ranks.masked_fill(self.wanted == torch.inf, -1).T.contiguous().cpu()


def check_finite(embeds: Tensor, name: str) -> None:
    """
    Raises:
        ValueError: for embeddings that are NaN or infinite, with the first row.
    """
    for start in range(0, len(embeds), _PAIRS):  # of all at once, `isfinite` takes several times their memory
        finite = embeds[start : start + _PAIRS].isfinite().flatten(1).all(1)
        if not finite.all():
            row = start + int((~finite).nonzero()[0])
            raise ValueError(f"{name} are not finite, first in row {row}: the model that made them is broken")


def _check_pairs(pairs: Tensor, texts: int, images: int) -> None:
    for side, (name, count) in enumerate((("text", texts), ("image", images))):
        unknown = (pairs[:, side] < 0) | (pairs[:, side] >= count)
        if unknown.any():
            raise ValueError(f"pair {pairs[unknown][0].tolist()} names a {name} that is none of the {count}")


def pair_cosines(text_embeds: Tensor, image_embeds: Tensor, pairs: Tensor) -> Tensor:
    """(pairs,), fp64, of unit vectors.

    Args:
        pairs: (pairs, 2) of (text, image) positions.
    """
    parts = [
        (text_embeds[part[:, 0]].double() * image_embeds[part[:, 1]].double()).sum(1) for part in pairs.split(_PAIRS)
    ]
    return torch.cat(parts)


def _best_positives(scores: Tensor, queries: Tensor, count: int, best: int) -> Tensor:
    """(best, count): each query's highest positive scores in falling order, +inf where it has fewer; of `best`, no
    more than there are."""
    order = scores.argsort(descending=True)
    order = order[queries[order].argsort(stable=True)]  # by query, the highest first
    counts = torch.bincount(queries, minlength=count)
    best = min(best, int(counts.max()))
    place = torch.arange(len(queries)) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    kept = place < best
    wanted = torch.full((best, count), torch.inf, dtype=torch.double)
    wanted[place[kept], queries[order][kept]] = scores[order][kept]
    return wanted


def recall_at_k(ranks: Tensor, k: int) -> float:
    """The share of queries whose best positive is among the first k.

    Args:
        ranks: (queries,), how many negatives score at least as much as the best positive.
    """
    return (ranks < k).double().mean().item()


def median_rank(ranks: Tensor) -> float:
    """Counted from 1; of an even number of queries the mean of the two in the middle."""
    ordered = ranks.sort().values
    return 1 + (ordered[(len(ranks) - 1) // 2] + ordered[len(ranks) // 2]).item() / 2


def average_precision_at_k(ranks: Tensor, positives: Tensor, k: int) -> Tensor:
    """(queries,), fp64: the mean of the precisions at the places of a query's positives among the first k.

    AP@k = Σ_j j / place_j / min(k, positives), over positives at places up to k (Manning et al. 2008, §8.4, cut at k).

    Args:
        ranks: (queries, k or more), of `retrieval_ranks`.
        positives: (queries,), how many positives each query has.
    """
    number = torch.arange(1, ranks.shape[1] + 1)  # of a positive among those of its query
    places = (ranks + number).double()
    precision = torch.where((ranks >= 0) & (places <= k), number / places, 0)
    return precision.sum(1) / positives.clamp(max=k)


def chance_recall_at_k(positives: Sequence[int] | Tensor, candidates: int, k: int) -> float:
    """The recall@k of a random order: the mean over queries of 1 − C(candidates − positives, k) / C(candidates, k).

    Args:
        positives: (queries,), how many positives each query has.
    """
    positives = torch.as_tensor(positives, dtype=torch.double)
    missed = torch.ones_like(positives)
    for drawn in range(min(k, candidates)):
        missed *= ((candidates - positives - drawn) / (candidates - drawn)).clamp(min=0)
    return (1 - missed).mean().item()


# ---- classes ------------------------------------------------------------------------------------------------------


def class_ranks(scores: Tensor, labels: Tensor, tie: float = TIE) -> Tensor:
    """(pictures,): how many other classes score at least as much as the right one; 0 is right. Ties count against.

    Args:
        scores: (pictures, classes), fp64: in fp32, near ties are rounded either way.
        labels: (pictures,), the right class.
        tie: how close two scores are that only rounding tells apart.
    """
    own = scores.gather(1, labels[:, None])  # (pictures, 1)
    return (scores >= own - tie).sum(1) - 1


def answers(scores: Tensor, labels: Tensor, tie: float = TIE) -> Tensor:
    """(pictures,): the class chosen; where the right one shares the first place, the best of the others."""
    others = scores.scatter(1, labels[:, None], -torch.inf).argmax(1)
    return torch.where(class_ranks(scores, labels, tie) == 0, labels, others)


def class_shares(labels: Tensor) -> Tensor:
    """(pictures,), fp64: what each picture weighs in a mean over the classes that have pictures, each class alike."""
    counts = torch.bincount(labels).double()
    return len(labels) / (counts > 0).sum() / counts[labels]


def mean_per_class_recall(right: Tensor, labels: Tensor) -> float:
    """The mean over classes with pictures of the share of their pictures that were right (balanced accuracy).

    Args:
        right: (pictures,), boolean.
        labels: (pictures,), the right class.
    """
    return (right.double() * class_shares(labels)).mean().item()


def average_precision(scores: Tensor, positive: Tensor, tie: float = TIE) -> float:
    """Of one class: the mean, over its pictures, of the precision at their place; ties count against the model.

    Args:
        scores: (pictures,), fp64.
        positive: (pictures,), boolean, one or more of them true.
        tie: as in `class_ranks`.

    Raises:
        ValueError: no picture is of the class.
    """
    if not positive.any():
        raise ValueError("no picture is of this class: its average precision is undefined")
    of_class = scores[positive].sort(descending=True).values
    others = scores[~positive].sort().values
    above = len(others) - torch.searchsorted(others, of_class - tie)  # others that score at least as much
    number = torch.arange(1, len(of_class) + 1)
    return (number / (number + above).double()).mean().item()


def calibration(probabilities: Tensor, right: Tensor, bins: int = 15) -> tuple[float, Tensor]:
    """The expected calibration error, Σ share of the bin · |accuracy − confidence| (Guo et al. 2017,
    arXiv:1706.04599, eq. 3), and (bins, 3): pictures, mean probability and accuracy of each bin.

    Args:
        probabilities: (pictures,), that the answer given is right.
        right: (pictures,), boolean, whether it is.
    """
    # Bins are open below and closed above, as in the paper: 0 belongs to the first.
    place = (probabilities.double() * bins).ceil().long().clamp(1, bins) - 1
    count = torch.bincount(place, minlength=bins).double()
    confidence = torch.bincount(place, probabilities.double(), minlength=bins) / count.clamp(min=1)
    accuracy = torch.bincount(place, right.double(), minlength=bins) / count.clamp(min=1)
    error = (count / max(len(right), 1) * (accuracy - confidence).abs()).sum().item()
    return error, torch.stack([count, confidence, accuracy], dim=1)


def clip_score(image_embeds: Tensor, text_embeds: Tensor) -> Tensor:
    """(pairs,) CLIPScores, 2.5 · max(cosine, 0), in [0, 2.5] (Hessel et al. 2021, arXiv:2104.08718, eq. 1).

    The paper puts "A photo depicts" before each caption; here captions are as they are embedded.

    Args:
        image_embeds, text_embeds: (pairs, dim), unit length: row i of the one with row i of the other.
    """
    return _CLIP_SCORE_WEIGHT * (image_embeds.float() * text_embeds.float()).sum(1).clamp(min=0)
