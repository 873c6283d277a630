"""Which split each row of one table is of, also where the table is a stream."""

import json

import datasets
import pandas as pd
import pytest
from conftest import write_pictures

from hf_clip.core.errors import InputError
from hf_clip.data import row_splits
from hf_clip.data.named_splits import EVALUATION
from hf_clip.data.sources import open_source

STREAMING = pytest.mark.parametrize("streaming", [False, True])


def captions(name, **options) -> list[str]:
    source = open_source(name, **options)
    if not source.streaming:
        return [source.captions(row)[0] for row in range(len(source))]
    shards = range(source.rows.num_shards)
    return [source.captions_of(record)[0] for shard in shards for record in source.read_shard(shard)]


def table(folder, paths, splits=None):
    file = folder / "metadata.jsonl"
    rows = [{"file_name": path, "caption": path} for path in paths]
    if splits:
        rows = [row | {"split": split, "caption": split} for row, split in zip(rows, splits, strict=True)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


KARPATHY = ["restval", "train", "test", " test", "train", "restval", "val"]


@STREAMING
def test_a_split_that_datasets_does_not_know_comes_first(streaming, tmp_path):
    file = table(tmp_path, [f"{i}.png" for i in range(7)], KARPATHY)
    for split, found in {"train": ["train"] * 2, "restval": ["restval"] * 2, "test": ["test", " test"]}.items():
        assert captions(file, split=split, streaming=streaming) == found
    assert captions(file, split="all", streaming=streaming) == KARPATHY
    with pytest.raises(InputError, match="no split 'unseen'"):
        open_source(file, split="unseen", streaming=streaming)


def test_a_split_after_the_first_rows_of_a_stream(tmp_path, monkeypatch):
    monkeypatch.setattr(row_splits, "_PEEKED", 2)
    file = table(tmp_path, [f"{i}.png" for i in range(7)], ["train"] * 3 + ["test"] * 2 + ["restval"] * 2)
    assert captions(file, streaming=True) == ["train"] * 3
    assert captions(file, split=EVALUATION, streaming=True) == ["test"] * 2
    assert captions(file, split="train+restval", streaming=True) == ["train"] * 3 + ["restval"] * 2
    file = table(tmp_path, [f"images/{split}/{i}.png" for split in ("train", "test") for i in range(3)])
    assert len(captions(file, streaming=True)) == 3
    assert captions(file, split="test", streaming=True) == [f"images/test/{i}.png" for i in range(3)]


@STREAMING
@pytest.mark.parametrize("below", ["", "images/", "./a/b/", "/data/"])
def test_the_folders_of_splits_may_lie_deep_and_the_file_itself_be_given(below, streaming, tmp_path):
    paths = [f"{below}{name}/{i}.png" for name in ("test2017", "train2017") for i in range(2)]
    file = table(tmp_path, paths)
    for name in (file, tmp_path):
        assert captions(name, streaming=streaming) == paths[2:]
        assert captions(name, split=EVALUATION, streaming=streaming) == paths[:2]


@STREAMING
def test_images_beside_the_folders_of_splits(streaming, tmp_path):
    file = table(tmp_path, ["0.png", "images/train/1.png", "images/test/2.png"])
    with pytest.raises(InputError, match=r"row 1: 0.png is in none of train, test, so of no split"):
        captions(file, streaming=streaming)


@pytest.mark.parametrize("names", [["test_tube", "bullet_train", "car"], ["train", "car"], ["train"]])
def test_folders_of_classes_are_no_splits(names, tmp_path):
    paths = [f"images/{name}/1.png" for name in names]
    assert captions(table(tmp_path, paths)) == paths


@STREAMING
def test_a_split_by_number(streaming, tmp_path):
    classes = datasets.ClassLabel(names=["test", "val", "train"])
    columns = {"image": ["0", "1", "2"], "caption": ["test", "val", "train"], "split": [0, 1, 2]}
    rows = datasets.Dataset.from_dict(columns).cast_column("split", classes)
    rows.to_parquet(tmp_path / "all.parquet")
    for split in ("test", "val", "train"):
        assert captions(tmp_path, split=split, streaming=streaming) == [split]


def test_a_column_of_other_splits(tmp_path):
    write_pictures(tmp_path, count=2)
    frame = pd.DataFrame({"image": ["0.png", "1.png"], "caption": ["a", "b"], "split": ["north", "south"]})
    frame.to_csv(tmp_path / "metadata.csv", index=False)
    assert captions(tmp_path / "metadata.csv", streaming=True) == ["a", "b"]
