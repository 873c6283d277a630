"""Embedding into a folder: what is kept after a kill, and what is not mixed in."""

import json
import shutil
import time

import pytest
import torch
from conftest import tiny_model, write_pictures
from embedding_stores import CAPTIONS, bits, labelled, seven_pictures, write_store
from ready_processes import ready_context

from hf_clip.cli.main import main
from hf_clip.core.errors import InputError
from hf_clip.data.sources import open_source
from hf_clip.embeddings import open_embeddings
from hf_clip.embeddings.encode import embed_source
from hf_clip.embeddings.manifest import Counts
from hf_clip.embeddings.options import EmbedOptions


@pytest.fixture
def source(tmp_path):
    return seven_pictures(tmp_path / "data")


def test_what_is_opened_is_what_one_pass_gives(source, processor, tmp_path):
    manifest = write_store(source, processor, tmp_path / "out")
    whole = embed_source(tiny_model(), processor, source, options=EmbedOptions(batch_size=2, progress=False))
    found = open_embeddings(tmp_path / "out")
    torch.testing.assert_close(found.image_embeds, whole.image_embeds, atol=5e-4, rtol=0)
    torch.testing.assert_close(found.text_embeds, whole.text_embeds, atol=5e-4, rtol=0)
    for name in ("image_rows", "text_to_image", "image_ids", "caption_ids"):
        assert getattr(found, name).equal(getattr(whole, name)), name
    assert found.skipped == whole.skipped == [(2, "2.png", "the file is empty")]
    assert manifest.counts == Counts(images=6, captions=12, skipped=1, segments=3)
    assert manifest.to_json() == json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest.complete


def test_rows_of_a_split_are_numbered_as_in_the_whole(processor, tmp_path):
    file = write_pictures(tmp_path / "data", count=7) / "metadata.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows = [row | {"split": ("train", "test")[i % 2], "label": f"kind {i}"} for i, row in enumerate(rows)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (file.parent / "4.png").write_bytes(b"")
    source = open_source(file.parent, split="train", label_column="label")  # rows 0, 2, 4, 6
    write_store(source, processor, tmp_path / "out")
    found = open_embeddings(tmp_path / "out")
    assert (found.image_rows.tolist(), [row for row, *_ in found.skipped]) == ([0, 2, 6], [4])
    assert [found.class_names[label] for label in found.labels] == ["kind 0", "kind 2", "kind 6"]
    before = bits(tmp_path / "out")
    segments = sorted((tmp_path / "out" / "segments").iterdir())
    shutil.rmtree(segments[1])
    write_store(source, processor, tmp_path / "out")
    assert bits(tmp_path / "out") == before


def test_other_names_for_the_classes_are_not_mixed_in(processor, tmp_path):
    # Segments hold numbers: of the same pictures and words, another order makes others of them.
    labels = list("babcca")
    write_store(labelled(tmp_path / "data", labels, CAPTIONS, class_names=list("abc")), processor, tmp_path / "out")
    before = bits(tmp_path / "out")
    with pytest.raises(
        InputError, match=r"begun with class_names \['a', 'b', 'c'\], not \['c', 'b', 'a'\]: give the same"
    ):
        write_store(
            labelled(tmp_path / "data", labels, CAPTIONS, class_names=list("cba")), processor, tmp_path / "out"
        )
    assert bits(tmp_path / "out") == before


def test_only_what_is_missing_or_damaged_is_computed_again(source, processor, tmp_path):
    write_store(source, processor, tmp_path / "uncut")
    write_store(source, processor, tmp_path / "out")
    first, second, third = sorted((tmp_path / "out" / "segments").iterdir())
    rows, vectors = second / "rows.parquet", third / "vectors.npy"
    vectors.write_bytes(vectors.read_bytes()[:-1] + b"\0")
    with pytest.raises(InputError, match=r"rows-000000006-000000007 is damaged \(vectors.npy is not what was"):
        open_embeddings(tmp_path / "out")
    rows.write_bytes(rows.read_bytes()[:-10])
    with pytest.raises(InputError, match=r"rows-000000003-000000006 is damaged \(.*\): embed again"):
        open_embeddings(tmp_path / "out")
    kept = first.stat().st_mtime_ns
    model, seen = tiny_model(), []
    model.register_forward_pre_hook(lambda *call: seen.append(len(call[2]["pixel_values"])), with_kwargs=True)
    write_store(source, processor, tmp_path / "out", model)
    assert seen == [2, 1, 1], "rows 3 to 5 and row 6"
    assert first.stat().st_mtime_ns == kept
    assert bits(tmp_path / "out") == bits(tmp_path / "uncut")


def changed_model():
    model = tiny_model()
    with torch.no_grad():
        model.text_projection.weight[0, 0] += 1e-3
    return model


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda source, processor: {"model": changed_model()}, r"begun with model.digest '\w+', not '\w+'"),
        (lambda source, processor: {"model_name": "yours"}, "begun with model.name 'mine', not 'yours'"),
        (lambda source, processor: {"segment_size": 4}, "begun with segment_size 3, not 4"),
        (lambda source, processor: processor.tokenizer.backend_tokenizer.__setattr__("normalizer", None) or {},
         r"begun with preprocessing.tokenizer '\w+', not '\w+'"),
        (lambda source, processor: processor.tokenizer.__setattr__("model_max_length", 9) or {},
         "begun with preprocessing.max_caption_length 64, not 9"),
        (lambda source, processor: setattr(processor.image_processor, "image_mean", [0.0, 0.0, 0.0]) or {},
         r"begun with preprocessing.image_processor.image_mean \[0.485"),
        (lambda source, processor: {"source": open_source(write_pictures(source.folder, count=7))},
         r"begun with data.fingerprint '\w+', not '\w+'"),
    ],
)  # fmt: skip
def test_another_pass_is_not_mixed_in(change, message, source, processor, tmp_path):
    write_store(source, processor, tmp_path / "out")
    before = bits(tmp_path / "out")
    settings = change(source, processor)
    with pytest.raises(InputError, match=message + ".*give the same settings to go on, or another folder"):
        write_store(settings.pop("source", source), processor, tmp_path / "out", **settings)
    assert bits(tmp_path / "out") == before


def test_a_folder_with_other_things_is_left_alone(source, processor, tmp_path):
    with pytest.raises(InputError, match="is not empty and holds no embeddings"):
        write_store(source, processor, source.folder)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="file cannot be written: Not a directory"):
        write_store(source, processor, tmp_path / "file")
    with pytest.raises(InputError, match=r"manifest.json cannot be read"):
        open_embeddings(tmp_path / "nowhere")


def test_not_one_readable_picture(source, processor, tmp_path):
    for file in source.folder.glob("*.png"):
        file.write_bytes(b"")
    with pytest.raises(InputError, match=r"not one picture could be read; the first: 0.png, the file is empty"):
        write_store(source, processor, tmp_path / "out")


def test_a_killed_process_is_gone_on_from(processor, tmp_path, one_thread):
    """SIGKILL after the first segments; the rest is computed, and the bits are those of an uncut pass."""
    data = write_pictures(tmp_path / "data", count=60)
    tiny_model().save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    command = ["embed", "--model", str(tmp_path / "model"), "--data", str(data), "--segment_size", "1", "--output"]
    process = ready_context().Process(target=main, args=([*command, str(tmp_path / "cut")],))
    process.start()
    segments, deadline = tmp_path / "cut" / "segments", time.monotonic() + 120
    while process.is_alive() and len(list(segments.glob("rows*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.002)
    process.kill()
    process.join()
    # Not by its inode: a folder that is removed and made anew may have the same.
    left = {file: file.stat().st_mtime_ns for file in segments.glob("rows*")}
    assert 2 <= len(left) < 60
    with pytest.raises(InputError, match="is not finished: run the same `hf-clip embed` again"):
        open_embeddings(tmp_path / "cut")
    half = segments / ".staging" / "rows-000000059-000000060"
    half.mkdir(parents=True, exist_ok=True)
    (half / "vectors.npy").write_bytes(b"half")
    for name in ("cut", "uncut"):
        assert main([*command, str(tmp_path / name)]) == 0
    assert {file: file.stat().st_mtime_ns for file in left} == left
    assert bits(tmp_path / "cut") == bits(tmp_path / "uncut")
