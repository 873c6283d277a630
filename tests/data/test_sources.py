"""Every kind of source opens to the same rows, and every fault of one is refused in a sentence."""

import json

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import write_pictures

from hf_clip.data.images import read_image
from hf_clip.data.sources import _check_captions, open_source
from hf_clip.errors import InputError

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
    "ragged.csv": ("image,caption\na,b\na,b,c\n", "cannot be read as csv: .*Expected 2 fields in line 3, saw 3"),
    "notes.txt": ("image,caption\na,b\n", r"cannot read .txt files, only .parquet, .csv"),
    "columns.csv": (
        "image,titel\na,b\n",
        "none of the columns caption, .*: set caption_column to one of image, titel",
    ),
    "pictures.csv": ("img,caption\na,b\n", "none of the columns image, .*: set image_column to one of img, caption"),
    "number.csv": ("image,caption\na,7\n", "column 'caption' holds int64, not text: .*set caption_column"),
    "number.jsonl": ('{"image": "a", "caption": 7}', "holds int64, not text"),
    "numbers.jsonl": ('{"image": "a", "caption": [7]}', "holds int64, not text"),
    "mixed.jsonl": (
        '{"image": "a", "caption": "b"}\n{"image": "a", "caption": 7}',
        "column 'caption' holds a mix of kinds, not text",
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
    with pytest.raises(InputError, match=r"has neither metadata.jsonl, .* nor parquet files: add one"):
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
        _check_captions(captions, "caption", "data")
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
    _check_captions(captions, "caption", "data")


def test_a_parquet_file_of_many_row_groups(tmp_path):
    captions = ["a caption"] * 2500 + [""] + ["a caption"] * 99
    table = pa.table({"image": ["a.png"] * 2600, "caption": captions})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=100)
    with pytest.raises(InputError, match="row 2501 has an empty caption: fill"):
        open_source(tmp_path / "a.parquet")
