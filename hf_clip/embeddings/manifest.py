"""What a folder of embeddings says of the pass that made it: `manifest.json`."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub.dataclasses import strict

from ..core.digests import digest_of
from ..core.errors import InputError
from ..core.json_files import mapping, read_value
from ..core.records import Record, check_at_least

MANIFEST = "manifest.json"
KIND = "embeddings"
FORMAT = 3  # 1 had digests of the captions' letters, 2 the vectors within parquet files
# What a resumed pass must have in common with the one before it.
SAME = ("format", "model", "preprocessing", "dimension", "data", "class_names", "rows", "segment_size")


@strict
@dataclass
class EmbeddedBy(Record):
    """The model; `revision` is the Hub's commit, where it was opened from there."""

    name: str
    revision: str | None
    digest: str


@strict
@dataclass
class Preprocessing(Record):
    """What was done to captions and images; `tokenizer` is a digest."""

    tokenizer: str
    image_processor: dict[str, object]
    max_caption_length: int
    padding: str


@strict
@dataclass
class EmbeddedData(Record):
    name: str
    fingerprint: str


@strict
@dataclass
class Counts(Record):
    images: int
    captions: int
    skipped: int
    segments: int


@strict
@dataclass
class EmbeddingManifest(Record):
    """
    Args:
        format: of the segments beside it.
        class_names: where the source names its classes.
        captions_are_classes: whether the captions were made of these.
        rows: of the source; `segment_size` of them stand in each segment but the last.
        complete: whether all segments are there; then `counts` and `skipped`, (row, name, reason), say what they hold.
    """

    version = 1

    kind: str
    format: int
    hf_clip: str
    model: EmbeddedBy
    preprocessing: Preprocessing
    dimension: int
    normalized: bool
    dtype: str
    data: EmbeddedData
    class_names: list[str] | None
    captions_are_classes: bool
    rows: int
    segment_size: int
    complete: bool = False
    counts: Counts | None = None
    skipped: list[tuple[int, str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_at_least(self, dimension=1, rows=0, segment_size=1)

    @property
    def origin(self) -> str:
        """What the segments of the pass are known by."""
        said = self.to_json()
        return digest_of([json.dumps([said[name] for name in SAME], sort_keys=True).encode()]).hex()


def read_manifest(folder: Path) -> EmbeddingManifest:
    """
    Raises:
        InputError: it is missing, an older format's, or no manifest of embeddings.
    """
    file = folder / MANIFEST
    try:
        value = read_value(file)
    except (OSError, InputError) as error:
        raise InputError(f"{file} cannot be read ({error}): embed again") from error
    said = mapping(value)
    if "dimension" in said and said.get("format") in range(1, FORMAT):
        raise InputError(f"{folder} was embedded by an older hf_clip, in format {said['format']}: embed again")
    if (said.get("kind"), said.get("format")) != (KIND, FORMAT):
        raise InputError(f"{file} is no manifest of embeddings in format {FORMAT}: give another folder")
    return EmbeddingManifest.from_json(value, str(file))
