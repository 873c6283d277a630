"""What embeddings are of: the manifest of a pass, with digests of the model, its preprocessing and the data."""

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from transformers import PreTrainedModel

from ..core.digests import digest_of, tokenizer_digest, weights_digest
from ..core.public import public_name
from ..core.version import __version__
from ..data.columns import is_bytes, struct_field
from ..data.sources import Source
from ..data.split import content_keys
from ..models.processing_hf_clip import HFClipProcessor
from .encode import collator_of
from .manifest import FORMAT, KIND, EmbeddedBy, EmbeddedData, EmbeddingManifest, Preprocessing


def describe(
    model: PreTrainedModel, processor: HFClipProcessor, source: Source, model_name: str, segment_size: int
) -> EmbeddingManifest:
    """The manifest of a pass that has not begun."""
    collator = collator_of(model, processor)
    return EmbeddingManifest(
        kind=KIND,
        format=FORMAT,
        hf_clip=__version__,
        model=EmbeddedBy(public_name(model_name), getattr(model.config, "_commit_hash", None), weights_digest(model)),
        preprocessing=Preprocessing(
            tokenizer=tokenizer_digest(collator.tokenizer),
            image_processor=json.loads(processor.image_processor.to_json_string()),
            max_caption_length=collator.max_length,
            padding=collator.padding,
        ),
        dimension=model.config.projection_dim,
        normalized=True,
        dtype="float16",
        data=EmbeddedData(public_name(source.name), _fingerprint(source)),
        class_names=source.class_names,
        captions_are_classes=not source.caption_column,
        rows=len(source),
        segment_size=segment_size,
    )


def data_facts(source: Source) -> dict[str, Any]:
    """What a figure over a source must say of it."""
    return {
        "name": public_name(source.name),
        "split": source.split or ("all rows" if source.row_numbers is None else "some rows"),
        "fingerprint": _fingerprint(source),
    }


def _fingerprint(source: Source) -> str:
    """BLAKE2b of captions, labels and pictures' names, and of the pictures' sizes, beginnings and ends."""
    return digest_of(_parts_of(source)).hex()


def _parts_of(source: Source) -> Iterator[Any]:
    yield content_keys(source)
    for batch in source.rows.with_format("arrow").iter(10_000):
        columns = [
            struct_field(column, "path") if name == source.image_column and pa.types.is_struct(column.type) else column
            for name, column in zip(batch.column_names, batch.columns, strict=True)
        ]
        yield from (json.dumps(c.to_pylist(), default=str).encode() for c in columns if not is_bytes(c.type))
