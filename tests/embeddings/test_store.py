"""A folder of embeddings: what it holds, what it keeps after a kill, and what it refuses."""

import json
import shutil
import time
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import tiny_model, write_pictures
from ready_processes import ready_context

from hf_clip.cli.main import main
from hf_clip.core.digests import weights_digest
from hf_clip.core.errors import InputError
from hf_clip.data.sources import open_source
from hf_clip.embeddings import EmbeddingStore, open_embeddings
from hf_clip.embeddings.encode import embed_source
from hf_clip.embeddings.store import check_made_by
from hf_clip.embeddings.writing import write_embeddings


@pytest.fixture
def source(tmp_path):
    folder = write_pictures(tmp_path / "data", count=7, captions_each=2)
    (folder / "2.png").write_bytes(b"")
    return open_source(folder)


def write(source, processor, folder, model=None, **settings):
    settings = {"segment_size": 3, "batch_size": 2, "progress": False, "model_name": "mine"} | settings
    return write_embeddings(tiny_model() if model is None else model, processor, source, folder, **settings)


def bits(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_what_is_opened_is_what_one_pass_gives(source, processor, tmp_path):
    manifest = write(source, processor, tmp_path / "out")
    whole = embed_source(tiny_model(), processor, source, batch_size=2, progress=False)
    found = open_embeddings(tmp_path / "out")
    torch.testing.assert_close(found.image_embeds, whole.image_embeds, atol=5e-4, rtol=0)
    torch.testing.assert_close(found.text_embeds, whole.text_embeds, atol=5e-4, rtol=0)
    for name in ("image_rows", "text_to_image", "image_ids", "caption_ids"):
        assert getattr(found, name).equal(getattr(whole, name)), name
    assert found.skipped == whole.skipped == [(2, "2.png", "the file is empty")]
    assert manifest["counts"] == {"images": 6, "captions": 12, "skipped": 1, "segments": 3}
    assert manifest == json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["complete"]


def test_rows_of_a_split_are_numbered_as_in_the_whole(processor, tmp_path):
    file = write_pictures(tmp_path / "data", count=7) / "metadata.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows = [row | {"split": ("train", "test")[i % 2], "label": f"kind {i}"} for i, row in enumerate(rows)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (file.parent / "4.png").write_bytes(b"")
    source = open_source(file.parent, split="train", label_column="label")  # rows 0, 2, 4, 6
    write(source, processor, tmp_path / "out")
    found = open_embeddings(tmp_path / "out")
    assert (found.image_rows.tolist(), [row for row, *_ in found.skipped]) == ([0, 2, 6], [4])
    assert [found.class_names[label] for label in found.labels] == ["kind 0", "kind 2", "kind 6"]
    before = bits(tmp_path / "out")
    segments = sorted((tmp_path / "out" / "segments").iterdir())
    shutil.rmtree(segments[1])
    write(source, processor, tmp_path / "out")
    assert bits(tmp_path / "out") == before


def test_the_manifest_says_what_made_it_and_not_where(source, processor, tmp_path):
    model = tiny_model()
    manifest = write(source, processor, tmp_path / "out", model, model_name=str(tmp_path / "secret" / "my_clip"))
    assert manifest["model"] == {"name": "my_clip", "revision": None, "digest": weights_digest(model)}
    assert manifest["data"]["name"] == "data"
    assert str(tmp_path) not in (tmp_path / "out" / "manifest.json").read_text()
    assert manifest["preprocessing"]["image_processor"]["size"] == {"shortest_edge": 32}
    assert (manifest["preprocessing"]["max_caption_length"], manifest["preprocessing"]["padding"]) == (64, "longest")
    assert (manifest["dimension"], manifest["dtype"], manifest["normalized"]) == (16, "float16", True)
    assert write(source, processor, tmp_path / "hub", model_name="me/clip")["model"]["name"] == "me/clip"


def rows_of(folder: Path) -> pd.DataFrame:
    return pd.concat(map(pd.read_parquet, sorted(folder.glob("segments/*/rows.parquet"))), ignore_index=True)


def test_pandas_numpy_and_datasets_read_it(source, processor, tmp_path):
    write(source, processor, tmp_path / "out")
    expected = ["id", "path", "caption", "image_id", "caption_ids", "captions_cut"]
    frame = rows_of(tmp_path / "out")
    assert list(frame.columns) == expected
    assert frame["id"].tolist() == [0, 1, 3, 4, 5, 6]
    assert frame["path"].tolist()[2] == "3.png"
    assert frame["caption"][2].tolist() == ["yellow d", "very yellow d"]
    files = str(tmp_path / "out" / "segments" / "*" / "rows.parquet")
    rows = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert rows.column_names == expected
    found, second = open_embeddings(tmp_path / "out"), tmp_path / "out" / "segments" / "rows-000000003-000000006"
    vectors, captions = (np.load(second / f"{name}.npy", mmap_mode="r") for name in ("vectors", "caption_vectors"))
    assert (vectors.dtype, vectors.shape, captions.dtype, captions.shape) == ("f2", (3, 16), "f2", (6, 16))
    assert vectors[0].tolist() == found.image_embeds[2].tolist()
    assert captions[2:4].tolist() == found.text_embeds[6:8].tolist()


def test_a_store_is_read_segment_by_segment(source, processor, tmp_path):
    write(source, processor, tmp_path / "out")
    store, found = EmbeddingStore.open(tmp_path / "out"), open_embeddings(tmp_path / "out")
    assert (len(store), [len(segment) for segment in store], store.manifest["complete"]) == (3, [2, 3, 1], True)
    for name, embeds in {"vectors": found.image_embeds, "caption_vectors": found.text_embeds}.items():
        assert np.concatenate([segment.arrays[name] for segment in store]).tolist() == embeds.tolist()
    assert [segment.rows(["path"])["path"].to_pylist() for segment in store] == [
        ["0.png", "1.png"], ["3.png", "4.png", "5.png"], ["6.png"]
    ]  # fmt: skip


def test_pictures_alone_and_labels(processor, tmp_path):
    folder = write_pictures(tmp_path / "data", count=4)
    (folder / "metadata.jsonl").write_text("".join(f'{{"file_name": "{i}.png"}}\n' for i in range(4)))
    write(open_source(folder, captions_required=False), processor, tmp_path / "alone")
    alone = open_embeddings(tmp_path / "alone")
    assert (alone.image_embeds.shape, alone.text_embeds.shape) == ((4, 16), (0, 16))
    (folder / "metadata.jsonl").write_text(
        "".join(f'{{"file_name": "{i}.png", "kind": {i % 2}, "caption": "a"}}\n' for i in range(4))
    )
    write(open_source(folder, label_column="kind"), processor, tmp_path / "labelled")
    assert rows_of(tmp_path / "labelled")["label"].tolist() == [0, 1, 0, 1]


def labelled(folder, labels: list, captions: list | None = None, **settings):
    """Six pictures, the third broken, and labels of any kind."""
    write_pictures(folder, count=6)
    (folder / "2.png").write_bytes(b"")
    rows = {"image": [str(folder / f"{i}.png") for i in range(6)], "kind": labels}
    rows |= {"caption": captions} if captions else {}
    datasets.Dataset.from_dict(rows).to_parquet(folder / "a.parquet")
    return open_source(folder / "a.parquet", label_column="kind", **settings)


SEVERAL = [[], ["b"], ["a"], ["c", "a"], [], ["b"]]
CAPTIONS = list("uvwxyz")


@pytest.mark.parametrize(
    ("labels", "captions", "class_names", "expected", "names"),
    [
        ([4, 0, 1, 1, 2, 0], CAPTIONS, None, [4, 0, 1, 2, 0], None),
        ([1, 0, 1, 1, 2, 0], None, list("abc"), [1, 0, 1, 2, 0], list("abc")),
        (list("babcca"), None, None, [1, 0, 2, 2, 0], list("abc")),
        (list("babcca"), CAPTIONS, list("cba"), [1, 2, 0, 0, 2], list("cba")),
        (SEVERAL, CAPTIONS, None, [[0, 0, 0], [0, 1, 0], [1, 0, 1], [0, 0, 0], [0, 1, 0]], list("abc")),
        ([[0], [1], [2], [2, 0], [], [1]], CAPTIONS, list("abc"),
         [[1, 0, 0], [0, 1, 0], [1, 0, 1], [0, 0, 0], [0, 1, 0]], list("abc")),
    ],
)  # fmt: skip
def test_labels_are_given_back_as_one_pass_gives_them(
    labels, captions, class_names, expected, names, processor, tmp_path
):
    source = labelled(tmp_path / "data", labels, captions, class_names=class_names)
    manifest = write(source, processor, tmp_path / "out")
    whole = embed_source(tiny_model(), processor, source, batch_size=2, progress=False)
    found = open_embeddings(tmp_path / "out")
    for embeddings in (whole, found):
        assert embeddings.labels.tolist() == expected
        assert embeddings.class_names == names
        assert embeddings.image_rows.tolist() == [0, 1, 3, 4, 5]
    assert found.labels.dtype == whole.labels.dtype
    assert manifest["class_names"] == names
    column = rows_of(tmp_path / "out")["label"].tolist()
    assert [list(label) if labels[0] == [] or isinstance(labels[0], list) else label for label in column] == [
        source.label_of(source.rows[row]) for row in (0, 1, 3, 4, 5)
    ]


def test_several_numbers_without_names_are_stored_but_are_no_classes(processor, tmp_path):
    source = labelled(tmp_path / "data", [[5, 0], [1], [2], [2], [3], [4]], CAPTIONS)
    write(source, processor, tmp_path / "out")
    assert rows_of(tmp_path / "out")["label"].tolist()[0].tolist() == [5, 0]
    assert (open_embeddings(tmp_path / "out").labels, open_embeddings(tmp_path / "out").class_names) == (None, None)


def test_other_names_for_the_classes_are_not_mixed_in(processor, tmp_path):
    # Segments hold numbers: of the same pictures and words, another order makes others of them.
    labels = list("babcca")
    write(labelled(tmp_path / "data", labels, CAPTIONS, class_names=list("abc")), processor, tmp_path / "out")
    before = bits(tmp_path / "out")
    with pytest.raises(
        InputError, match=r"begun with class_names \['a', 'b', 'c'\], not \['c', 'b', 'a'\]: give the same"
    ):
        write(labelled(tmp_path / "data", labels, CAPTIONS, class_names=list("cba")), processor, tmp_path / "out")
    assert bits(tmp_path / "out") == before


def test_only_what_is_missing_or_damaged_is_computed_again(source, processor, tmp_path):
    write(source, processor, tmp_path / "uncut")
    write(source, processor, tmp_path / "out")
    first, second, third = sorted((tmp_path / "out" / "segments").iterdir())
    rows, vectors = second / "rows.parquet", third / "vectors.npy"
    rows.write_bytes(rows.read_bytes()[:-10])
    vectors.write_bytes(vectors.read_bytes()[:-1] + b"\0")
    with pytest.raises(InputError, match=r"rows-000000003-000000006 is damaged \(.*\): embed again"):
        open_embeddings(tmp_path / "out")
    kept = first.stat().st_ino
    model, seen = tiny_model(), []
    model.register_forward_pre_hook(lambda *call: seen.append(len(call[2]["pixel_values"])), with_kwargs=True)
    write(source, processor, tmp_path / "out", model)
    assert seen == [2, 1, 1], "rows 3 to 5 and row 6"
    assert first.stat().st_ino == kept
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
    write(source, processor, tmp_path / "out")
    before = bits(tmp_path / "out")
    settings = change(source, processor)
    with pytest.raises(InputError, match=message + ".*give the same settings to go on, or another folder"):
        write(settings.pop("source", source), processor, tmp_path / "out", **settings)
    assert bits(tmp_path / "out") == before


def test_a_folder_with_other_things_is_left_alone(source, processor, tmp_path):
    with pytest.raises(InputError, match="is not empty and holds no embeddings"):
        write(source, processor, source.folder)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="file cannot be written: Not a directory"):
        write(source, processor, tmp_path / "file")
    with pytest.raises(InputError, match=r"manifest.json cannot be read"):
        open_embeddings(tmp_path / "nowhere")


def test_ids_and_cuts_are_kept_and_an_older_format_is_refused(source, processor, tmp_path):
    file = source.folder / "metadata.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[0]["caption"] = ["Red a", "red a\n", "x" * 70]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    write(open_source(source.folder), processor, tmp_path / "out")
    embeddings = open_embeddings(tmp_path / "out")
    assert embeddings.caption_ids[0] == embeddings.caption_ids[1] != embeddings.caption_ids[2]
    assert embeddings.captions_cut.nonzero()[:, 0].tolist() == [2]
    assert not embeddings.captions_are_classes
    manifest = tmp_path / "out" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format": 3', '"format": 2'))
    with pytest.raises(InputError, match="out was embedded by an older hf_clip, in format 2: embed again"):
        open_embeddings(tmp_path / "out")
    manifest.write_text(manifest.read_text().replace('"kind": "embeddings"', '"kind": "index"').replace(": 2", ": 3"))
    with pytest.raises(InputError, match=r"manifest.json is no manifest of embeddings in format 3: give another"):
        open_embeddings(tmp_path / "out")


def test_another_models_embeddings_are_refused(source, processor, tmp_path):
    write(source, processor, tmp_path / "out")
    check_made_by(tiny_model(), tmp_path / "out")
    with pytest.raises(InputError, match=r"embedded by another model than --model: mine, weights \w+, not \w+"):
        check_made_by(tiny_model(seed=1), tmp_path / "out")
    assert weights_digest(tiny_model(text_pooling="cls")) != weights_digest(tiny_model(text_pooling="mean"))


def test_not_one_readable_picture(source, processor, tmp_path):
    for file in source.folder.glob("*.png"):
        file.write_bytes(b"")
    with pytest.raises(InputError, match=r"not one picture could be read; the first: 0.png, the file is empty"):
        write(source, processor, tmp_path / "out")


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
    left = {file: file.stat().st_ino for file in segments.glob("rows*")}
    assert 2 <= len(left) < 60
    with pytest.raises(InputError, match="is not finished: run the same `hf-clip embed` again"):
        open_embeddings(tmp_path / "cut")
    half = segments / ".staging" / "rows-000000059-000000060"
    half.mkdir(parents=True, exist_ok=True)
    (half / "vectors.npy").write_bytes(b"half")
    for name in ("cut", "uncut"):
        assert main([*command, str(tmp_path / name)]) == 0
    assert {file: file.stat().st_ino for file in left} == left
    assert bits(tmp_path / "cut") == bits(tmp_path / "uncut")
