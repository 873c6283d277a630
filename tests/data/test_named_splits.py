"""Splits that lie in one folder, however they are told: the training split is read, and no other in silence."""

import json
import logging
import shutil

import datasets
import pandas as pd
import pytest
from conftest import write_pictures
from PIL import Image

from hf_clip.core.errors import InputError
from hf_clip.data.folders import say_once
from hf_clip.data.named_splits import ANY, EVALUATION, choose_split, split_called
from hf_clip.data.sources import open_source

SIZES = {"train": 3, "validation": 2, "test": 1}  # images of each split, so that a wrong one has another length


@pytest.fixture(autouse=True)
def warned(caplog):
    say_once.cache_clear()
    caplog.set_level(logging.WARNING)
    return caplog


def draw(file):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), "red").save(file)


def rows_of(split: str) -> list[dict]:
    return [{"image": f"{i}.png", "caption": f"{split} {i}"} for i in range(SIZES[split])]


def classes(folder, names):
    for split, name in names.items():
        for i in range(SIZES[split]):
            draw(folder / name / f"class{i}" / f"{split}{i}.png")


def metadata(folder, names):
    for split, name in names.items():
        write_pictures(folder / name, count=SIZES[split])


def one_metadata(folder, names):
    rows = []
    for split, name in names.items():
        for i in range(SIZES[split]):
            draw(folder / name / f"{i}.png")
            rows.append({"file_name": f"{name}/{i}.png", "caption": f"{split} {i}"})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def files(suffix, pattern="{}", below=""):
    def write(folder, names):
        (folder / below).mkdir(parents=True, exist_ok=True)
        for split, name in names.items():
            frame = pd.DataFrame(rows_of(split))
            file = folder / below / f"{pattern.format(name)}{suffix}"
            if suffix == ".csv":
                frame.to_csv(file, index=False)
            elif suffix == ".jsonl":
                frame.to_json(file, orient="records", lines=True)
            else:
                frame.to_parquet(file)

    return write


LAYOUTS = {
    "classes": classes,
    "metadata": metadata,
    "one metadata": one_metadata,
    "csv": files(".csv"),
    "jsonl": files(".jsonl", "my_{}_file"),
    "parquet": files(".parquet", "{}-00000-of-00001"),
    "hub": files(".parquet", "{}-00000-of-00001-0123456789abcdef", "data"),
    "split column": lambda folder, names: pd.DataFrame(
        [row | {"split": name} for split, name in names.items() for row in rows_of(split)]
    ).to_csv(folder / "metadata.csv", index=False),
}
CALLED = [
    {"train": "train", "validation": "validation", "test": "test"},
    {"train": "training", "validation": "val", "test": "eval"},
    {"train": "Train", "validation": "valid", "test": "testing"},
]


def length(source) -> int:
    shards = range(source.rows.num_shards) if source.streaming else ()
    return sum(len(list(source.read_shard(shard))) for shard in shards) if source.streaming else len(source)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("names", CALLED, ids=["train", "training", "Train"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_split_that_is_asked_for_is_read(layout, names, streaming, tmp_path, warned):
    LAYOUTS[layout](tmp_path, names)
    read = {"streaming": streaming}
    assert length(open_source(tmp_path, **read)) == SIZES["train"]
    said = warned.text
    assert "train is read" in said
    assert "validation" in said
    assert "test" in said
    assert length(open_source(tmp_path, split=EVALUATION, **read)) == SIZES["test"]
    assert length(open_source(tmp_path, split="validation", **read)) == SIZES["validation"]
    assert length(open_source(tmp_path, split="val", **read)) == SIZES["validation"]
    if layout != "metadata":
        assert length(open_source(tmp_path, split="train+test", **read)) == SIZES["train"] + SIZES["test"]
        assert length(open_source(tmp_path, split="all", **read)) == 6
    with pytest.raises(InputError, match="no split 'unseen': set split to one of train, validation, test"):
        open_source(tmp_path, split="unseen", **read)


def test_metadata_of_several_folders_are_not_joined(tmp_path):
    metadata(tmp_path, {"train": "train", "test": "test"})
    with pytest.raises(InputError, match=r"metadata in several folders: give one, as in .*train"):
        open_source(tmp_path, split="all")


def test_rows_of_a_split_are_the_right_ones_and_know_their_place(tmp_path):
    one_metadata(tmp_path, {"test": "test", "train": "train"})
    source = open_source(tmp_path)
    assert [source.captions(row) for row in range(3)] == [["train 0"], ["train 1"], ["train 2"]]
    assert [source.row_number(row) for row in range(3)] == [1, 2, 3]
    assert source.split == "train"


def test_a_row_outside_the_folders_of_splits_is_named(tmp_path):
    one_metadata(tmp_path, {"train": "train", "test": "test"})
    with (tmp_path / "metadata.jsonl").open("a") as file:
        file.write('{"file_name": "other/1.png", "caption": "x"}\n')
    for streaming in (False, True):
        with pytest.raises(InputError, match=r"row 5: other/1.png is in none of train, test"):
            length(open_source(tmp_path, streaming=streaming))


def test_evaluation_takes_test_or_else_validation_but_never_what_was_trained_on(tmp_path, warned):
    files(".csv")(tmp_path, {"train": "train", "validation": "dev"})
    assert length(open_source(tmp_path, split=EVALUATION)) == SIZES["validation"]
    assert "has the splits train, validation: validation is read" in warned.text
    (tmp_path / "dev.csv").unlink()
    with pytest.raises(InputError, match="has the splits train, but no test or validation"):
        open_source(tmp_path, split=EVALUATION)
    assert length(open_source(tmp_path, split=ANY)) == SIZES["train"]
    assert length(open_source(tmp_path)) == SIZES["train"]
    (tmp_path / "train.csv").rename(tmp_path / "test.csv")
    with pytest.raises(InputError, match="has the splits test, but no train"):
        open_source(tmp_path)


def test_a_split_of_what_has_none(pictures):
    assert len(open_source(pictures, split="train")) == len(open_source(pictures, split=EVALUATION)) == 8
    for name in (pictures, pictures / "metadata.jsonl"):
        with pytest.raises(InputError, match="has no splits, so no 'test': leave split out"):
            open_source(name, split="test")


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["train", "car", "bus"], ["bus", "car", "train"]),
        (["train_station", "train_interior"], ["train_interior", "train_station"]),
        (["val", "ann", "test_tube"], None),
        (["train", "test", "car"], None),
    ],
)
def test_classes_that_are_called_like_splits(names, found, tmp_path, warned):
    for name in names:
        draw(tmp_path / name / "1.png")
    if found is None:
        with pytest.raises(InputError, match="of no split: give one of them, as in"):
            open_source(tmp_path)
        return
    assert open_source(tmp_path).class_names == found
    assert "taken for a class, not for a split" in warned.text


def test_years_and_numbers_beside_the_name(tmp_path):
    classes(tmp_path, {"train": "train2017", "validation": "val2017", "test": "test-2"})
    assert len(open_source(tmp_path)) == SIZES["train"]
    assert open_source(tmp_path, split="test").class_names == ["class0"]


def test_shards_beside_those_of_splits(tmp_path, warned):
    files(".parquet")(tmp_path, {"train": "train", "test": "more"})
    with pytest.raises(InputError, match=r"holds train, and more.parquet, which is of no split"):
        open_source(tmp_path)
    assert len(open_source(tmp_path / "*.parquet")) == 4, "a pattern means what it says"
    assert "read together" not in warned.text
    (tmp_path / "more.parquet").rename(tmp_path / "test.parquet")
    assert len(open_source(tmp_path / "*.parquet")) == 4
    assert "*.parquet: files of test, train are read together" in warned.text
    assert len(open_source(tmp_path / "train.parquet")) == 3


def test_a_table_beside_the_folders_of_splits_may_hold_the_captions(tmp_path, warned):
    classes(tmp_path, {"train": "train", "test": "test"})
    draw(tmp_path / "loose.png")
    assert len(open_source(tmp_path)) == 3
    assert "images in no folder of a split are left out: 1, the first loose.png" in warned.text
    (tmp_path / "captions.csv").write_text("file_name,caption\ntrain/class0/train0.png,a real one\n")
    with pytest.raises(InputError, match=r"captions.csv would be passed over.* call it metadata.csv"):
        open_source(tmp_path)
    (tmp_path / "captions.csv").rename(tmp_path / "metadata.csv")
    assert open_source(tmp_path).captions(0) == ["a real one"]


def test_what_stands_beside_tables_of_splits_is_named(tmp_path, warned):
    files(".jsonl")(tmp_path, {"train": "train", "test": "extra"})
    assert len(open_source(tmp_path)) == 3
    assert "extra.jsonl is not read, for its name tells no split as train does" in warned.text
    for name in ("dog", "cat"):
        draw(tmp_path / name / "1.png")
    assert len(open_source(tmp_path)) == 3
    assert "train.jsonl: these files are read, and the folders cat, dog are no classes" in warned.text


def test_one_folder_above(tmp_path):
    classes(tmp_path / "above" / "pictures", CALLED[0])
    assert len(open_source(tmp_path / "above")) == 3
    assert open_source(tmp_path / "above").class_names == ["class0", "class1", "class2"]


# ---- the card of a repository -------------------------------------------------------------------------------------

CARD = """---
license: mit
configs:
- config_name: en
  {default}
  data_files:
  - split: train
    path: en/part-a*
  - split: dev
    path: [en/part-b*]
- config_name: zh
  data_files: zh/*.csv
---
# A data set
"""


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "set [1]"
    files(".csv")(folder, {})
    for name, split in (("en/part-a", "train"), ("en/part-b", "validation"), ("zh/all", "test")):
        (folder / name).parent.mkdir(exist_ok=True)
        pd.DataFrame(rows_of(split)).to_csv(folder / f"{name}.csv", index=False)
    (folder / "README.md").write_text(CARD.replace("{default}", "default: true"))
    return folder


def test_a_card_says_which_files_are_of_which_split(repository, warned):
    assert len(open_source(repository)) == 3
    assert "configurations en, zh: en is read" in warned.text
    assert len(open_source(repository, split="dev")) == len(open_source(repository, split="validation")) == 2
    assert len(open_source(repository, data_config="zh")) == 1
    assert len(open_source(repository, streaming=True, split="dev", data_config="en").files) == 1
    with pytest.raises(InputError, match="no configuration 'ja': set data_config to one of en, zh"):
        open_source(repository, data_config="ja")


def test_a_card_that_leaves_open_what_is_meant(repository):
    (repository / "README.md").write_text(CARD.replace("  {default}\n", ""))
    with pytest.raises(InputError, match="several configurations: set data_config to one of en, zh"):
        open_source(repository)
    shutil.rmtree(repository / "en")
    with pytest.raises(InputError, match=r"its card has 'en/part-a\*' for the split train, which is not there"):
        open_source(repository, data_config="en")
    (repository / "README.md").write_text("---\nconfigs: 7\n---\n")
    with pytest.raises(InputError, match="the configs of its card cannot be read"):
        open_source(repository)


@pytest.mark.parametrize("layout", ["metadata", "parquet", "classes"])
def test_a_configuration_that_is_a_folder(layout, tmp_path):
    for split in ("train", "validation"):
        if layout == "metadata":
            write_pictures(tmp_path / split[0], count=SIZES[split])
        elif layout == "parquet":
            files(".parquet", "part-0", split[0])(tmp_path, {split: ""})
        else:
            classes(tmp_path, {split: f"{split[0]}"})
    pd.DataFrame(rows_of("test")).to_parquet(tmp_path / "old.parquet")
    card = "---\nconfigs:\n- config_name: a\n  data_dir: t\n- config_name: b\n  data_dir: v\n---\n"
    (tmp_path / "README.md").write_text(card)
    for split in ("train", EVALUATION):
        assert len(open_source(tmp_path, split=split, data_config="a")) == SIZES["train"]
        assert len(open_source(tmp_path, split=split, data_config="b")) == SIZES["validation"]


def test_a_configuration_of_a_file(pictures):
    with pytest.raises(InputError, match=r"metadata.jsonl is no folder with a card of configurations: leave out"):
        open_source(pictures / "metadata.jsonl", data_config="en")


def test_no_card(pictures):
    (pictures / "README.md").write_bytes("---\nphotos: \xe9\n---\n".encode("latin-1"))
    assert len(open_source(pictures)) == 8
    with pytest.raises(InputError, match="has no card with configurations: leave out data_config 'en'"):
        open_source(pictures, data_config="en")


def test_the_names_of_datasets_are_known():
    """Whatever `datasets` would take for a split by its folder, so do we."""
    for split, words in datasets.data_files.SPLIT_KEYWORDS.items():
        for word in words:
            assert split_called(word) == split_called(f"my-{word}.01") == split_called(word.upper()) == str(split)
    assert split_called("trainer") is split_called("latest") is split_called("train-test") is None


@pytest.mark.parametrize(
    ("asked", "found"),
    [("dev", ["val"]), ("all", ["train", "val", "x"]), (("x", "train"), ["x"]), ("x+dev", ["x", "val"])],
)
def test_choosing(asked, found):
    assert choose_split(["train", "val", "x"], asked, "data")[1] == found
