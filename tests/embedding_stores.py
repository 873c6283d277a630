"""Small folders of embeddings, and what they are made of."""

from pathlib import Path

import datasets
from conftest import tiny_model, write_pictures

from hf_clip.data.sources import Source, open_source
from hf_clip.embeddings.options import EmbedOptions
from hf_clip.embeddings.writing import write_embeddings

CAPTIONS = list("uvwxyz")


def seven_pictures(folder: Path) -> Source:
    """Of two captions each; the third cannot be read."""
    folder = write_pictures(folder, count=7, captions_each=2)
    (folder / "2.png").write_bytes(b"")
    return open_source(folder)


def write_store(source, processor, folder, model=None, **settings):
    where = {"segment_size": 3, "model_name": "mine"}
    where |= {name: settings.pop(name) for name in where if name in settings}
    options = EmbedOptions(**{"batch_size": 2, "progress": False} | settings)
    return write_embeddings(tiny_model() if model is None else model, processor, source, folder, options, **where)


def bits(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def labelled(folder, labels: list, captions: list | None = None, **settings):
    """Six pictures, the third broken, and labels of any kind."""
    write_pictures(folder, count=6)
    (folder / "2.png").write_bytes(b"")
    rows = {"image": [str(folder / f"{i}.png") for i in range(6)], "kind": labels}
    rows |= {"caption": captions} if captions else {}
    datasets.Dataset.from_dict(rows).to_parquet(folder / "a.parquet")
    return open_source(folder / "a.parquet", label_column="kind", **settings)
