"""What a model says of a data set: word pairs, agreement of captions, likely mislabelled rows, outliers."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from ..data.images import read_image
from ..data.sources import Source
from ..embeddings.encode import Embeddings
from ..evaluation.metrics import ROUNDING, check_finite, clip_score, pair_cosines
from ..evaluation.outcome import Outcome

BLOCK = (1024, 4096)  # rows and columns of a matrix product: nothing of the size of the data squared is made
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
NEIGHBOURS = 10
_ROWS = 16_384  # more are gathered at a time only to be multiplied


class Rows:
    """What a reader calls what was embedded: rows from 1, file names, captions. Without a source, rows alone."""

    def __init__(self, source: Source | None, embeddings: Embeddings):
        self.source, self.embeddings = source, embeddings

    def row(self, image: int) -> int:
        row = int(self.embeddings.image_rows[image])
        return 1 + (self.source.row_number(row) if self.source else row)

    def name(self, image: int) -> str:
        return self.source.picture_name(self._record(self.source, image)) if self.source else ""

    def captions(self, image: int) -> list[str]:
        return self.source.captions_of(self._record(self.source, image)) if self.source else []

    def caption(self, caption: int) -> str:
        """Of the caption at a position."""
        image = self.embeddings.text_to_image[caption]
        first = int(torch.searchsorted(self.embeddings.text_to_image, image))
        return self.captions(int(image))[caption - first] if self.source else ""

    def picture(self, image: int) -> Image.Image:
        """
        Raises:
            ValueError: there is no source.
        """
        if self.source is None:
            raise ValueError("embeddings without a source have no images to show")
        return read_image(self._record(self.source, image)[self.source.image_column], self.source.folder)[0]

    def _record(self, source: Source, image: int) -> dict[str, Any]:
        return source.rows[int(self.embeddings.image_rows[image])]


# ---- of a data set ------------------------------------------------------------------------------------------------


def measure_all(
    embeddings: Embeddings,
    pair_embeds: Tensor | None = None,
    logit_scale: Tensor | float = 0.0,
    *,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> Outcome:
    """All that follows of one data set; without captions, what needs none.

    Args:
        pair_embeds: (pairs, 2, dim) of opposite prompts, as in `score_word_pairs`.
        device: where similarities are computed; default: where the embeddings are.

    Raises:
        ValueError: for embeddings that are not finite.
    """
    outcome = Outcome(
        metrics={
            "images": len(embeddings.image_embeds),
            "captions": len(embeddings.text_embeds),
            "skipped_images": len(embeddings.skipped),
        }
    )
    if pair_embeds is not None:
        outcome |= measure_word_pairs(embeddings, pair_embeds, logit_scale)
    if len(embeddings.text_embeds):
        if cut := embeddings.cut_captions:
            count = len(embeddings.text_embeds)
            outcome.notes.append(f"{cut} of {count} captions are longer than the text tower reads, and were cut.")
        outcome |= measure_agreement(embeddings)
        outcome |= find_mislabelled(embeddings, device=device, progress=progress)
    else:
        outcome.notes.append("There are no captions: their agreement with the pictures was not measured.")
    return outcome | find_outliers(embeddings, device=device, progress=progress)


def measure_word_pairs(embeddings: Embeddings, pair_embeds: Tensor, logit_scale: Tensor | float) -> Outcome:
    """Of each pair of opposite prompts, counted from 1, the mean probability of the first over the pictures, and the
    share of pictures that it fits better than the second.

    `details["word_pairs"]`: (images, pairs); `details["word_pair_order"]`: (distinct pictures, pairs), their positions
    from the highest probability to the lowest.
    """
    first = np.unique(embeddings.image_ids, return_index=True)[1]
    scores = score_word_pairs(embeddings.image_embeds, pair_embeds, logit_scale).double().cpu().numpy()
    outcome = Outcome(
        protocol={"word_pairs": "softmax over exp(logit_scale) · cosine of the two prompts (arXiv:2207.12396, eq. 2)"},
        details={"word_pairs": scores, "word_pair_order": first[np.argsort(-scores[first], axis=0, kind="stable")]},
    )
    for number, score in enumerate(scores.T, start=1):
        for name, values in (("mean", score), ("above_half", (score > 0.5).astype(float))):
            outcome.metrics[f"word_pair_{number}_{name}"] = float(values.mean())
            outcome.shares[f"word_pair_{number}_{name}"] = (values, np.ones(len(values)))
    return outcome


def measure_agreement(embeddings: Embeddings) -> Outcome:
    """CLIPScores of all pictures with their captions, and with captions of others, drawn at random.

    `details["clip_score"]`: (captions,); `details["mismatched_clip_score"]`: fewer, where a caption drawn was right.
    """
    images, captions = embeddings.text_to_image, torch.arange(len(embeddings.text_embeds))
    drawn = torch.randperm(len(captions), generator=torch.Generator().manual_seed(0))
    wrong = (images[drawn] != images) & (embeddings.caption_ids[drawn] != embeddings.caption_ids)
    score, mismatched = (
        _clip_scores(embeddings, torch.stack([texts, images[captions]], dim=1))
        for texts, captions in ((captions, captions), (drawn[wrong], captions[wrong]))
    )
    quantiles = {f"clip_score_q{100 * q:02.0f}": float(np.quantile(score, q)) for q in QUANTILES}
    outcome = Outcome(
        metrics={"clip_score_mean": score.mean(), "clip_score_std": score.std(), **quantiles},
        protocol={"clip_score": "2.5 · max(cosine, 0) of captions as they are, without a prompt (arXiv:2104.08718)"},
        details={"clip_score": score, "mismatched_clip_score": mismatched},
    )
    if len(mismatched):
        outcome.metrics["mismatched_clip_score_mean"] = mismatched.mean()
    count = len(embeddings.image_embeds)
    outcome.shares["clip_score_mean"] = np.bincount(images, score, count), np.bincount(images, minlength=count)
    return outcome


def find_mislabelled(
    embeddings: Embeddings,
    *,
    block: tuple[int, int] = BLOCK,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> Outcome:
    """How much there is in the data that fits a caption, or its picture, better than they fit each other.

    `details["suspicion"]`: (captions,), the mean of the two `fit_shares`. Equal pictures, and equal captions, count
    once, and what forms a pair with either in any row does not count against them; so class names may be captions.
    Of the faults planted in OpenMoji the mean finds a little more than the larger share does (average precision 0.979
    against 0.975), and half of all faults have a mean above ½.
    `details["mislabelled"]`: positions of as many captions as are estimated to be wrong, the most suspect first;
    `details["best_caption"]`: for each of them, the position of the caption that fits its picture best.

    `estimated_mislabelled`: a share is near 0 for a right pair and anything in (0, 1), evenly, for a wrong one: half
    of the wrong ones, and hardly others, have a mean above ½ (Storey 2002, doi:10.1111/1467-9868.00346, λ = ½).
    Right pairs that the model does not understand are spread as wrong ones are, and counted too.
    """
    _, first_image, image = np.unique(embeddings.image_ids, return_index=True, return_inverse=True)
    _, first_text, text = np.unique(embeddings.caption_ids, return_index=True, return_inverse=True)
    keys, pair = np.unique(text * len(first_image) + image[embeddings.text_to_image], return_inverse=True)
    texts = embeddings.text_embeds[first_text]
    shares = fit_shares(
        texts,
        embeddings.image_embeds[first_image],
        torch.from_numpy(np.stack([keys // len(first_image), keys % len(first_image)], axis=1)),
        block=block,
        device=device,
        progress=progress,
    )
    suspicion = shares.double().mean(1).numpy()[pair]
    estimated = min(2 * int((suspicion > 0.5).sum()), len(suspicion))
    suspects = np.argsort(-suspicion, kind="stable")[:estimated]
    pictures = embeddings.image_embeds[embeddings.text_to_image[suspects]]
    return Outcome(
        metrics={
            "distinct_captions": len(first_text),
            "estimated_mislabelled": estimated,
            "estimated_mislabelled_share": estimated / len(suspicion),
        },
        protocol={
            "suspicion": "mean of the share of other pictures that fit the caption, and of other captions that fit "
            "the picture, at least as well",
            "estimated_mislabelled": "2 · number of pairs with a suspicion above ½ (doi:10.1111/1467-9868.00346)",
        },
        details={
            "suspicion": suspicion,
            "mislabelled": suspects,
            "best_caption": first_text[best_fitting(pictures, texts, block=block, device=device)],
        },
    )


def find_outliers(
    embeddings: Embeddings,
    neighbours: int = NEIGHBOURS,
    *,
    block: tuple[int, int] = BLOCK,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> Outcome:
    """Pictures far from all others: `details["neighbour_cosine"]`, (images,), is low, as in `neighbour_cosines`.

    Equal pictures are duplicates, and no neighbours. `details["outliers"]`: a position of each distinct picture, the
    farthest from others first.
    """
    _, first, image = np.unique(embeddings.image_ids, return_index=True, return_inverse=True)
    cosines = neighbour_cosines(
        embeddings.image_embeds[first], neighbours, block=block, device=device, progress=progress
    )
    outcome = Outcome(
        metrics={"distinct_images": len(first), "duplicate_images": len(image) - len(first)},
        protocol={"neighbour_cosine": f"mean cosine to the {min(neighbours, len(first) - 1)} nearest other pictures"},
        details={"neighbour_cosine": cosines.double().numpy()[image], "outliers": first[cosines.argsort(stable=True)]},
    )
    if len(first) > 1:
        outcome.metrics["neighbour_cosine_mean"] = cosines.double().mean().item()
    else:
        outcome.details["outliers"] = first[:0]
        outcome.notes.append("There is one picture: nothing to be far from.")
    return outcome


def _clip_scores(embeddings: Embeddings, pairs: Tensor) -> np.ndarray:
    """(pairs,), fp64, of (caption, picture) positions."""
    parts = [
        clip_score(embeddings.image_embeds[part[:, 1]], embeddings.text_embeds[part[:, 0]])
        for part in pairs.split(_ROWS)
    ]
    return torch.cat(parts).double().numpy()


# ---- of tensors ---------------------------------------------------------------------------------------------------


def score_word_pairs(image_embeds: Tensor, pair_embeds: Tensor, logit_scale: Tensor | float) -> Tensor:
    """(images, pairs) probabilities of the first of two opposite prompts, such as "a happy face", "a sad face".

    The softmax over exp(logit_scale) · cosine of the two (CLIP-IQA, Wang et al. 2023, arXiv:2207.12396, eq. 2),
    which is the sigmoid of the difference. The bias of a model of the sigmoid loss is in both and cancels.

    Args:
        image_embeds: (images, dim); pair_embeds: (pairs, 2, dim); unit length.
        logit_scale: the model's, a logarithm.
    """
    difference = pair_embeds[:, 0].float() - pair_embeds[:, 1].float()  # (pairs, dim)
    return (image_embeds.float() @ difference.T * torch.as_tensor(logit_scale).float().exp()).sigmoid()


def fit_shares(
    text_embeds: Tensor,
    image_embeds: Tensor,
    pairs: Tensor,
    *,
    block: tuple[int, int] = BLOCK,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> Tensor:
    """(pairs, 2): of each pair, the share of other pictures that fit its text at least as well as its own does, and
    of other texts that fit its picture at least as well.

    What forms a pair with the text (the picture) is no other. Ties count against the pair, as in `retrieval_ranks`;
    where there is no other, the share is 0.

    Args:
        text_embeds: (texts, dim); image_embeds: (images, dim); unit length.
        pairs: (pairs, 2) of (text, image) positions, each pair once.
        block: texts and images compared at a time.
        device: where they are compared; default: where the embeddings are.
    """
    check_finite(text_embeds, "text_embeds")
    check_finite(image_embeds, "image_embeds")
    device = device or text_embeds.device
    needed = pair_cosines(text_embeds, image_embeds, pairs).float().to(device) - ROUNDING
    orders = [pairs[:, side].argsort(stable=True) for side in (0, 1)]
    ascending = [pairs[order, side] for side, order in enumerate(orders)]
    reached = torch.zeros(2, len(pairs), dtype=torch.int64, device=device)
    for texts, images, tile in _tiles(text_embeds, image_embeds, block, device, progress):
        of_text, of_image = (
            order[slice(*torch.searchsorted(values, torch.tensor([part.start, part.stop])))]
            for order, values, part in zip(orders, ascending, (texts, images), strict=True)
        )
        right = pairs[of_text[(pairs[of_text, 1] >= images.start) & (pairs[of_text, 1] < images.stop)]].to(device)
        tile[right[:, 0] - texts.start, right[:, 1] - images.start] = -torch.inf
        for side, (own, part) in enumerate(((of_text, texts), (of_image, images))):
            for some in own.split(block[0]):
                places, some = (pairs[some, side] - part.start).to(device), some.to(device)
                scores = tile.index_select(side, places)  # (some, images) of the block, or (texts, some)
                # As fp32: a sum of booleans takes five times as long. Exact up to 2²⁴ of them.
                reached[side, some] += scores.ge_(needed[some].unsqueeze(1 - side)).sum(1 - side).long()
    rights = torch.stack([torch.bincount(pairs[:, side])[pairs[:, side]] for side in (0, 1)])
    others = torch.tensor([[len(image_embeds)], [len(text_embeds)]]) - rights
    return (reached.cpu() / others.clamp(min=1)).T


def neighbour_cosines(
    embeds: Tensor,
    neighbours: int = NEIGHBOURS,
    *,
    block: tuple[int, int] = BLOCK,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> Tensor:
    """(rows,): the mean cosine to the nearest others; the lowest are outliers. NaN where there is no other.

    The distance to the k-th nearest of Ramaswamy et al. 2000 (doi:10.1145/342009.335437), as the mean over all k
    (Angiulli & Pizzuti 2002, doi:10.1007/3-540-45681-3_2).

    Args:
        embeds: (rows, dim), unit length; no row twice.
        neighbours: how many; all where there are fewer.
        block: rows compared at a time.
    """
    device = device or embeds.device
    neighbours = min(neighbours, len(embeds) - 1)
    found = []
    nearest = torch.empty(0)
    for rows, columns, tile in _tiles(embeds, embeds, block, device, progress):
        same = torch.tensor(range(max(rows.start, columns.start), min(rows.stop, columns.stop)), dtype=torch.int64)
        tile[same - rows.start, same - columns.start] = -torch.inf
        if columns.start:
            tile = torch.cat([nearest, tile], dim=1)
        nearest = tile.topk(min(neighbours, tile.shape[1]), dim=1).values
        if columns.stop == len(embeds):
            found.append(nearest.mean(1).cpu())
    return torch.cat(found)


def best_fitting(
    queries: Tensor,
    candidates: Tensor,
    *,
    block: tuple[int, int] = BLOCK,
    device: torch.device | str | None = None,
) -> Tensor:
    """(queries,) positions of the candidates most alike.

    Args:
        queries: (queries, dim); candidates: (candidates, dim); unit length.
    """
    best = torch.full((len(queries),), -torch.inf, device=device or queries.device)
    place = torch.zeros(len(queries), dtype=torch.int64, device=best.device)
    for rows, columns, tile in _tiles(queries, candidates, block, best.device):
        value, found = tile.max(1)
        place[rows] = torch.where(value > best[rows], found + columns.start, place[rows])
        best[rows] = torch.maximum(value, best[rows])
    return place.cpu()


def _tiles(
    left: Tensor, right: Tensor, block: tuple[int, int], device: torch.device | str, progress: bool = False
) -> Iterator[tuple[slice, slice, Tensor]]:
    """(rows, columns, their part of left @ right.T), row by row of blocks."""
    for start in tqdm(range(0, len(left), block[0]), desc="comparing", disable=not progress, leave=False):
        rows = left[start : start + block[0]].to(device, torch.float32)
        for first in range(0, len(right), block[1]):
            columns = right[first : first + block[1]].to(device, torch.float32)
            yield slice(start, start + len(rows)), slice(first, first + len(columns)), rows @ columns.T
