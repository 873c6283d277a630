"""Frozen towers: how the captions or pictures that one is given are counted, told apart and embedded."""

import functools
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..core.digests import tensors_digest, tokenizer_digest
from ..data.collator import HFClipCollator
from ..data.columns import find_path
from ..data.dataset import TrainingPairs
from ..data.draws import read_picture
from ..data.features import FeatureTower
from ..data.pixels import processed_pixels
from ..data.sources import Source
from ..data.split import content_keys
from ..models.modeling_hf_clip import HFClipModel

_NAMES_OF_A_CONFIG = ("_name_or_path", "_commit_hash", "transformers_version")  # say nothing about its outputs

Embedded = tuple[Tensor, list[int], list[str | None]]  # vectors (batch, width), ids, notes


class Items(NamedTuple):
    """A source's captions or pictures.

    Args:
        counts: (rows,), how many items each row has.
        keys: (items,) int64, equal where the items are.
        sizes: (items,), of what the tower is given.
        more: further arrays of the index, by name.
    """

    counts: np.ndarray
    keys: np.ndarray
    sizes: np.ndarray
    more: dict[str, np.ndarray]


class Tower(ABC):
    """One side of a model: how its items are counted, named and embedded."""

    side: str
    gives: str  # the attribute of `TrainingPairs`

    def __init__(self, model: HFClipModel, collator: HFClipCollator, args: Any):
        self.model, self.collator, self.args = model, collator, args
        self.module = getattr(model, f"{self.side}_model")

    @abstractmethod
    def preprocessing(self, pairs: TrainingPairs) -> dict[str, object]:
        """What is done to an item before the tower sees it."""

    @abstractmethod
    def items(self, source: Source) -> Items:
        """All that the tower may be given of a source."""

    @abstractmethod
    def embed(self, pairs: TrainingPairs, starts: np.ndarray, batches: list[list[int]]) -> Iterator[Embedded]:
        """Of batches of items, numbered as `items` counts them: row i has those from starts[i]."""

    @functools.cached_property
    def description(self) -> FeatureTower:
        config = {k: v for k, v in self.module.config.to_dict().items() if k not in _NAMES_OF_A_CONFIG}
        pooling = getattr(self.model.config, f"{self.side}_pooling")
        return FeatureTower(
            type=self.module.config.model_type,
            digest=tensors_digest(self.module, json.dumps(config, sort_keys=True, default=str)),
            pooling=pooling,
            dtype=str(self.module.dtype).removeprefix("torch."),
        )

    @property
    def width(self) -> int:
        return getattr(self.model.config, f"{self.side}_width")

    def _run(self, pool: Callable[..., Tensor], **inputs: Tensor) -> Tensor:
        """(items, width) fp32, on the CPU."""
        self.module.eval()
        with torch.inference_mode():
            pooled = pool(**{name: value.to(self.module.device) for name, value in inputs.items()})
        if not pooled.isfinite().all():
            raise FloatingPointError(f"the frozen {self.side} tower gave features that are not finite")
        return pooled.float().cpu()


class TextTower(Tower):
    side, gives = "text", "text_features"

    def preprocessing(self, pairs: TrainingPairs) -> dict[str, object]:
        return {
            "tokenizer": tokenizer_digest(self.collator.tokenizer),
            "max_length": self.collator.max_length,
            "padding": self.collator.padding,
        }

    def items(self, source: Source) -> Items:
        """Captions of which the tower reads the same tokens are one item."""
        counts, read = [], []
        column, rows = _caption_rows(source)
        for batch in rows.iter(1000):
            captions = [source.captions_of({column: value}) for value in batch[column]]
            counts.append(np.array([len(each) for each in captions], dtype=np.int64))
            read.append(self.collator.tokenize([caption for each in captions for caption in each])[1:])
        ids, lengths, cut = (torch.cat(column).numpy() for column in zip(*read, strict=True))
        return Items(np.concatenate(counts), ids, lengths, {"cut": cut})

    def embed(self, pairs: TrainingPairs, starts: np.ndarray, batches: list[list[int]]) -> Iterator[Embedded]:
        column, rows = _caption_rows(pairs.source)
        for batch in batches:
            of_rows = np.searchsorted(starts, batch, side="right") - 1
            values = rows[of_rows.tolist()][column]
            captions = [
                pairs.source.captions_of({column: value})[place]
                for value, place in zip(values, (batch - starts[of_rows]).tolist(), strict=True)
            ]
            read = self.collator.tokenize(captions)
            yield self._run(self.model.pool_text, **read.tokens), read.ids.tolist(), [None] * len(captions)


def _caption_rows(source: Source) -> tuple[str, Any]:
    """The column that captions, or the labels in place of them, stand in, and the rows with it alone."""
    column = find_path(dict(source.rows.features), str(source.caption_column or source.label_column))[0]
    return column, source.rows.select_columns(column)


class ImageTower(Tower):
    side, gives = "vision", "image_features"

    def preprocessing(self, pairs: TrainingPairs) -> dict[str, object]:
        return {
            "image_processor": json.loads(pairs.image_processor.to_json_string()),
            "decoded_side": pairs.draw.at_least,
        }

    def items(self, source: Source) -> Items:
        keys = content_keys(source, exact=True).view(np.int64)
        return Items(np.ones_like(keys), keys, np.zeros_like(keys), {})

    def embed(self, pairs: TrainingPairs, starts: np.ndarray, batches: list[list[int]]) -> Iterator[Embedded]:
        loader = torch.utils.data.DataLoader(
            _Pictures(pairs),
            batch_sampler=batches,  # type: ignore[arg-type]
            num_workers=self.args.dataloader_num_workers,
            collate_fn=self.collator,
            generator=torch.Generator(),  # a loader draws from it, which must not be what training draws from
        )
        for rows, batch in zip(batches, loader, strict=True):
            vectors, ids = torch.zeros(len(rows), self.width), [0] * len(rows)
            notes: list[str | None] = [None] * len(rows)
            place = {row: i for i, row in enumerate(rows)}
            readable = [place[row] for row in batch["rows"].tolist()]
            if readable:
                vectors[readable] = self._run(self.model.pool_image, pixel_values=batch["pixel_values"])
            for i, image_id in zip(readable, batch["image_ids"].tolist(), strict=True):
                ids[i] = image_id
            for i, (_, _, reason) in zip(sorted({*place.values()} - {*readable}), batch["skipped"], strict=True):
                notes[i] = reason
            yield vectors, ids, notes


class _Pictures(torch.utils.data.Dataset):
    """Pictures as training has them when nothing is augmented."""

    def __init__(self, pairs: TrainingPairs):
        self.source, self.at_least = pairs.source, pairs.draw.at_least
        self.to_pixels = functools.partial(processed_pixels, pairs.image_processor)

    def __getitem__(self, row: int) -> dict[str, Any]:
        record = self.source.rows[row]
        picture = read_picture(self.source, record, row, self.to_pixels, at_least=self.at_least)
        return {"row": row, "captions": []} | picture
