"""Every kind of source opens to the same rows, and every fault of one is refused in a sentence."""

import contextlib
import dataclasses
import json
import logging

import datasets
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import write_pictures
from PIL import Image

from hf_clip.core.errors import InputError
from hf_clip.data import columns
from hf_clip.data.augmentation import Augmentation
from hf_clip.data.collator import HFClipCollator
from hf_clip.data.column_checks import check_captions
from hf_clip.data.dataset import CaptionedImages, TrainingPairs
from hf_clip.data.images import read_image
from hf_clip.data.sources import open_source
from hf_clip.models.image_processors import square_image_processor

GREEN = (0, 128, 0)
PAIRS = [("0.png", "red a"), ("1.png", "green b"), ("2.png", "blue c")]  # what `write_pictures` writes


def write_rows(file, rows: list[dict]):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def write_parquet(file, folder, pairs) -> None:
    features = datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string")})
    rows = {
        "image": [{"bytes": (folder / name).read_bytes(), "path": name} for name, _ in pairs],
        "caption": [caption for _, caption in pairs],
    }
    datasets.Dataset.from_dict(rows, features=features).to_parquet(file)


def folder_with_jsonl(folder):
    return folder


def folder_with_csv(folder):
    (folder / "metadata.jsonl").unlink()
    (folder / "metadata.csv").write_text("file_name,caption\n" + "".join(f"{n},{c}\n" for n, c in PAIRS))
    return folder


def csv_file(folder):
    (folder / "pairs.CSV").write_text("image_path,text\n" + "".join(f"{n},{c}\n" for n, c in PAIRS))
    return folder / "pairs.CSV"


def jsonl_file(folder):
    return write_rows(folder / "pairs.jsonl", [{"image": name, "captions": [caption]} for name, caption in PAIRS])


def json_file(folder):
    (folder / "pairs.json").write_text(json.dumps([{"image": name, "captions": [caption]} for name, caption in PAIRS]))
    return folder / "pairs.json"


def parquet_file(folder):
    write_parquet(folder / "pairs.parquet", folder, PAIRS)
    return folder / "pairs.parquet"


def parquet_shards(folder):
    (folder / "shards").mkdir()
    write_parquet(folder / "shards" / "0.parquet", folder, PAIRS[:2])
    write_parquet(folder / "shards" / "1.parquet", folder, PAIRS[2:])
    return folder / "shards"


@pytest.mark.parametrize(
    "write", [folder_with_jsonl, folder_with_csv, csv_file, jsonl_file, json_file, parquet_file, parquet_shards]
)
def test_all_kinds_hold_the_same(write, tmp_path, capfd):
    name = write(write_pictures(tmp_path / "data", count=3))
    capfd.readouterr()
    source = open_source(name)
    assert len(source) == 3
    assert [source.captions(row) for row in range(3)] == [[caption] for _, caption in PAIRS]
    image, _ = read_image(source.rows[1][source.image_column], source.folder)
    assert image.getpixel((20, 20)) == GREEN
    assert capfd.readouterr() == ("", "")


def test_several_captions(tmp_path):
    source = open_source(write_pictures(tmp_path / "data", count=2, captions_each=3))
    assert source.captions(1) == ["green b", "very green b", "very very green b"]


def test_columns_can_be_named(tmp_path):
    file = write_rows(tmp_path / "a.jsonl", [{"photo": "0.png", "title": "a dog", "text": "not this"}])
    source = open_source(file, image_column="photo", caption_column="title")
    assert (source.image_column, source.captions(0)) == ("photo", ["a dog"])


def test_words_that_pandas_takes_for_nothing_are_captions(tmp_path):
    (tmp_path / "a.csv").write_text("image,caption\na.png,None\nb.png,NA\n")
    source = open_source(tmp_path / "a.csv")
    assert [source.captions(row) for row in range(2)] == [["None"], ["NA"]]


FAULTY_FILES = {
    "empty.csv": ("", "is empty"),
    "empty.jsonl": ("", "is empty"),
    "header.csv": ("image,caption\n", "header.csv has no rows"),
    "newlines.jsonl": ("\n\n", "newlines.jsonl has no rows"),
    "newline.csv": ("\n", "cannot be read as csv: No columns"),
    "broken.jsonl": ('{"image"', "cannot be read as json: JSON parse error"),
    "broken.parquet": ("PAR1", "cannot be read as parquet"),
    "ragged.csv": (
        "image,caption\na,b\na,b,c\n",
        r"line 3 has 3 fields where the first line names 2 \(image, caption\): put a text with a comma",
    ),
    "notes.txt": ("image,caption\na,b\n", r"cannot read .txt files, only .parquet, .csv"),
    "columns.csv": (
        "image,titel\na,b\n",
        "none of the columns caption, .*: set caption_column to one of image, titel",
    ),
    "pictures.csv": ("img,caption\na,b\n", "none of the columns image, .*: set image_column to one of img, caption"),
    "number.csv": ("image,label\na,7\n", "none of the columns caption, .*: set caption_column"),
    "number.jsonl": ('{"image": "a", "caption": 7}', "holds int64, not text"),
    "numbers.jsonl": ('{"image": "a", "caption": [7]}', "holds int64, not text"),
    "mixed.jsonl": (
        '{"image": "a", "caption": "b"}\n{"image": "a", "caption": 7}',
        "row 2 has int for a caption, not text",
    ),
    "blank.csv": ("image,caption\na,b\na,\na, \n", "row 2 has an empty caption, and 1 more: fill or remove"),
    "whitespace.jsonl": ('{"image": "a", "caption": " \\t\\u00a0"}', "row 1 has an empty caption: fill"),
    "null.jsonl": ('{"image": "a", "caption": "b"}\n{"image": "a", "caption": null}', "row 2 has an empty caption"),
    "nulls.jsonl": ('{"image": "a", "caption": null}\n' * 2, "row 1 has an empty caption, and 1 more"),
    "lists.jsonl": (
        "".join(json.dumps({"image": "a", "caption": c}) + "\n" for c in (["b", "c"], ["b", " "], ["b"], [], None)),
        "row 2 has an empty caption, and 2 more",
    ),
    "no-list.jsonl": ('{"image": "a", "caption": []}', "row 1 has an empty caption"),
}


@pytest.mark.parametrize("name", FAULTY_FILES)
def test_faulty_files_are_refused(name, tmp_path, capfd):
    content, message = FAULTY_FILES[name]
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message) as raised:
        open_source(tmp_path / name)
    assert name in str(raised.value)
    assert "\n" not in str(raised.value)
    assert capfd.readouterr() == ("", ""), "the library's own complaints would come on top"


def test_other_things_that_are_no_source(tmp_path):
    with pytest.raises(InputError, match=r"has neither metadata.jsonl, .* nor parquet files, .*: add one"):
        open_source(tmp_path)
    with pytest.raises(InputError, match=r"no data at .*neither a file or folder here nor a Hub data set"):
        open_source(tmp_path / "missing")
    with pytest.raises(InputError, match=r"no data at 'nobody/nothing'.*split 'test'"):
        open_source("nobody/nothing", split="test")


def test_a_column_that_is_not_there(pictures):
    with pytest.raises(InputError, match="no column 'text': set caption_column to one of file_name, caption"):
        open_source(pictures, caption_column="text")


def column(*chunks, **options) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(chunk, **options) for chunk in chunks])


LISTS = pa.list_(pa.string())
PAIRS_OF_TEXT = pa.list_(pa.string(), 2)


@pytest.mark.parametrize(
    ("captions", "row", "more"),
    [
        (column(["a", "b"], ["c", "", "d"], [" "]), 4, 1),
        (column(["a", "b"], ["c", None], type=pa.large_string()), 4, 0),
        (column([None, None], [None]), 1, 2),
        (column([None], type=pa.string()), 1, 0),
        (column([["a"], ["b", "c"]], [["d"], ["e", ""]]), 4, 0),
        (column([["a"], ["b", "c"]], [["d"], [" ", ""], [None], []]), 4, 2),
        (column([["a", "b"]], [[]], [None], type=pa.large_list(pa.string())), 2, 1),
        (column([[], []], type=pa.list_(pa.null())), 1, 1),
        # A slice keeps the values that it leaves out.
        (column([[""], ["a", "b"], ["c"], [" "], ["d"]]).slice(1), 3, 0),
        (pa.chunked_array([pa.array([[""], ["a"]]).slice(1), pa.array([["b"], ["c", ""]]).slice(1)]), 2, 0),
        (column([["", "x"], ["a", "b"], None, ["c", ""]], type=PAIRS_OF_TEXT).slice(1), 2, 1),
    ],
)
def test_rows_of_empty_captions_are_counted_from_one(captions, row, more):
    with pytest.raises(InputError) as raised:
        check_captions(datasets.Dataset(pa.table({"caption": captions})), "caption", "data")
    and_more = f", and {more} more" if more else ""
    assert str(raised.value) == f"data: row {row} has an empty caption{and_more}: fill or remove such rows"


@pytest.mark.parametrize(
    "captions",
    [
        column(["a", "b"], ["c"]),
        column([["a", "b"]], [["c"]]),
        column([[""], ["a"]]).slice(1),
        column([["a", "b"]], type=PAIRS_OF_TEXT),
    ],
)
def test_good_captions_pass(captions):
    check_captions(datasets.Dataset(pa.table({"caption": captions})), "caption", "data")


def test_a_parquet_file_of_many_row_groups(tmp_path):
    captions = ["a caption"] * 2500 + [""] + ["a caption"] * 99
    table = pa.table({"image": ["a.png"] * 2600, "caption": captions})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=100)
    with pytest.raises(InputError, match="row 2501 has an empty caption: fill"):
        open_source(tmp_path / "a.parquet")


def class_folders(folder):
    for i, (name, color) in enumerate([("cat", "red"), ("dog", "green"), ("cat", "blue")]):
        (folder / name).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), color).save(folder / name / f"{i}.JPG", "PNG")
    (folder / "notes.txt").write_text("not a picture")
    (folder / "cat" / ".hidden.png").write_bytes(b"")
    return folder


def test_folders_of_classes(tmp_path):
    source = open_source(class_folders(tmp_path / "test"))  # the folder's name is no split
    assert (source.label_column, source.class_names, source.caption_column) == ("label", ["cat", "dog"], None)
    assert [source.captions(row) for row in range(3)] == [["cat"], ["cat"], ["dog"]]
    assert source.labels().tolist() == [0, 0, 1]
    image, _ = read_image(source.rows[2][source.image_column], source.folder)
    assert image.getpixel((0, 0)) == GREEN


def test_pictures_alone(tmp_path, pictures):
    (pictures / "metadata.jsonl").unlink()
    with pytest.raises(InputError, match=r"pictures has neither metadata.jsonl"):
        open_source(pictures)
    source = open_source(pictures, captions_required=False)
    assert (len(source), source.captions(0), source.label_column, source.caption_column) == (8, [], None, None)
    pd.DataFrame({"image": ["a.png"] * 2, "text": ["", "b"]}).to_csv(tmp_path / "a.csv", index=False)
    source = open_source(tmp_path / "a.csv", captions_required=False)
    assert [source.captions(row) for row in range(2)] == [[], ["b"]]


def labelled(file, labels: list, feature=None, **columns):
    rows = {"image": ["0.png"] * len(labels), "kind": labels} | columns
    features = datasets.Features(
        {name: datasets.Value("string") for name in rows} | {"kind": feature or datasets.Value("string")}
    )
    datasets.Dataset.from_dict(rows, features=features).to_parquet(file)
    return file


CLASS = datasets.ClassLabel(names=["cat", "dog"])
NUMBER = datasets.Value("int32")


@pytest.mark.parametrize(
    ("labels", "feature", "class_names", "names", "numbers"),
    [
        ([1, 0, 1], CLASS, None, ["cat", "dog"], [1, 0, 1]),
        ([1, 0, 1], CLASS, ["a cat", "a dog"], ["a cat", "a dog"], [1, 0, 1]),
        ([1, 0, 2], NUMBER, ["a", "b", "c"], ["a", "b", "c"], [1, 0, 2]),
        (["dog", "cat", "dog"], None, None, ["cat", "dog"], [1, 0, 1]),
        (["dog", "cat", "dog"], None, ["dog", "emu", "cat"], ["dog", "emu", "cat"], [0, 2, 0]),
    ],
)
def test_labels_are_the_captions_where_there_are_none(labels, feature, class_names, names, numbers, tmp_path):
    file = labelled(tmp_path / "a.parquet", labels, feature)
    source = open_source(file, label_column="kind", class_names=class_names)
    assert (source.label_column, source.class_names, source.labels().tolist()) == ("kind", names, numbers)
    assert [source.captions(row) for row in range(3)] == [[names[number]] for number in numbers]
    assert [source.label_of(row) for row in source.rows] == numbers
    stream = open_source(file, label_column="kind", class_names=class_names, streaming=True)
    assert [stream.captions_of(record) for record in stream.read_shard(0)] == [[names[number]] for number in numbers]


def test_labels_beside_captions(tmp_path):
    file = labelled(tmp_path / "a.parquet", [1, 0], CLASS, caption=["x", "y"])
    assert (open_source(file).label_column, open_source(file).captions(0)) == (None, ["x"])
    source = open_source(file, label_column="kind")
    assert (source.captions(0), source.class_names) == (["x"], ["cat", "dog"])
    assert open_source(labelled(file, [5, 0], NUMBER, caption=["x", "y"]), label_column="kind").labels().tolist() == [
        5,
        0,
    ]


@pytest.mark.parametrize(
    ("labels", "feature", "class_names", "message"),
    [
        (["a", "b", "x"], None, ["a", "b"], "row 3 has a label 'x' that is no class"),
        ([0, 2, 1], NUMBER, ["a", "b"], "row 2 has a label 2 that is no class"),
        ([0, -1, 1], CLASS, None, "row 2 has a label -1 that is no class"),
        (["a", None], None, None, "row 2 has a label None that is no class"),
        ([None], datasets.Value("null"), None, "row 1 has a label None that is no class"),
        ([0, 1], NUMBER, None, "no captions, and its labels in 'kind' are numbers: give class_names"),
        ([0.5], datasets.Value("float32"), None, "(column 'kind' holds float|has a label 0.5)"),
    ],
)
@pytest.mark.parametrize("streaming", [False, True])
def test_impossible_labels_are_refused(labels, feature, class_names, message, streaming, tmp_path):
    file = labelled(tmp_path / "a.parquet", labels, feature)
    settings = {"label_column": "kind", "class_names": class_names, "streaming": streaming}
    with pytest.raises(InputError, match=rf"a.parquet.* {message}") as raised:
        list(open_source(file, **settings).read_shard(0))
    assert "\n" not in str(raised.value)


# ---- several labels a row -----------------------------------------------------------------------------------------

TEXT = datasets.Value("string")
BIRDS = ["cat", "dog", "emu"]


def records(source):
    return source.read_shard(0) if source.streaming else source.rows


def lists_of(feature, length: int = -1) -> datasets.List:
    return datasets.List(feature, length=length)


@pytest.mark.parametrize(
    ("labels", "feature", "class_names", "names", "of_rows"),
    [
        ([[1, 0], [1]], lists_of(CLASS), None, ["cat", "dog"], [[1, 0], [1]]),
        ([[1, 0], [1]], lists_of(CLASS), ["a", "b"], ["a", "b"], [[1, 0], [1]]),
        ([[1, 0], [1]], datasets.LargeList(CLASS), None, ["cat", "dog"], [[1, 0], [1]]),
        ([["emu", "cat"], ["dog"]], lists_of(TEXT), None, BIRDS, [[2, 0], [1]]),
        ([["emu", "cat"], ["dog"]], lists_of(datasets.Value("large_string")), BIRDS[::-1], BIRDS[::-1], [[0, 2], [1]]),
        ([[2, 0], [0]], lists_of(NUMBER), BIRDS, BIRDS, [[2, 0], [0]]),
        ([[2, 0], [1, 2]], lists_of(NUMBER, 2), BIRDS, BIRDS, [[2, 0], [1, 2]]),
        ([["emu", "cat"], ["dog", "cat"]], lists_of(TEXT, 2), None, BIRDS, [[2, 0], [1, 0]]),
    ],
)
def test_several_labels_a_row(labels, feature, class_names, names, of_rows, tmp_path):
    file = labelled(tmp_path / "a.parquet", labels, feature)
    source = open_source(file, label_column="kind", class_names=class_names)
    assert source.class_names == names
    assert [source.label_of(row) for row in source.rows] == of_rows
    captions = [[names[label] for label in of_row] for of_row in of_rows]
    assert [source.captions(row) for row in range(2)] == captions
    several = source.labels()
    assert (several.dtype, several.shape) == (bool, (2, len(names)))
    assert [row.nonzero()[0].tolist() for row in several] == [sorted(of_row) for of_row in of_rows]
    stream = open_source(file, label_column="kind", class_names=class_names, streaming=True)
    assert [stream.captions_of(record) for record in stream.read_shard(0)] == captions


def test_several_labels_over_many_stretches_and_with_none(tmp_path, monkeypatch):
    monkeypatch.setattr(columns, "_BATCH", 3)
    labels = [["a"], [], ["c", "a"], [], ["b"], ["a", "b", "c"], []]
    source = open_source(
        labelled(tmp_path / "a.parquet", labels, lists_of(TEXT)), label_column="kind", captions_required=False
    )
    expected = [[name in of_row for name in "abc"] for of_row in labels]
    assert source.labels().tolist() == expected
    assert [source.captions(row) for row in range(7)] == labels
    part = dataclasses.replace(source, rows=source.rows.select([5, 3, 2]))
    assert part.labels().tolist() == [expected[row] for row in (5, 3, 2)]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("labels", "feature", "class_names", "message"),
    [
        ([["a"], ["b", "x"]], lists_of(TEXT), ["a", "b"], "row 2 has a label 'x' that is no class"),
        ([[0, 1], [1], [0, -1]], lists_of(CLASS), None, "row 3 has a label -1 that is no class"),
        ([[0, 1], [-1]], lists_of(NUMBER), ["a", "b"], "row 2 has a label -1 that is no class"),
        ([[0, 1], [1, 3]], lists_of(NUMBER, 2), ["a", "b"], "row 2 has a label 3 that is no class"),
        ([["a"], ["b", None]], lists_of(TEXT), None, "row 2 has a label None that is no class"),
        ([["a"], [], ["b"]], lists_of(TEXT), None, "row 2 has no label: remove such rows"),
        ([[0], [1], []], lists_of(CLASS), None, "row 3 has no label: remove such rows"),
        ([["a"], None], lists_of(TEXT), None, "row 2 has a label None that is no class"),
        ([["a", "b"], None], lists_of(TEXT, 2), None, "row 2 has a label None that is no class"),
        ([[], []], lists_of(TEXT), None, "row 1 has no label: remove such rows"),
        ([[], []], lists_of(datasets.Value("null")), None, "row 1 has no label: remove such rows"),
        ([[0, 1]], lists_of(NUMBER), None, "no captions, and its labels in 'kind' are numbers: give class_names"),
        ([[0.5]], lists_of(datasets.Value("float32")), None, "(column 'kind' holds float|has a label 0.5)"),
    ],
)
def test_impossible_lists_of_labels_are_refused(labels, feature, class_names, message, streaming, tmp_path):
    file = labelled(tmp_path / "a.parquet", labels, feature)
    settings = {"label_column": "kind", "class_names": class_names, "streaming": streaming}
    with pytest.raises(InputError, match=rf"a.parquet.* {message}") as raised:
        list(open_source(file, **settings).read_shard(0))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("labels", "feature"), [([["a"], None, []], lists_of(TEXT)), ([["a", "b"], None], lists_of(TEXT, 2))]
)
def test_only_an_empty_list_says_that_a_row_is_of_no_class(labels, feature, streaming, tmp_path):
    file = labelled(tmp_path / "a.parquet", labels, feature)
    settings = {"label_column": "kind", "captions_required": False, "streaming": streaming}
    with pytest.raises(InputError, match="row 2 has a label None that is no class"):
        list(open_source(file, **settings).read_shard(0))
    labelled(file, [["a"], []], lists_of(TEXT))
    assert [len(record["kind"]) for record in records(open_source(file, **settings))] == [1, 0]


def test_not_one_label(tmp_path):
    file = write_rows(tmp_path / "a.jsonl", [{"image": "a.png", "labels": []}] * 2)
    source = open_source(file, label_column="labels", class_names=["x", "y"], captions_required=False)
    assert source.labels().tolist() == [[False, False]] * 2


def test_numbers_without_names_are_no_table_of_classes(tmp_path):
    file = labelled(tmp_path / "a.parquet", [[5, 0], [1]], lists_of(NUMBER), caption=["x", "y"])
    source = open_source(file, label_column="kind")
    assert source.captions(0) == ["x"]
    with pytest.raises(InputError, match="several labels each, and the classes are not known: give class_names"):
        source.labels()


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("name", ["label", "labels", "class", "cls"])
def test_labels_that_are_required_are_found_beside_captions(name, streaming, tmp_path):
    rows = [{"image": "a.png", "caption": "x", name: [1, 0]}, {"image": "b.png", "caption": "y", name: []}]
    file = write_rows(tmp_path / "a.jsonl", rows)
    assert open_source(file, streaming=streaming).label_column is None
    source = open_source(file, class_names=["a", "b"], labels_required=True, streaming=streaming)
    assert (source.label_column, source.caption_column) == (name, "caption")
    assert [source.label_of(record) for record in records(source)] == [[1, 0], []], "captions are there"
    other = write_rows(tmp_path / "b.jsonl", [{"image": "a.png", "caption": "x", "kind": 1}])
    with pytest.raises(InputError, match="none of the columns label, labels, class, cls: set label_column to one of"):
        open_source(other, labels_required=True, streaming=streaming)
    assert open_source(other, label_column="kind", labels_required=True, streaming=streaming).label_column == "kind"


def test_a_column_of_classes_comes_before_one_that_is_called_label(tmp_path):
    file = labelled(tmp_path / "a.parquet", [[1, 0]], lists_of(CLASS), label=["z"], caption=["x"])
    source = open_source(file, labels_required=True)
    assert (source.label_column, source.captions(0), source.labels().tolist()) == ("kind", ["x"], [[True, True]])


def test_required_labels_of_class_folders(tmp_path):
    source = open_source(class_folders(tmp_path / "a"), labels_required=True, captions_required=False)
    assert (source.label_column, source.labels().tolist()) == ("label", [0, 0, 1])


def test_training_draws_one_of_a_rows_labels_each_epoch(tmp_path, pictures, tokenizer):
    rows = {"image": [str(pictures / "0.png")] * 2, "kind": [["red", "white"], ["green"]]}
    datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "a.parquet")
    pairs = TrainingPairs(
        open_source(tmp_path / "a.parquet", label_column="kind"), square_image_processor(16), Augmentation()
    )
    seen = [set(), set()]
    for epoch in range(12):
        pairs.set_epoch(epoch)
        for of_row, item in zip(seen, pairs.__getitems__([0, 1]), strict=True):
            of_row.add(item["captions"][0])
    assert seen == [{"red", "white"}, {"green"}]
    assert pairs.caption_lengths() == [4, 5], "(3 + 5) / 2, and 5"


def test_columns_called_like_inputs_of_the_model_do_no_harm(pictures, processor):
    names = [f"{i}.png" for i in range(8)]
    numbers = dict.fromkeys(["pixel_values", "attention_mask", "image_ids", "skipped", "captions"], [[7]] * 8)
    pd.DataFrame({"rows": names, "input_ids": list("abcdefgh"), **numbers}).to_parquet(pictures / "a.parquet")
    named = {"image_column": "rows", "caption_column": "input_ids"}
    items = CaptionedImages(open_source(pictures / "a.parquet", **named), square_image_processor(16))
    batch = HFClipCollator(processor)([items[2], items[5]])
    assert batch["rows"].tolist() == [2, 5]
    assert processor.tokenizer.batch_decode(batch["input_ids"], skip_special_tokens=True) == ["c", "f"]
    assert batch["pixel_values"].shape == (2, 3, 16, 16)


def test_columns_that_are_not_used_are_not_decoded(pictures):
    rows = {"image": ["0.png"], "caption": ["a"], "other": [{"bytes": b"no picture", "path": None}]}
    features = datasets.Features(
        {"image": datasets.Value("string"), "caption": datasets.Value("string"), "other": datasets.Image()}
    )
    datasets.Dataset.from_dict(rows, features=features).to_parquet(pictures / "a.parquet")
    assert open_source(pictures / "a.parquet").rows[0] == {"image": "0.png", "caption": "a"}


@pytest.mark.parametrize("streaming", [False, True])
def test_captions_within_a_structure(tmp_path, streaming):
    table = pa.table({"image": ["0.png"] * 2, "json": [{"caption": "a", "n": 1}, {"caption": "b", "n": 2}]})
    pq.write_table(table, tmp_path / "a.parquet")
    source = open_source(tmp_path / "a.parquet", streaming=streaming)
    assert source.caption_column == "json.caption"
    records = source.read_shard(0) if streaming else source.rows
    assert [source.captions_of(record) for record in records] == [["a"], ["b"]]
    if not streaming:
        with pytest.raises(InputError, match=r"column 'json.n' holds int64, not text"):
            open_source(tmp_path / "a.parquet", caption_column="json.n")


@pytest.mark.parametrize("known", [True, False])
def test_the_verbosity_of_datasets_is_as_it_was(known, tmp_path):
    """Whether a source opens or is refused."""
    before = datasets.logging.get_verbosity()
    datasets.logging.set_verbosity(datasets.logging.INFO)
    try:
        (tmp_path / "a.csv").write_text("image,caption\na,b\n" if known else "")
        with contextlib.nullcontext() if known else pytest.raises(InputError):
            open_source(tmp_path / "a.csv")
        (tmp_path / "b.parquet").write_bytes(b"PAR1")
        with pytest.raises(InputError):
            open_source(tmp_path / "b.parquet")
        assert datasets.logging.get_verbosity() == datasets.logging.INFO
        assert not datasets.are_progress_bars_disabled()
        datasets.disable_progress_bars()
        open_source(write_pictures(tmp_path / "pictures"))
        assert datasets.are_progress_bars_disabled()
    finally:
        datasets.logging.set_verbosity(before)
        datasets.enable_progress_bars()


def test_nothing_is_printed_while_a_source_is_prepared(tmp_path, capfd):
    # Enough rows for the library's progress bar; its cache has not seen them.
    datasets.enable_progress_bars()
    pd.DataFrame({"image": ["a.png"] * 5000, "caption": ["a"] * 5000}).to_csv(tmp_path / "a.csv", index=False)
    open_source(tmp_path / "a.csv")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("streaming", [False, True])
def test_what_the_library_logs_of_an_error_is_not_printed_beside_it(streaming, pictures):
    for name in "ab":
        pq.write_table(pa.table({"image": ["0.png"] * 9, "caption": ["x"] * 9}), pictures / f"{name}.parquet")
    whole = (pictures / "b.parquet").read_bytes()
    (pictures / "b.parquet").write_bytes(whole[:4] + bytes(40) + whole[44:-30])
    logged: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: logged.append(record.getMessage())
    logging.getLogger("datasets").addHandler(handler)
    try:
        with pytest.raises(InputError, match=r"b?.parquet"):
            list(open_source(pictures / "[ab].parquet", streaming=streaming).read_shard(1))
    finally:
        logging.getLogger("datasets").removeHandler(handler)
    assert logged == []


def test_rows_are_counted_beyond_the_first_stretch_that_is_checked(tmp_path, monkeypatch):
    monkeypatch.setattr(columns, "_BATCH", 2)
    (tmp_path / "a.csv").write_text(
        "image,caption\n" + "".join(f"a,{caption}\n" for caption in ["x", "y", "z", "", ""])
    )
    with pytest.raises(InputError, match="row 4 has an empty caption, and 1 more"):
        open_source(tmp_path / "a.csv")


def test_class_names_beside_those_that_the_data_have(tmp_path):
    """The data's own say which number is which: the same names in another order must not rename the classes."""
    features = datasets.Features(image=datasets.Value("string"), kind=datasets.ClassLabel(names=["cat", "dog"]))
    rows = datasets.Dataset.from_dict({"image": ["a.png", "b.png"], "kind": [0, 1]}, features=features)
    rows.to_parquet(tmp_path / "rows.parquet")

    def names(given):
        settings = {"label_column": "kind", "captions_required": False}
        return open_source(tmp_path / "rows.parquet", class_names=given, **settings).class_names

    assert names(["dog", "cat"]) == ["cat", "dog"]
    assert names(["bird", "dog", "cat"]) == ["cat", "dog"]
    assert names(["Katze", "Hund"]) == ["Katze", "Hund"], "other names go by number"


def test_classes_within_a_structure_have_their_names(tmp_path):
    meta = {"label": datasets.ClassLabel(names=["cat", "dog"])}
    features = datasets.Features(image=datasets.Value("string"), meta=meta)
    rows = [{"image": "a.png", "meta": {"label": 1}}, {"image": "b.png", "meta": {"label": 0}}]
    datasets.Dataset.from_list(rows, features=features).to_parquet(tmp_path / "rows.parquet")
    source = open_source(tmp_path / "rows.parquet", label_column="meta.label")
    assert (source.class_names, source.labels().tolist(), source.captions(0)) == (["cat", "dog"], [1, 0], ["dog"])


def test_pictures_are_named_from_the_folder_on(tmp_path):
    for kind in ("cat", "dog"):
        (tmp_path / "data" / kind).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "data" / kind / "1.png")
    source = open_source(tmp_path / "data")
    assert sorted(source.picture_name(record) for record in source.rows) == ["cat/1.png", "dog/1.png"]
