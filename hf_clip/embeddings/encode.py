"""One pass of a model over data: embeddings by row, finite and without repeats."""

import dataclasses
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..core.errors import InputError
from ..core.segments import split_rows
from ..data.collator import HFClipCollator
from ..data.dataset import CaptionedImages
from ..data.evaluation_set import EvaluationSet
from ..data.images import broken_picture
from ..data.pixels import processed_pixels
from ..data.sources import Source
from ..models.decoding_hf_clip import to_rgb
from ..models.modeling_hf_clip import HFClipModel
from ..models.processing_hf_clip import HFClipProcessor
from ..models.text_lengths import text_capacity
from .options import EmbedOptions

# The activations of more do not stay in its caches: a ResNet-50 takes twice as long a picture at 32.
_PICTURES_ON_A_CPU = 8


@dataclass
class Embeddings:
    """Pictures and captions of a source, embedded.

    Args:
        image_embeds: (images, dim), fp32, unit length.
        text_embeds: (captions, dim), fp32, unit length.
        image_rows: (images,), the row of each picture: of the source, or of the evaluation set, which may be some rows
            of several.
        text_to_image: (captions,), the position in `image_embeds` of each caption's picture.
        image_ids, caption_ids: (images,), (captions,), int64: equal where the picture's content is, and where the
            text tower reads the same tokens.
        skipped: (row, name, reason) of the pictures that could not be read; their captions are left out too.
        labels: (images,), int64, or of several labels a picture (images, classes), boolean; None without labels.
        class_names: of the labels, where they are known.
        image_features: (images, width), fp32, what the image tower gives before the projection, where asked for.
        captions_cut: (captions,) boolean, whether the end of a caption was cut off; None where it is not known.
        captions_are_classes: whether the captions are the names of the classes, for want of others.
    """

    image_embeds: Tensor
    text_embeds: Tensor
    image_rows: Tensor
    text_to_image: Tensor
    image_ids: Tensor
    caption_ids: Tensor
    skipped: list[tuple[int, str, str]] = field(default_factory=list)
    labels: Tensor | None = None
    class_names: list[str] | None = None
    image_features: Tensor | None = None
    captions_cut: Tensor | None = None
    captions_are_classes: bool = False

    @property
    def cut_captions(self) -> int:
        return 0 if self.captions_cut is None else int(self.captions_cut.sum())


@dataclass
class EmbeddedBatch:
    """One batch of an embedding pass, on the CPU; fields as in the collator's batch."""

    image_embeds: Tensor
    text_embeds: Tensor
    rows: Tensor
    caption_counts: Tensor
    image_ids: Tensor
    caption_ids: Tensor
    captions_cut: Tensor | None = None
    image_features: Tensor | None = None


def embed_batch(model: PreTrainedModel, batch: dict[str, Any], *, pooled: bool = False) -> EmbeddedBatch:
    """Embeds a collator's batch.

    Args:
        pooled: also keep what the image tower gives before the projection.

    Raises:
        FloatingPointError: for embeddings that are NaN or infinite, naming the tower.
    """
    names = ("image_ids", "caption_ids", "rows", "caption_counts", "captions_cut")
    extras = {name: batch.pop(name) for name in names if name in batch}
    features, image_embeds, text_embeds = _embed_inputs(model, pooled, **batch)
    return EmbeddedBatch(
        image_embeds=_finite(image_embeds, "image"),
        image_features=None if features is None else _finite(features, "image"),
        # Of pictures alone there are no texts.
        text_embeds=_finite(image_embeds[:0] if text_embeds is None else text_embeds, "text"),
        **{name: value.cpu() for name, value in extras.items()},
    )


def embed_inputs(model: PreTrainedModel, pixel_values: Tensor, **tokens: Tensor) -> tuple[Tensor, Tensor | None]:
    """(images, dim) and, where there are tokens, (captions, dim); the model and its memory format stay as they are."""
    return _embed_inputs(model, False, pixel_values, **tokens)[1:]


def _embed_inputs(
    model: Any, pooled: bool, pixel_values: Tensor, **tokens: Tensor
) -> tuple[Tensor | None, Tensor, Tensor | None]:
    """`embed_inputs`, with the image tower's own output, where asked for, in front."""
    if is_convolutional(model):
        pixel_values = pixel_values.contiguous(memory_format=torch.channels_last)
    at_a_time = _PICTURES_ON_A_CPU if pixel_values.device.type == "cpu" else max(len(pixel_values), 1)
    first, *others = pixel_values.split(at_a_time)
    with torch.inference_mode():
        if pooled and len(pixel_values):
            features = torch.cat([model.pool_image(part) for part in (first, *others)])
            output = model(**tokens, pooled_image=features, return_logits=False)
            return features, output.image_embeds, output.text_embeds
        output = model(**tokens, pixel_values=first, return_logits=False)
        images = [output, *(model(pixel_values=part, return_logits=False) for part in others)]
        return None, torch.cat([part.image_embeds for part in images]), output.text_embeds


def is_convolutional(model: PreTrainedModel) -> bool:
    """Whether the image tower is faster channels-last: a transformer's one patch embedding gains nothing."""
    return sum(isinstance(module, nn.Conv2d) for module in model.get_submodule("vision_model").modules()) > 1


def _finite(embeds: Tensor, tower: str) -> Tensor:
    """fp32, on the CPU."""
    if not embeds.isfinite().all():
        raise FloatingPointError(f"the {tower} tower gave embeddings that are not finite")
    return embeds.float().cpu()


def join_batches(batches: Iterable[EmbeddedBatch], skipped: list[tuple[int, str, str]]) -> Embeddings:
    """All batches in the order of their rows; a row that came twice (padding of the last batches) counts once.

    Batches that come in order, and not all at once, take no more memory than what is joined.

    Args:
        skipped: looked at when the last batch has come.
    """
    columns: dict[str, _Column] = {}
    for batch in batches:
        for name in (f.name for f in dataclasses.fields(batch)):
            if getattr(batch, name) is not None:
                columns.setdefault(name, _Column()).add(getattr(batch, name))
    if not columns:
        first = f"; the first: {skipped[0][1]}, {skipped[0][2]}" if skipped else ""
        raise InputError(f"not one picture could be read{first}: nothing to evaluate")
    rows, all_counts = columns["rows"].take(), columns["caption_counts"].take()
    images = _first_of_each(rows)
    counts = all_counts[images]
    old_starts = (all_counts.cumsum(0) - all_counts)[images]
    new_starts = counts.cumsum(0) - counts
    captions = torch.arange(int(counts.sum())) + (old_starts - new_starts).repeat_interleave(counts)
    return Embeddings(
        image_embeds=columns["image_embeds"].take(images),
        text_embeds=columns["text_embeds"].take(captions),
        image_rows=rows[images],
        text_to_image=torch.arange(len(images)).repeat_interleave(counts),
        image_ids=columns["image_ids"].take(images),
        caption_ids=columns["caption_ids"].take(captions),
        skipped=sorted(set(skipped)),
        image_features=columns["image_features"].take(images) if "image_features" in columns else None,
        captions_cut=columns["captions_cut"].take(captions) if "captions_cut" in columns else None,
    )


class _Column:
    """A field of batches, one after another, in an array that grows by an eighth."""

    def __init__(self) -> None:
        self.array, self.length = np.empty(0), 0

    def add(self, part: Tensor) -> None:
        end = self.length + len(part)
        if self.length == 0:
            self.array = np.empty((end, *part.shape[1:]), part.numpy().dtype)
        elif end > len(self.array):
            # The system moves the pages of a large array; a new tensor would need room for both.
            self.array.resize((end + end // 8, *part.shape[1:]), refcheck=False)
        self.array[self.length : end] = part.numpy()
        self.length = end

    def take(self, order: Tensor | None = None) -> Tensor:
        """All rows, or those at the places given: without a copy where these are the first ones."""
        whole = torch.from_numpy(self.array[: self.length])
        if order is None:
            return whole
        return whole[: len(order)] if torch.equal(order, torch.arange(len(order))) else whole[order]


def with_labels(embeddings: Embeddings, source: Source | EvaluationSet) -> Embeddings:
    """The same with the labels of what was embedded, where it has any that are numbers or classes."""
    if not source.has_classes:
        return embeddings
    labels = torch.index_select(torch.from_numpy(source.labels()), 0, embeddings.image_rows)
    return dataclasses.replace(
        embeddings,
        labels=labels,
        class_names=source.class_names,
        captions_are_classes=not source.caption_column,
    )


def _first_of_each(values: Tensor) -> Tensor:
    """Positions of the first occurrence of each value, by ascending value."""
    order = values.argsort(stable=True)
    ascending = values[order]
    first = torch.ones_like(ascending, dtype=torch.bool)
    first[1:] = ascending[1:] != ascending[:-1]
    return order[first]


def embed_source(
    model: PreTrainedModel,
    processor: HFClipProcessor,
    source: Source,
    options: EmbedOptions | None = None,
    *,
    pooled: bool = False,
) -> Embeddings:
    """Embeds every picture and all captions of a source, in one process, on the model's device.

    Args:
        pooled: also keep what the image tower gives before the projection.

    Raises:
        InputError: not one picture can be read; with `strict`, one cannot.
    """
    options = options or EmbedOptions()
    rows = split_rows(range(len(source)), options.batch_size)
    skipped: list[tuple[int, str, str]] = []

    def embedded() -> Iterator[EmbeddedBatch]:
        for batch, left_out in embed_batches(model, processor, source, rows, options, pooled=pooled):
            skipped.extend(left_out)
            if len(batch.rows):
                yield batch

    return with_labels(join_batches(embedded(), skipped), source)


def embed_batches(
    model: PreTrainedModel,
    processor: HFClipProcessor,
    source: Source,
    batches: Sequence[Sequence[int]],
    options: EmbedOptions,
    *,
    pooled: bool = False,
) -> Iterator[tuple[EmbeddedBatch, list[tuple[int, str, str]]]]:
    """For each batch of rows, in order: its embeddings, and (row, name, reason) of the pictures skipped.

    Raises:
        InputError: with `strict`, at the first picture that cannot be read.
    """
    from tqdm.auto import tqdm

    loader = torch.utils.data.DataLoader(
        CaptionedImages(source, processor.image_processor),
        batch_sampler=batches,  # type: ignore[arg-type]
        num_workers=options.num_workers,
        collate_fn=collator_of(model, processor),
    )
    model.eval()
    for batch in tqdm(loader, desc="embedding", disable=not options.progress, leave=False):
        skipped = batch.pop("skipped")
        if options.strict and skipped:
            raise broken_picture(*skipped[0])
        inputs = {name: value.to(model.device) for name, value in batch.items()}
        yield embed_batch(model, inputs, pooled=pooled), skipped


def collator_of(model: PreTrainedModel, processor: HFClipProcessor) -> HFClipCollator:
    """Pads and cuts captions as the processor does; 8-bit pixels stay as they are."""
    capacity = text_capacity(model.get_submodule("text_model"), processor.tokenizer)
    return HFClipCollator(processor, capacity or sys.maxsize, normalize=False)


def embed_images(model: PreTrainedModel, processor: HFClipProcessor, images: list[Image.Image]) -> Tensor:
    """(images, dim) unit vectors of PIL images, which are made 8-bit sRGB as in training; fp32, on the CPU, 64 at a
    time."""
    if len(images) > 64:
        return torch.cat([embed_images(model, processor, images[i : i + 64]) for i in range(0, len(images), 64)])
    pixels = torch.stack([processed_pixels(processor.image_processor, to_rgb(image)) for image in images])
    return _finite(embed_inputs(model.eval(), pixels.to(model.device))[0], "image")


class EmbeddedTexts(NamedTuple):
    """Texts, embedded.

    Args:
        embeds: (texts, dim), fp32, unit length; bit-equal where the tower reads the same tokens.
        ids: (texts,) int64, equal where the tower reads the same tokens.
        cut: (texts,) boolean, whether the end of the text was cut off.
    """

    embeds: Tensor
    ids: Tensor
    cut: Tensor


def embed_texts(model: PreTrainedModel, processor: HFClipProcessor, texts: list[str]) -> Tensor:
    """(texts, dim) unit vectors, fp32, on the CPU."""
    return embed_prompts(model, processor, texts).embeds


def embed_prompts(model: PreTrainedModel, processor: HFClipProcessor, texts: Sequence[str]) -> EmbeddedTexts:
    """Each row of tokens once (in another batch it would be rounded otherwise), 64 rows of like length at a time."""
    model.eval()
    if not texts:
        nothing = torch.zeros(0, dtype=torch.long)
        return EmbeddedTexts(torch.zeros(0, model.config.projection_dim), nothing, nothing.bool())
    collator = collator_of(model, processor)
    read = [collator.tokenize(list(part))[1:] for part in _parts_of(texts, 1000)]
    ids, lengths, cut = (torch.cat(column) for column in zip(*read, strict=True))
    _, firsts, places = np.unique(ids.numpy(), return_index=True, return_inverse=True)
    order = lengths.numpy()[firsts].argsort(kind="stable")
    parts = _parts_of([texts[first] for first in firsts[order]], 64)
    embeds = torch.cat([_embed_tokens(model, collator.tokenize(list(part)).tokens) for part in parts])
    return EmbeddedTexts(embeds[torch.from_numpy(order.argsort()[places])], ids, cut)


def _parts_of(values: Sequence[str], size: int) -> list[Sequence[str]]:
    return [values[start : start + size] for start in range(0, len(values), size)]


def _embed_tokens(model: PreTrainedModel, tokens: dict[str, Tensor]) -> Tensor:
    with torch.inference_mode():
        inputs = {name: value.to(model.device) for name, value in tokens.items()}
        return _finite(model(**inputs).text_embeds, "text")


def temperature_of(model: HFClipModel) -> tuple[Tensor, Tensor | None]:
    """(logit_scale, logit_bias), on the CPU."""
    bias = model.logit_bias
    return model.logit_scale.detach().cpu(), None if bias is None else bias.detach().cpu()


def max_caption_length(model: PreTrainedModel, processor: HFClipProcessor) -> int:
    """How many tokens a caption may have: as many as the processor, its tokenizer and the tower's positions allow."""
    return collator_of(model, processor).max_length
