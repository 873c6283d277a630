"""Batches of a collator of one's own, completed by what training and evaluation need beside pixels and tokens."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..core.digests import content_id
from ..core.errors import InputError
from .items import Batch

_INPUTS = ("pixel_values", "input_ids", "attention_mask", "token_type_ids", "position_ids")
_OURS = (
    "image_ids",
    "caption_ids",
    "caption_counts",
    "rows",
    "skipped",
    "captions_cut",
    "pooled_text",
    "pooled_image",
)
_TAKEN_OUT = ("return_loss",)  # which the examples for other CLIPs put in: the loss is the trainer's


@dataclass
class CompletedBatches:
    """Calls a collator, and adds what its batches lack of an `HFClipCollator`'s.

    Args:
        collator: gives `pixel_values` (images, 3, height, width) as the model wants them, `input_ids` (captions,
            tokens) and what else the text tower takes, and of the keys of `HFClipCollator` those that it likes.
    """

    collator: Callable[[list[Any]], Mapping[str, Any]]

    def __call__(self, items: list[Any]) -> Batch:
        """
        Raises:
            InputError: for a batch without pixels or tokens, with keys that nothing takes, or with another number of
                captions than of images and no `caption_counts`.
        """
        known = _known(items)  # before a collator takes anything out of them
        batch = self.collator(items)
        if not isinstance(batch, Mapping):
            return completed(batch)
        images = batch.get("pixel_values")
        if "image_ids" in known and not (isinstance(images, Tensor) and len(images) == len(known["image_ids"])):
            del known["image_ids"]  # whose they are is the collator's secret
        return completed(known | dict(batch))


def _known(items: list[Any]) -> Batch:
    """What items of our sets say of their images: ids by the files, not by augmented pixels, and what was skipped."""
    if not items or not all(isinstance(item, dict) and isinstance(item.get("skipped"), list) for item in items):
        return {}
    ids = [item["image_id"] for item in items if "image_id" in item]
    return {
        "skipped": [entry for item in items for entry in item["skipped"]],
        "image_ids": torch.tensor(ids, dtype=torch.long),
    }


def completed(batch: Mapping[str, Any]) -> Batch:
    """The batch with ids of its images and captions, by their pixels and tokens, and counts of captions."""
    if not isinstance(batch, Mapping):
        raise InputError(
            f"data_collator gives a {type(batch).__name__}: a batch is a dict of {', '.join(_INPUTS[:2])}, …"
        )
    batch = {name: value for name, value in batch.items() if name not in _TAKEN_OUT}
    lacking = [name for name in ("pixel_values", "input_ids") if not isinstance(batch.get(name), Tensor)]
    if lacking:
        raise InputError(
            f"data_collator gives {', '.join(batch) or 'nothing'}: a batch needs {' and '.join(lacking)}, as a tensor"
        )
    if unknown := [name for name in batch if name not in _INPUTS + _OURS]:
        raise InputError(f"data_collator gives {', '.join(unknown)}, which nothing here takes: leave it out")
    images, captions = len(batch["pixel_values"]), len(batch["input_ids"])
    if images != captions and "caption_counts" not in batch:
        raise InputError(
            f"data_collator gives {captions} captions of {images} images: say in caption_counts, (images,), whose "
            "they are"
        )
    batch.setdefault("caption_counts", torch.ones(images, dtype=torch.long))
    batch.setdefault("skipped", [])
    if "image_ids" not in batch:
        batch["image_ids"] = _digests(batch["pixel_values"])
    if "caption_ids" not in batch:
        batch["caption_ids"] = token_ids(batch["input_ids"], batch.get("attention_mask"))
    return batch


def token_ids(input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
    """(captions,) int64: equal where the tokens that are attended to are, however the batch is padded."""
    if attention_mask is None:
        return _digests(input_ids)
    rows = [ids[mask.bool()] for ids, mask in zip(input_ids, attention_mask, strict=True)]
    return _digests(rows)


def _digests(rows: Any) -> Tensor:
    # As bytes: numpy has no bfloat16.
    parts = [row.cpu().contiguous().view(torch.uint8).numpy().tobytes() for row in rows]
    return torch.tensor([content_id(part) for part in parts], dtype=torch.long)
