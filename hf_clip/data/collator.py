"""Items into a batch: captions tokenised together and padded to the longest of them."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from .images import content_id


@dataclass
class HFClipCollator:
    """Makes a batch of the items of a `CaptionedImages` or `TrainingPairs`.

    Args:
        tokenizer: of the text tower.
        max_length: captions with more tokens are cut (and counted in `captions_cut`).

    Returns (called): a dict of
        pixel_values (images, 3, height, width); input_ids, attention_mask, … (captions, tokens);
        image_ids (images,) and caption_ids (captions,): int64 content digests;
        rows (images,): the source's row of each picture; caption_counts (images,): how many captions each has;
        captions_cut (1,): how many captions were cut; skipped: (row, name, reason) of pictures left out.
        Where no picture could be read, only `skipped`.
    """

    tokenizer: PreTrainedTokenizerBase
    max_length: int = 77

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        skipped = [entry for item in items for entry in item["skipped"]]
        items = [item for item in items if "pixel_values" in item]
        if not items:
            return {"skipped": skipped}
        captions = [caption for item in items for caption in item["captions"]]
        tokens = self.tokenizer(
            captions, padding=True, truncation=True, max_length=self.max_length, return_tensors="pt"
        )
        return {
            **tokens,
            "pixel_values": torch.stack([item["pixel_values"] for item in items]),
            "image_ids": torch.tensor([item["image_id"] for item in items]),
            "caption_ids": torch.tensor([content_id(caption.encode()) for caption in captions]),
            "rows": torch.tensor([item["row"] for item in items]),
            "caption_counts": torch.tensor([len(item["captions"]) for item in items]),
            "captions_cut": torch.tensor([sum(bool(e.overflowing) for e in tokens.encodings or ())]),
            "skipped": skipped,
        }
