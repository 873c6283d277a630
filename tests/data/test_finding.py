"""A path is a path, whatever letters are in it."""

import json
import os
import tarfile

import pandas as pd
import pytest
from conftest import write_pictures

from hf_clip.core.errors import InputError
from hf_clip.data.finding import find_files
from hf_clip.data.images import read_image
from hf_clip.data.sources import open_source
from hf_clip.data.split import split_by_image

ODD = [
    "photos [2023]", "set[12]", "star*", "what?", "a::b", "zip://x::y", "{a,b}", "~", "%41 b", "new\nline", "-x",
    "hf:",
    "a#b", "it's \"so\"", "图片", ".hidden", "__special__", os.fsdecode(b"latin-\xe9"),
]  # fmt: skip


def write_all(folder):
    """A table in every format, and 4 images; beside the folder, what its name matches as a pattern."""
    write_pictures(folder, count=4)
    frame = pd.DataFrame({"image": [f"{i}.png" for i in range(4)], "caption": list("abcd")})
    frame.to_csv(folder / "a[1].csv", index=False)
    with (folder / "a[1].parquet").open("wb") as file:  # pyarrow takes no path that is not UTF-8
        file.write(frame.to_parquet())
    with tarfile.open(folder / "a[1].tar", "w") as tar:
        for i in range(4):
            tar.add(folder / f"{i}.png", f"{i}.png")
            (folder / f"{i}.txt").write_text("x")
            tar.add(folder / f"{i}.txt", f"{i}.txt")
    return folder


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("name", ODD)
def test_a_folder_of_any_name(name, relative, tmp_path, monkeypatch):
    above = tmp_path / "a [b]" / "*"
    folder = write_all(above / name)
    for other in ("photos 2", "set1", "set2", "stars", "whatx", "a"):
        write_pictures(above / other, count=7)
    if relative:
        monkeypatch.chdir(above)
        folder = folder.relative_to(above)
    for file in ("", "metadata.jsonl", "a[1].csv", "a[1].parquet", "a[1].tar"):
        source = open_source(folder / file)
        assert len(source) == 4
        read_image(source.rows[3][source.image_column], source.folder)
        stream = open_source(folder / file, streaming=True)
        assert len(list(stream.read_shard(0))) == 4
    assert len(split_by_image(source, 0.25)[1]) == 1


@pytest.mark.parametrize("name", ["set[12]", "a::b"])
def test_a_pattern_within_a_folder_of_any_name(name, tmp_path):
    for folder in (name, "set1"):
        (tmp_path / folder).mkdir()
        for i, file in enumerate(("x1.csv", "x2.csv", "y1.csv", "._x3.csv")):
            (tmp_path / folder / file).write_text("image,caption\n" + f"{folder},{i}a\n" * 2)
    assert len(open_source(tmp_path / name / "x*.csv")) == len(open_source(tmp_path / name / "x[12].csv")) == 4
    assert open_source(tmp_path / name / "x?.csv").rows[0]["image"] == name
    with pytest.raises(InputError, match="no file is called"):
        open_source(tmp_path / name / "z*.csv")
    assert len(open_source(tmp_path / "set?" / "x*.csv")) == 4


def test_a_file_that_was_written_anew_under_an_odd_name_is_read_anew(tmp_path):
    for count in (1, 2):
        (tmp_path / "a::b.csv").write_text("image,caption\n" + "a,b\n" * count)
        assert len(open_source(tmp_path / "a::b.csv")) == count


def test_class_folders_of_any_name(tmp_path):
    for name in ("a::b", "c[d]", "*", "e\nf"):
        write_pictures(tmp_path / "all [of] them" / name, count=2)
        (tmp_path / "all [of] them" / name / "metadata.jsonl").unlink()
    for streaming in (False, True):
        source = open_source(tmp_path / "all [of] them", streaming=streaming)
        assert source.class_names == ["*", "a::b", "c[d]", "e\nf"]


def test_tables_that_name_images_in_several_folders(tmp_path):
    """Their paths would all start from the first one's folder: the images of another set, under the same names."""
    for name in ("one", "two"):
        write_pictures(tmp_path / name, count=2)
    with pytest.raises(InputError, match=r"one/metadata.jsonl and .*two/metadata.jsonl name images by path"):
        open_source(tmp_path / "*" / "metadata.jsonl")


def test_what_a_pattern_finds_of_leftovers(tmp_path):
    for name in ("__MACOSX/a.jsonl", "b/a.jsonl", "b/@eaDir/a.jsonl", ".trash/a.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(json.dumps({"image": "a", "caption": "b"}))
    assert find_files(f"{tmp_path}/**/*.jsonl").files == [tmp_path / "b/a.jsonl"]
    assert find_files(f"{tmp_path}/.tra*/*.jsonl").files == [tmp_path / ".trash/a.jsonl"]
