"""Items into a batch: captions tokenised together and padded."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import BaseImageProcessor, BatchEncoding, PreTrainedTokenizerBase

from ..core.digests import content_id
from ..core.errors import InputError
from ..models.processing_hf_clip import HFClipProcessor, tokenizer_limit
from .items import Batch, Item
from .pixels import PixelNormalization
from .text import check_text


class Tokenized(NamedTuple):
    """Captions as the text tower reads them.

    Args:
        tokens: the tower's inputs, (captions, tokens) each.
        ids: (captions,) int64, equal where the tower reads the same tokens, whatever the rest of the batch.
        lengths: (captions,), tokens without padding.
        cut: (captions,) boolean, whether the end of the caption is lost.
    """

    tokens: dict[str, Tensor]
    ids: Tensor
    lengths: Tensor
    cut: Tensor


@dataclass
class ImageCollator:
    """Makes a batch of images alone: of the items of `ImageRows`, `TrainingImages` and their like.

    Args:
        image_processor: for a loop of one's own: 8-bit pixels are then rescaled and normalized here. A trainer does
            that on the model's device, where it costs less.

    Returns (called): a dict of pixel_values (images, 3, height, width), or pooled_image (images, width) of a frozen
        tower; image_ids (images,): int64 digests of the content; rows (images,): the source's row of each; skipped:
        (row, name, reason) of images left out. Where no image could be read, pixel_values are (0, 3, 1, 1).
    """

    image_processor: BaseImageProcessor | None = None

    def __post_init__(self):
        self._normalize = self.image_processor and PixelNormalization.of(self.image_processor)

    def __call__(self, items: list[Item]) -> Batch:
        if what := _foreign(items):
            raise InputError(
                f"ImageCollator gets rows of {what}: wrap them in TrainingImages(open_source(…, "
                "captions_required=False), image_processor, Augmentation()), or to evaluate in ImageRows(…)"
            )
        readable = _readable(items)
        return {
            **self._normalized(_pictures(readable)),
            "image_ids": _int64(item["image_id"] for item in readable),
            "rows": _int64(item["row"] for item in readable),
            "skipped": [entry for item in items for entry in item["skipped"]],
        }

    def _normalized(self, images: dict[str, Tensor]) -> dict[str, Tensor]:
        pixels = images.get("pixel_values")
        if not self._normalize or pixels is None or pixels.dtype != torch.uint8:
            return images
        return {"pixel_values": self._normalize(pixels)}


@dataclass
class HFClipCollator:
    """Makes a batch of the items of `CaptionedImages`, `TrainingPairs` and their like, as the processor would.

    Captions are padded and cut as the processor does it, in training and evaluation alike.

    Args:
        processor: of the model.
        max_length: tokens that the text tower reads, where they are fewer than the processor gives.
        normalize: 8-bit pixels of `TrainingPairs` are rescaled and normalized here, for a loop of one's own.
            `HFClipTrainer` does that on the model's device, where it costs less.

    Returns (called): a dict of
        pixel_values (images, 3, height, width); input_ids, attention_mask, … (captions, tokens);
        image_ids (images,) and caption_ids (captions,): int64 digests of the picture's content and of the tokens;
        rows (images,): the source's row of each picture; caption_counts (images,): how many captions each has;
        captions_cut (captions,): whether each was cut; skipped: (row, name, reason) of pictures left out.
        Where no picture could be read, the tensors have no rows: pixel_values (0, 3, 1, 1), input_ids (0, 1).
        Where no item has a caption (a source of pictures alone), there are no input_ids, attention_mask, ….
        Of items with features of a frozen tower: pooled_text (captions, width) in place of the tokens, pooled_image
        (images, width) in place of pixel_values.

    Raises:
        InputError: for a tokenizer in place of the processor; called, for a caption that no tokenizer takes, with its
            row.
    """

    processor: HFClipProcessor
    max_length: int = sys.maxsize
    normalize: bool = True

    def __post_init__(self):
        if not is_processor(self.processor):
            raise InputError(
                f"HFClipCollator is given a {type(self.processor).__name__}: give the model's HFClipProcessor, which "
                "knows how the text tower's captions are padded and cut"
            )
        self.tokenizer: PreTrainedTokenizerBase = self.processor.tokenizer
        self.padding = self.processor.text_padding
        limits = (self.processor.max_text_length, tokenizer_limit(self.tokenizer))
        self.max_length = min(self.max_length, *(limit for limit in limits if limit is not None), sys.maxsize)
        self._images = ImageCollator(self.processor.image_processor if self.normalize else None)

    def __call__(self, items: list[Item]) -> Batch:
        _check_items(items)
        readable = _readable(items)
        pooled = bool(items) and "pooled_text" in items[0]
        without_captions = not pooled and bool(items) and not any(item["captions"] for item in items)
        return {
            **(_pooled_texts(readable) if pooled else self._texts(readable, without_captions)),
            **self._images(items),
        }

    def _texts(self, items: list[Item], without_captions: bool) -> dict[str, Tensor]:
        _check_captions(items)
        captions = [caption for item in items for caption in item["captions"]]
        read = _nothing(()) if without_captions else self.tokenize(captions)
        return {
            **read.tokens,
            "caption_ids": read.ids,
            "caption_counts": _int64(len(item["captions"]) for item in items),
            "captions_cut": read.cut,
        }

    def tokenize(self, captions: list[str]) -> Tokenized:
        """Two captions are the same where the tower reads the same tokens: upper case or a line end that the
        tokenizer drops, another Unicode form, or words beyond the cut make no other caption."""
        if not captions:
            return _nothing(self.tokenizer.model_input_names)
        for number, caption in enumerate(captions, 1):
            check_text(caption, f"text {number} of {len(captions)}", "it")
        encoded = self.tokenizer(
            captions,
            padding=self.padding,
            truncation=True,
            max_length=self.max_length,
            return_attention_mask=True,
            return_tensors="pt",
        )
        tokens, is_text = dict(encoded), encoded["attention_mask"].bool()
        if "attention_mask" not in self.tokenizer.model_input_names:
            del tokens["attention_mask"]
        # Padding to a fixed length is the same for all, and may be read (SigLIP's); else it is the batch's.
        is_read = torch.ones_like(is_text) if self.padding == "max_length" else is_text
        rows = zip(tokens["input_ids"].numpy(), is_read.numpy(), strict=True)
        ids = _int64(content_id(row[read].tobytes()) for row, read in rows)
        return Tokenized(tokens, ids, is_text.sum(1), self._cut(captions, encoded))

    def _cut(self, captions: list[str], encoded: BatchEncoding) -> Tensor:
        if encoded.encodings is not None:
            return torch.tensor([bool(encoding.overflowing) for encoding in encoded.encodings])
        # A tokenizer written in Python does not say what it cut off.
        whole = self.tokenizer(captions, verbose=False)["input_ids"]
        return torch.tensor([len(row) > self.max_length for row in whole])


def is_processor(given: object) -> bool:
    """Whether it is an `HFClipProcessor`: of a folder opened with its own code it is a class of that name."""
    return HFClipProcessor.__name__ in [kind.__name__ for kind in type(given).__mro__]


def _nothing(names: Iterable[str]) -> Tokenized:
    tokens = {name: torch.zeros(0, 1, dtype=torch.long) for name in names}
    return Tokenized(tokens, _int64([]), _int64([]), torch.zeros(0, dtype=torch.bool))


def _foreign(items: list[Any]) -> str:
    """What the items of a data set that is none of ours hold; nothing of ours."""
    if not items or (isinstance(items[0], dict) and "skipped" in items[0]):
        return ""
    return ", ".join(map(str, items[0])) if isinstance(items[0], dict) else type(items[0]).__name__


def _check_items(items: list[Any]) -> None:
    if what := _foreign(items):
        raise InputError(
            f"HFClipCollator gets rows of {what}: give them as a datasets.Dataset, which the trainer opens, wrap them "
            "in TrainingPairs(open_source(…), image_processor, Augmentation()), to evaluate in CaptionedImages(…), or "
            "give a data_collator that makes pixel_values and input_ids of them"
        )
    if any(not {"captions", "pooled_text"} & item.keys() for item in items):
        raise InputError("HFClipCollator gets items without captions, as TrainingImages have: give TrainingPairs")


def _readable(items: list[Item]) -> list[Item]:
    return [item for item in items if "image_id" in item]


def _pooled_texts(items: list[Item]) -> dict[str, Tensor]:
    return {
        "pooled_text": torch.stack([item["pooled_text"] for item in items]),
        "caption_ids": _int64(item["caption_id"] for item in items),
        "caption_counts": torch.ones(len(items), dtype=torch.long),
        "captions_cut": torch.tensor([item["caption_cut"] for item in items], dtype=torch.bool),
    }


def _pictures(items: list[Item]) -> dict[str, Tensor]:
    if items and "pooled_image" in items[0]:
        return {"pooled_image": torch.stack([item["pooled_image"] for item in items])}
    pictures = [item["pixel_values"] for item in items]
    return {"pixel_values": torch.stack(pictures) if pictures else torch.zeros(0, 3, 1, 1)}


def _check_captions(items: list[Item]) -> None:
    """Of a data set that is none of ours."""
    for item in items:
        if isinstance(item["captions"], str):
            raise InputError(f"row {item['row'] + 1} has one text for its captions: give a list of texts")
        for caption in item["captions"]:
            check_text(caption, f"row {item['row'] + 1}")


def _int64(values: Iterable[int]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.long)
