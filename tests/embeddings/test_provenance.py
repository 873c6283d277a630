"""What a manifest says of a pass."""

import pytest
from conftest import tiny_model
from embedding_stores import seven_pictures, write_store

from hf_clip.core.digests import weights_digest
from hf_clip.embeddings.manifest import EmbeddedBy


@pytest.fixture
def source(tmp_path):
    return seven_pictures(tmp_path / "data")


def test_the_manifest_says_what_made_it_and_not_where(source, processor, tmp_path):
    model = tiny_model()
    manifest = write_store(source, processor, tmp_path / "out", model, model_name=str(tmp_path / "secret" / "my_clip"))
    assert manifest.model == EmbeddedBy("my_clip", None, weights_digest(model))
    assert manifest.data.name == "data"
    assert str(tmp_path) not in (tmp_path / "out" / "manifest.json").read_text()
    assert manifest.preprocessing.image_processor["size"] == {"shortest_edge": 32}
    assert (manifest.preprocessing.max_caption_length, manifest.preprocessing.padding) == (64, "longest")
    assert (manifest.dimension, manifest.dtype, manifest.normalized) == (16, "float16", True)
    assert write_store(source, processor, tmp_path / "hub", model_name="me/clip").model.name == "me/clip"
