"""`hf_clip.embed` as a Python caller has it: in memory, into a folder, and by the command the same."""

import pytest
from conftest import tiny_model
from embedding_stores import bits

import hf_clip
from hf_clip.cli.main import main
from hf_clip.core.errors import InputError
from hf_clip.data.sources import open_source
from hf_clip.embeddings import EmbeddingStore, open_embeddings

OPTIONS = hf_clip.EmbedOptions(batch_size=4, progress=False)


def test_in_memory_and_in_a_folder_it_is_what_the_command_writes(model_folder, pictures, processor, tmp_path, capsys):
    store = hf_clip.embed(model_folder, pictures, tmp_path / "store", options=OPTIONS, segment_size=3)
    assert capsys.readouterr().out == ""
    assert isinstance(store, EmbeddingStore)
    assert store.manifest.counts.images == 8
    arguments = ["--data", str(pictures), "--output", str(tmp_path / "by_command"), "--segment_size", "3"]
    assert main(["embed", "--model", str(model_folder), *arguments, "--batch_size", "4"]) == 0
    assert bits(tmp_path / "store") == bits(tmp_path / "by_command")
    in_memory = hf_clip.embed((tiny_model(), processor), open_source(pictures), options=OPTIONS)
    kept = open_embeddings(tmp_path / "store")
    assert in_memory.image_embeds.half().equal(kept.image_embeds.half())
    assert in_memory.text_embeds.half().equal(kept.text_embeds.half())


def test_images_alone_have_no_text_embeddings(model_folder, pictures):
    (pictures / "metadata.jsonl").unlink()
    embeddings = hf_clip.embed(model_folder, pictures, options=OPTIONS)
    assert (len(embeddings.image_embeds), len(embeddings.text_embeds)) == (8, 0)


def test_what_cannot_be_is_one_line(pictures, processor, tmp_path):
    model = (tiny_model(), processor)
    for settings, message in (
        ({"segment_size": 0}, "segment_size must be 1 or more, not 0"),
        ({"num_processes": 2}, "num_processes is for writing a folder"),
        ({"segment_size": 3}, "segment_size is for writing a folder"),
        ({"segment_size": 2.5}, "segment_size is 2.5: give a whole number"),
        ({"output": tmp_path / "out", "num_processes": 2}, "several processes open the model anew: give its folder"),
        ({"output": pictures}, "is not empty and holds no embeddings"),
    ):
        with pytest.raises(InputError, match=message):
            hf_clip.embed(model, open_source(pictures), options=OPTIONS, **settings)
    with pytest.raises(InputError, match="no data at 'nowhere'"):
        hf_clip.embed(model, "nowhere")
    assert not (tmp_path / "out").exists()
