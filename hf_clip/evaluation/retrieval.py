"""Retrieval both ways, by the protocol that papers quote (CLIP_benchmark's names)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..embedding import Embeddings
from ..errors import InputError
from .metrics import chance_recall_at_k, ranks_of_best_positive, recall_at_k


def evaluate_retrieval(embeddings: Embeddings, ks: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
    """Recall at each k, beside what chance would give.

    `image_retrieval_recall@k`: over the captions, the share whose own picture is among the k pictures most alike.
    `text_retrieval_recall@k`: over the pictures, the share of which one caption or more is among the k captions most
    alike. `…_chance@k`: the same for a random order. `median_rank`s count from 1.
    """
    uncaptioned = torch.bincount(embeddings.text_to_image, minlength=len(embeddings.image_embeds)) == 0
    if uncaptioned.any():
        first, count = int(embeddings.image_rows[uncaptioned][0]), int(uncaptioned.sum())
        raise InputError(
            f"{count} pictures have no caption, the first in row {first + 1}: retrieval needs one for each"
        )
    captions = torch.arange(len(embeddings.text_to_image))
    caption_to_image = torch.stack([captions, embeddings.text_to_image], dim=1)
    directions = {
        "image": (embeddings.text_embeds, embeddings.image_embeds, caption_to_image),
        "text": (embeddings.image_embeds, embeddings.text_embeds, caption_to_image.flip(1)),
    }
    metrics: dict[str, float] = {
        "images": len(embeddings.image_embeds),
        "captions": len(embeddings.text_embeds),
        "skipped_images": len(embeddings.skipped),
    }
    for name, (queries, candidates, positive) in directions.items():
        ranks = ranks_of_best_positive(queries, candidates, positive)
        positives = torch.bincount(positive[:, 0])
        for k in ks:
            metrics[f"{name}_retrieval_recall@{k}"] = recall_at_k(ranks, k)
            metrics[f"{name}_retrieval_chance@{k}"] = chance_recall_at_k(positives, len(candidates), k)
        metrics[f"{name}_retrieval_median_rank"] = ranks.median().item() + 1
    return metrics


def top_images(embeddings: Embeddings, captions: Tensor, k: int) -> Tensor:
    """(captions, k) positions of the pictures most alike each of the captions at the positions given."""
    scores = embeddings.text_embeds[captions] @ embeddings.image_embeds.T  # (captions, images)
    return scores.topk(min(k, scores.shape[1]), dim=1).indices
