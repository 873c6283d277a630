"""WebDataset shards written by tarfile: found, read and streamed alike; damaged ones are named."""

import json

import pytest
from tar_shards import COLORS, picture, shards, write_tar

from hf_clip.data.images import read_image
from hf_clip.data.sources import open_source
from hf_clip.errors import InputError


def records(source) -> list[dict]:
    if source.streaming:
        return [record for shard in range(source.rows.num_shards) for record in source.read_shard(shard)]
    return list(source.rows)


@pytest.fixture(params=[False, True], ids=["whole", "streaming"])
def streaming(request) -> bool:
    return request.param


@pytest.mark.parametrize("name", ["", "*.tar", "[01].tar"])
def test_folders_and_patterns_hold_all_shards(name, tmp_path, streaming, capfd):
    source = open_source(shards(tmp_path, jpg=picture, txt=str.encode) / name, streaming=streaming)
    assert [source.captions_of(record) for record in records(source)] == [[color] for color in COLORS]
    image, _ = read_image(records(source)[2][source.image_column], source.folder)
    assert image.getpixel((4, 4)) == (0, 0, 255)
    assert source.picture_name(records(source)[0]) == "folder/000.jpg"
    assert capfd.readouterr() == ("", "")


def test_one_file(tmp_path, streaming):
    source = open_source(shards(tmp_path, png=picture, txt=str.encode) / "1.tar", streaming=streaming)
    assert [source.captions_of(record) for record in records(source)] == [["yellow"], ["black"], ["orange"]]


def as_json(color: str) -> bytes:
    return json.dumps({"caption": [color, f"very {color}"], "title": f"the {color} one", "n": 7}).encode()


def test_captions_in_json(tmp_path, streaming):
    folder = shards(tmp_path, png=picture, json=as_json)
    source = open_source(folder, streaming=streaming)
    assert source.captions_of(records(source)[1]) == ["green", "very green"]
    source = open_source(folder, caption_column="json.title", streaming=streaming)
    assert source.captions_of(records(source)[1]) == ["the green one"]
    with pytest.raises(
        InputError, match=r"no column 'json.label': set caption_column to one of image, png, json, json.ca"
    ):
        open_source(folder, caption_column="json.label", streaming=streaming)
    with pytest.raises(InputError, match=r"0.tar: sample 'folder/000' has int for a caption, not text"):
        records(open_source(folder, caption_column="json.n", streaming=streaming))


def test_class_numbers(tmp_path, streaming):
    folder = shards(tmp_path, png=picture, cls=lambda color: str(COLORS.index(color)).encode())
    source = open_source(folder, label_column="cls", class_names=COLORS, streaming=streaming)
    assert [source.label_of(record) for record in records(source)] == list(range(6))
    assert source.captions_of(records(source)[5]) == ["orange"]
    with pytest.raises(InputError, match=r"row \d has a label 5 that is no class"):
        records(open_source(folder, label_column="cls", class_names=COLORS[:5], streaming=streaming))


def test_pictures_of_several_kinds(tmp_path, streaming):
    kinds = [("jpg", "JPEG"), ("png", "PNG"), ("webp", "WEBP"), ("JPEG", "JPEG")]
    file = write_tar(tmp_path / "a.tar", [{part: picture("blue", kind), "txt": b"x"} for part, kind in kinds])
    found = records(open_source(file, streaming=streaming))
    assert len({read_image(record["image"])[0].size for record in found}) == 1
    both = write_tar(tmp_path / "b.tar", [{"jpg": picture("red", "JPEG"), "png": picture("blue"), "txt": b"x"}])
    with pytest.raises(InputError, match=r"b.tar: sample 'folder/000' has 2 pictures: set image_column to one of"):
        records(open_source(both, streaming=streaming))
    (record,) = records(open_source(both, image_column="png", streaming=streaming))
    assert read_image(record["png"])[0].getpixel((0, 0)) == (0, 0, 255)


def damaged_header(content: bytes) -> bytes:
    """The second sample's first header made unreadable, which tarfile takes for the end."""
    at = content.index(b"folder/001.png")
    return content[:at] + b"\xff" * 512 + content[at + 512 :]


@pytest.mark.parametrize("damage", [damaged_header, lambda content: content[: content.index(b"folder/002.png") + 600]])
def test_a_damaged_shard_is_named(damage, tmp_path, streaming, capfd):
    folder = shards(tmp_path, png=picture, txt=str.encode)
    (folder / "1.tar").write_bytes(damage((folder / "1.tar").read_bytes()))
    capfd.readouterr()
    with pytest.raises(
        InputError, match=r"^shard .*1.tar is damaged after folder/00\d.\w+ \(.*\): write or"
    ) as raised:
        records(open_source(folder, streaming=streaming))
    assert "\n" not in str(raised.value)
    assert capfd.readouterr() == ("", "")


def test_a_shard_written_anew_is_read_anew(tmp_path):
    file = write_tar(tmp_path / "a.tar", [{"png": picture("red"), "txt": b"a"}])
    assert open_source(file).captions(0) == ["a"]
    write_tar(file, [{"png": picture("red"), "txt": b"something else"}])
    assert open_source(file).captions(0) == ["something else"]


FAULTS = {
    "twice": ([{"png": b"1", "PNG": b"2", "txt": b"a"}], "sample 'folder/000' has two parts 'png'"),
    "no utf-8": ([{"png": b"1", "txt": b"\xff"}], "part 'txt' of sample 'folder/000' cannot be read"),
    "no json": ([{"png": b"1", "json": b"{"}], "part 'json' of sample 'folder/000' cannot be read"),
    "empty caption": ([{"png": b"1", "txt": b"a"}, {"png": b"1", "txt": b" "}], "row 2 has an empty caption"),
    "no caption": ([{"png": b"1", "txt": b"a"}, {"png": b"1"}], "row 2 has an empty caption"),
    "no captions": ([{"png": b"1"}], "none of the columns caption, .*: set caption_column to one of image"),
    "no pictures": ([{"txt": b"1"}], "none of the columns image, .*: set image_column to one of txt"),
    "nothing": ([], "no rows"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_samples_are_refused(fault, tmp_path, streaming):
    samples, message = FAULTS[fault]
    with pytest.raises(InputError, match=message) as raised:
        records(open_source(write_tar(tmp_path / "a.tar", samples), streaming=streaming))
    assert "a.tar" in str(raised.value)


def test_folders_of_two_kinds_are_refused(tmp_path):
    shards(tmp_path, png=picture, txt=str.encode)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"holds files of parquet and webdataset: give one kind, as in 'folder/\*"):
        open_source(tmp_path)
