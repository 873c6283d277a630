"""A folder of embeddings, opened: its manifest, and segments of rows with vectors that are mapped, not read.

`manifest.json` says what made them. A segment (`core.segments`) has one row an image: id (its row in what the user
gave, as in `skipped`), path, caption (list), image_id (digest of the content), caption_ids (digests of the tokens),
captions_cut, and the label where the source has one. `vectors.npy` has the images' vectors, (rows, dimension), and
`caption_vectors.npy` the captions', (captions, dimension), in the order of the rows: fp16, unit length.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from transformers import PreTrainedModel

from ..core.digests import weights_digest
from ..core.errors import InputError
from ..core.segments import SegmentStore
from ..data.columns import label_numbers
from .encode import Embeddings
from .manifest import EmbeddingManifest, read_manifest

CAPTION_VECTORS = "caption_vectors"


class EmbeddingStore(SegmentStore):
    """The embeddings of a folder that `hf-clip embed` wrote; iterating opens one `Segment` after another.

        for segment in EmbeddingStore.open("embeddings"):
            segment.vectors                     # (rows, dimension) fp16, mapped: what is not looked at is not read
            segment.arrays["caption_vectors"]   # (captions, dimension)
            segment.rows(["path", "caption"])   # a pyarrow.Table, row i of which vector i is of

    Attributes:
        manifest: what `manifest.json` holds.
    """

    def __init__(self, folder: Path, manifest: EmbeddingManifest):
        super().__init__(folder, manifest.rows, manifest.segment_size, manifest.origin)
        self.manifest = manifest

    @classmethod
    def open(cls, folder: str | Path) -> "EmbeddingStore":
        """
        Raises:
            InputError: no such folder, or not finished. A segment that is damaged, or a part of something else, is
                refused when its turn comes; what the disk has spoilt within it is found by its `check`.
        """
        folder = Path(folder)
        manifest = read_manifest(folder)
        if not manifest.complete:
            raise InputError(f"{folder} is not finished: run the same `hf-clip embed` again, and it goes on")
        return cls(folder, manifest)


def open_embeddings(folder: str | Path) -> Embeddings:
    """What `write_embeddings` left, read and checked, as fp32; unit length as far as float16 holds it.

    `image_rows` are the rows in what was given: of a split, its rows in the whole.

    Raises:
        InputError: no such folder, not finished, or a damaged segment.
    """
    store = EmbeddingStore.open(folder)
    segments = [segment.check() for segment in store]
    table = pa.concat_tables([segment.rows() for segment in segments]).combine_chunks()
    counts = torch.from_numpy(pc.list_value_length(table["caption"]).to_numpy().astype("int64"))
    return Embeddings(
        image_embeds=_floats(segment.vectors for segment in segments),
        text_embeds=_floats(segment.arrays[CAPTION_VECTORS] for segment in segments),
        image_rows=_integers(table["id"]),
        text_to_image=torch.arange(len(table)).repeat_interleave(counts),
        image_ids=_integers(table["image_id"]),
        caption_ids=_integers(pc.list_flatten(table["caption_ids"])),
        captions_cut=torch.tensor(pc.list_flatten(table["captions_cut"]).to_pylist(), dtype=torch.bool),
        captions_are_classes=store.manifest.captions_are_classes,
        skipped=store.manifest.skipped,
        **_labels_of(table, store.manifest.class_names),
    )


def _floats(parts: Iterable[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(list(parts), dtype=np.float32))


def _integers(column: Any) -> torch.Tensor:
    return torch.from_numpy(column.to_numpy().astype("int64"))


def _labels_of(table: pa.Table, names: list[str] | None) -> dict[str, Any]:
    """The fields of `Embeddings` about labels, of a store that has them."""
    if "label" not in table.column_names or not (names or pa.types.is_integer(table.schema.field("label").type)):
        return {}
    labels = label_numbers(table["label"], names)
    return {"labels": torch.from_numpy(labels), "class_names": names}


def check_made_by(model: PreTrainedModel, folder: str | Path) -> None:
    """
    Raises:
        InputError: another model's embeddings are in the folder.
    """
    made_by, asked = read_manifest(Path(folder)).model, weights_digest(model)
    if made_by.digest != asked:
        raise InputError(
            f"{folder} was embedded by another model: {made_by.name}, weights {made_by.digest}, "
            f"not {asked}: give that model, or embed again"
        )
