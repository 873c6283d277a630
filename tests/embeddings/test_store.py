"""A folder of embeddings, opened: what it holds, by us and by others, and what is refused."""

import json
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
from conftest import tiny_model, write_pictures
from embedding_stores import CAPTIONS, labelled, seven_pictures, write_store

from hf_clip.core.digests import weights_digest
from hf_clip.core.errors import InputError
from hf_clip.data.sources import open_source
from hf_clip.embeddings import EmbeddingStore, open_embeddings
from hf_clip.embeddings.encode import embed_source
from hf_clip.embeddings.options import EmbedOptions
from hf_clip.embeddings.store import check_made_by


@pytest.fixture
def source(tmp_path):
    return seven_pictures(tmp_path / "data")


def rows_of(folder: Path) -> pd.DataFrame:
    return pd.concat(map(pd.read_parquet, sorted(folder.glob("segments/*/rows.parquet"))), ignore_index=True)


def test_pandas_numpy_and_datasets_read_it(source, processor, tmp_path):
    write_store(source, processor, tmp_path / "out")
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
    write_store(source, processor, tmp_path / "out")
    store, found = EmbeddingStore.open(tmp_path / "out"), open_embeddings(tmp_path / "out")
    assert (len(store), [len(segment) for segment in store], store.manifest.complete) == (3, [2, 3, 1], True)
    for name, embeds in {"vectors": found.image_embeds, "caption_vectors": found.text_embeds}.items():
        assert np.concatenate([segment.arrays[name] for segment in store]).tolist() == embeds.tolist()
    assert [segment.rows(["path"])["path"].to_pylist() for segment in store] == [
        ["0.png", "1.png"], ["3.png", "4.png", "5.png"], ["6.png"]
    ]  # fmt: skip


def test_pictures_alone_and_labels(processor, tmp_path):
    folder = write_pictures(tmp_path / "data", count=4)
    (folder / "metadata.jsonl").write_text("".join(f'{{"file_name": "{i}.png"}}\n' for i in range(4)))
    write_store(open_source(folder, captions_required=False), processor, tmp_path / "alone")
    alone = open_embeddings(tmp_path / "alone")
    assert (alone.image_embeds.shape, alone.text_embeds.shape) == ((4, 16), (0, 16))
    (folder / "metadata.jsonl").write_text(
        "".join(f'{{"file_name": "{i}.png", "kind": {i % 2}, "caption": "a"}}\n' for i in range(4))
    )
    write_store(open_source(folder, label_column="kind"), processor, tmp_path / "labelled")
    assert rows_of(tmp_path / "labelled")["label"].tolist() == [0, 1, 0, 1]


SEVERAL = [[], ["b"], ["a"], ["c", "a"], [], ["b"]]


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
    manifest = write_store(source, processor, tmp_path / "out")
    whole = embed_source(tiny_model(), processor, source, options=EmbedOptions(batch_size=2, progress=False))
    found = open_embeddings(tmp_path / "out")
    for embeddings in (whole, found):
        assert embeddings.labels.tolist() == expected
        assert embeddings.class_names == names
        assert embeddings.image_rows.tolist() == [0, 1, 3, 4, 5]
    assert found.labels.dtype == whole.labels.dtype
    assert manifest.class_names == names
    column = rows_of(tmp_path / "out")["label"].tolist()
    assert [list(label) if labels[0] == [] or isinstance(labels[0], list) else label for label in column] == [
        source.label_of(source.rows[row]) for row in (0, 1, 3, 4, 5)
    ]


def test_several_numbers_without_names_are_stored_but_are_no_classes(processor, tmp_path):
    source = labelled(tmp_path / "data", [[5, 0], [1], [2], [2], [3], [4]], CAPTIONS)
    write_store(source, processor, tmp_path / "out")
    assert rows_of(tmp_path / "out")["label"].tolist()[0].tolist() == [5, 0]
    assert (open_embeddings(tmp_path / "out").labels, open_embeddings(tmp_path / "out").class_names) == (None, None)


def test_ids_and_cuts_are_kept_and_an_older_format_is_refused(source, processor, tmp_path):
    file = source.folder / "metadata.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[0]["caption"] = ["Red a", "red a\n", "x" * 70]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_store(open_source(source.folder), processor, tmp_path / "out")
    embeddings = open_embeddings(tmp_path / "out")
    assert embeddings.caption_ids[0] == embeddings.caption_ids[1] != embeddings.caption_ids[2]
    assert embeddings.captions_cut.nonzero()[:, 0].tolist() == [2]
    assert not embeddings.captions_are_classes
    manifest = tmp_path / "out" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format": 3', '"format": 2'))
    with pytest.raises(InputError, match="out was embedded by an older hf_clip, in format 2: embed again"):
        open_embeddings(tmp_path / "out")
    said = manifest.read_text().replace('"format": 2', '"format": 3')
    manifest.write_text(said.replace('"kind": "embeddings"', '"kind": "index"'))
    with pytest.raises(InputError, match=r"manifest.json is no manifest of embeddings in format 3: give another"):
        open_embeddings(tmp_path / "out")


def test_another_models_embeddings_are_refused(source, processor, tmp_path):
    write_store(source, processor, tmp_path / "out")
    check_made_by(tiny_model(), tmp_path / "out")
    with pytest.raises(InputError, match=r"embedded by another model: mine, weights \w+, not \w+"):
        check_made_by(tiny_model(seed=1), tmp_path / "out")
    assert weights_digest(tiny_model(text_pooling="cls")) != weights_digest(tiny_model(text_pooling="mean"))
