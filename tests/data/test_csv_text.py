"""Captions, paths and names of classes in CSV files stay as the file has them, whatever pandas takes them for."""

import pytest
from conftest import write_pictures

from hf_clip.core.errors import InputError
from hf_clip.data.images import read_image
from hf_clip.data.sources import open_source


@pytest.fixture(params=[False, True], ids=["whole", "streaming"])
def streaming(request) -> bool:
    return request.param


def records(source) -> list[dict]:
    return list(source.read_shard(0)) if source.streaming else list(source.rows)


NUMBERS = ["7", "007", "1.50", "1e3", "True", "2023-01-05", "inf", "0x1F", "None", "NaN", "1,000", "+1", "１２"]


@pytest.mark.parametrize("captions", [NUMBERS, ["7"], ["007", "1"], ["1.50"], ["True", "False"], ["2023-01-05"]])
@pytest.mark.parametrize("name", ["a.csv", "metadata.csv"])
def test_captions_stay_as_they_are_written(captions, name, tmp_path, streaming):
    rows = "".join(f'0.png,"{caption}",3\n' for caption in captions)
    (tmp_path / name).write_text(f"file_name,caption,other\n{rows}", encoding="utf-8-sig")
    source = open_source(tmp_path if name == "metadata.csv" else tmp_path / name, streaming=streaming)
    assert [source.captions_of(record) for record in records(source)] == [[caption] for caption in captions]


def test_numbers_for_the_first_rows_and_words_for_the_others(tmp_path, streaming):
    """pandas reads ten thousand rows at a time, and takes each time another kind for the column."""
    rows = "".join(f"a.png,{row if row < 10_500 else 'a word'}\n" for row in range(10_501))
    (tmp_path / "a.csv").write_text(f"image,caption\n{rows}")
    found = records(open_source(tmp_path / "a.csv", streaming=streaming))
    assert [found[row]["caption"] for row in (0, 10_499, 10_500)] == ["0", "10499", "a word"]


def test_paths_that_look_like_numbers(tmp_path, streaming):
    folder = write_pictures(tmp_path / "data", count=2)
    (folder / "0.png").rename(folder / "001")
    (folder / "a.csv").write_text("image,caption\n001,one\n")
    source = open_source(folder / "a.csv", streaming=streaming)
    (record,) = records(source)
    assert read_image(record["image"], source.folder)[0].size == (40, 36)


@pytest.mark.parametrize(
    ("labels", "names", "expected"),
    [
        (["1", "0", "01"], ["a", "b"], [1, 0, 1]),
        (["7", "cat"], None, ["7", "cat"]),
        (["True", "False"], None, ["True", "False"]),
        (["True", "False"], ["True", "False"], ["True", "False"]),
        (["NA", "None"], None, ["NA", "None"]),
        (["12345678901234567890", "x"], None, ["12345678901234567890", "x"]),
    ],
)
def test_labels(labels, names, expected, tmp_path, streaming):
    (tmp_path / "a.csv").write_text("image,label\n" + "".join(f"a.png,{label}\n" for label in labels))
    source = open_source(tmp_path / "a.csv", label_column="label", class_names=names, streaming=streaming)
    assert [record["label"] for record in records(source)] == expected
    captions = [names[label] if isinstance(label, int) else label for label in expected]
    assert [source.captions_of(record) for record in records(source)] == [[caption] for caption in captions]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            ["0.0", "1.0"],
            r"(column 'label' holds double, not class numbers or names|row 1 has a label 0.0 that is no class)",
        ),
        (["cat", "", "dog"], r"row 2 has an empty label: fill or remove such rows"),
        (["0", "", "1"], r"row 2 has an empty label: fill or remove such rows"),
        (["0", "9"], r"row 2 has a label 9 that is no class"),
    ],
)
def test_labels_that_are_none(labels, message, tmp_path, streaming):
    (tmp_path / "a.csv").write_text("image,label,b\n" + "".join(f"a.png,{label},c\n" for label in labels))
    names = None if "cat" in labels else ["x", "y"]
    with pytest.raises(InputError, match=rf"a.csv: {message}"):
        records(open_source(tmp_path / "a.csv", label_column="label", class_names=names, streaming=streaming))


def test_columns_of_several_files(tmp_path):
    (tmp_path / "a.csv").write_text("image,label\na.png,1\n")
    (tmp_path / "b.csv").write_text("image,label\na.png,cat\n")
    source = open_source(tmp_path / "[ab].csv", label_column="label")
    assert source.class_names == ["1", "cat"], "what the first file has is no number then"
