"""Retrieval language by language: the same pictures, each language's captions by themselves."""

from collections.abc import Mapping
from dataclasses import replace

import torch

from ...core.errors import InputError
from ...data.sources import Source
from ...embeddings.encode import Embeddings, embed_prompts, embed_source
from ...embeddings.options import EmbedOptions
from ...models.modeling_hf_clip import HFClipModel
from ...models.processing_hf_clip import HFClipProcessor
from ..outcome import Outcome
from .retrieval import Retrieval
from .task import Given, Protocol, Task


def evaluate_languages(
    model: HFClipModel,
    processor: HFClipProcessor,
    sources: Mapping[str, Source],
    protocol: Protocol | None = None,
    options: EmbedOptions | None = None,
    task: Task | None = None,
) -> dict[str, Outcome]:
    """What a task says of each language, the pictures being embedded once.

    A language is asked among the pictures that have a caption in it: where some lack one, its figures stand beside a
    chance of their own, and a note says how many were left out.

    Args:
        sources: by language; row i is the same picture in each, such as one folder opened with the caption columns
            `captions.en`, `captions.zh`, …, and with `captions_required=False` where some rows lack a caption.
        protocol: how it is measured.
        options: how images are embedded.
        task: default: retrieval.

    Returns:
        Of each language what the task gives; details: also "skipped", (row, name, reason) of the pictures that could
        not be read.

    Raises:
        InputError: no source; sources of unequal length; a language without one caption; no picture can be read; with
            `strict`, one cannot; a figure that is no finite number.
    """
    _check_lengths(sources)
    first = next(iter(sources.values()))
    bare = replace(first, caption_column=None, label_column=None, captions_required=False)
    pictures = embed_source(model, processor, bare, options)
    task, protocol, outcomes = task or Retrieval(), protocol or Protocol(), {}
    for language, source in sources.items():
        embeddings = _with_captions(model, processor, pictures, source, language)
        given = Given(model, processor, embeddings, protocol)
        outcome = outcomes[language] = task.measure(given).checked(task.name)
        outcome.protocol["language"] = language
        outcome.details["skipped"] = pictures.skipped
        if lacking := len(pictures.image_rows) - len(embeddings.image_rows):
            outcome.notes.append(f"{lacking} pictures have no caption in {language!r}: they are left out")
    return outcomes


def _check_lengths(sources: Mapping[str, Source]) -> None:
    if not sources:
        raise InputError("no languages: give a source for each")
    (first, expected), *others = ((language, len(source)) for language, source in sources.items())
    for language, rows in others:
        if rows != expected:
            raise InputError(
                f"{language!r} has {rows} rows and {first!r} {expected}: give sources of the same pictures, row by row"
            )


def _with_captions(
    model: HFClipModel, processor: HFClipProcessor, pictures: Embeddings, source: Source, language: str
) -> Embeddings:
    """The pictures that have captions in a language, and these."""
    records = source.rows.remove_columns(source.image_column).select(pictures.image_rows.tolist())
    captions = [source.captions_of(record) for record in records]
    counts = torch.tensor([len(each) for each in captions])
    texts = [caption for each in captions for caption in each]
    if not texts:
        raise InputError(f"{source.name} has no caption in {language!r}: leave the language out")
    read, has = embed_prompts(model, processor, texts), counts > 0
    return replace(
        pictures,
        image_embeds=pictures.image_embeds[has],
        text_embeds=read.embeds,
        image_rows=pictures.image_rows[has],
        text_to_image=torch.arange(int(has.sum())).repeat_interleave(counts[has]),
        image_ids=pictures.image_ids[has],
        caption_ids=read.ids,
        captions_cut=read.cut,
    )
