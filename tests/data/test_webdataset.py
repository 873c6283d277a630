"""WebDataset shards written by tarfile: found, read and streamed alike; damaged ones are named."""

import gzip
import io
import json
import tarfile

import pytest
from tar_shards import COLORS, packed, picture, shards, write_tar

from hf_clip.core.errors import InputError
from hf_clip.data import webdataset
from hf_clip.data.images import read_image
from hf_clip.data.sources import open_source


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


def sample(**parts: bytes) -> dict[str, bytes]:
    return {"png": picture("red"), **parts}


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n", b" \t", "\u00a0\u3000".encode()])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf", b"\n"])
def test_white_space_and_marks_around_a_text_are_no_part_of_it(start, ending, tmp_path, streaming):
    texts = [b"cat", start + b"cat" + ending, b"black dog" + ending]
    file = write_tar(tmp_path / "a.tar", [sample(txt=text, cls=text) for text in texts])
    captioned = open_source(file, streaming=streaming)
    assert [captioned.captions_of(record) for record in records(captioned)] == [["cat"], ["cat"], ["black dog"]]
    for names in (None, ["black dog", "cat"]):
        labelled = open_source(file, label_column="cls", class_names=names, streaming=streaming)
        assert labelled.class_names == (names if streaming else ["black dog", "cat"])
        numbers = [1, 1, 0] if labelled.class_names else ["cat", "cat", "black dog"]
        assert [labelled.label_of(record) for record in records(labelled)] == numbers


def json_of(value) -> bytes:
    return json.dumps(value).encode()


@pytest.mark.parametrize(
    ("meta", "column", "caption"),
    [
        ({"captions": {"en": "cat", "de": "Katze"}}, "json.captions.en", "cat"),
        ({"a": {"b": {"c": ["cat"]}}}, "json.a.b.c", "cat"),
        ({"captions.en": "cat"}, "json.captions.en", "cat"),
        ({"a.b": {"c.d": "cat"}}, "json.a.b.c.d", "cat"),
        ({"a": {"b": "dog"}, "a.b": "cat"}, "json.a.b", "cat"),
    ],
)
def test_fields_at_any_depth(meta, column, caption, tmp_path, streaming):
    file = write_tar(tmp_path / "a.tar", [sample(json=json_of(meta)), sample(json=json_of({"other": 1}))])
    source = open_source(file, caption_column=column, captions_required=False, streaming=streaming)
    assert [source.captions_of(record) for record in records(source)] == [[caption], []]


def test_a_part_with_a_dot(tmp_path, streaming):
    file = write_tar(tmp_path / "a.tar", [{"seg.png": picture("red"), "en.json": json_of({"caption": "x"})}])
    source = open_source(file, image_column="seg.png", caption_column="en.json.caption", streaming=streaming)
    assert [source.captions_of(record) for record in records(source)] == [["x"]]


def test_parts_that_come_late(tmp_path, streaming):
    """The first shard has no sample; what was asked for stands in one beyond those that are looked at first."""
    write_tar(tmp_path / "0.tar", [])
    write_tar(tmp_path / "1.tar", [sample(txt=b"x")] * 120)
    write_tar(tmp_path / "2.tar", [sample(json=json_of({"title": "late", "kind": "cat"}))])
    settings = {"captions_required": False, "streaming": streaming}
    source = open_source(tmp_path, caption_column="json.title", **settings)
    found = records(source) if not streaming else list(source.read_shard(2))
    assert source.captions_of(found[-1]) == ["late"]
    with pytest.raises(
        InputError, match=r"no column 'json.titel': set caption_column to one of image, png, txt, json, json.title"
    ):
        open_source(tmp_path, caption_column="json.titel", **settings)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([b"7", b"7\n", b" 3 "], [7, 7, 3]),
        ([b"cat", b"7", b"cat"], ["cat", "7", "cat"]),
        ([{"cls": "cat"}, {"cls": 7}, {"cls": "7"}], ["cat", "7", "7"]),
        ([{"cls": ["cat", "dog\n"]}, {"cls": []}, {"cls": ["dog"]}], [["cat", "dog"], [], ["dog"]]),
        ([{"cls": []}, {"cls": [1, "0"]}, {"cls": [2]}], [[], [1, 0], [2]]),
    ],
)
def test_kinds_of_labels(labels, expected, tmp_path, streaming):
    part, column = ("cls", "cls") if isinstance(labels[0], bytes) else ("json", "json.cls")
    contents = [label if part == "cls" else json_of(label) for label in labels]
    file = write_tar(tmp_path / "a.tar", [sample(**{"txt": b"x", part: content}) for content in contents])
    found = records(open_source(file, label_column=column, streaming=streaming))
    assert [record[column] for record in found] == expected


def test_what_is_hidden_is_no_sample(tmp_path, streaming):
    names = [
        "0.png",
        "._0.png",
        "0.txt",
        ".DS_Store",
        "__MACOSX/1.png",
        ".cache/1.png",
        "PaxHeaders.7/0.png",
        "no_dot",
    ]
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in names:
            content = picture("red") if name == "0.png" else b"a text"
            member = tarfile.TarInfo(f"./data/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    source = open_source(tmp_path / "a.tar", streaming=streaming)
    assert [source.captions_of(record) for record in records(source)] == [["a text"]]


def test_names_that_are_no_utf_8(tmp_path, streaming):
    content = packed({b"caf\xe9.png".decode("utf-8", "surrogateescape"): picture("red"), "x.txt": b"x"})
    (tmp_path / "a.tar").write_bytes(content)
    source = open_source(tmp_path / "a.tar", captions_required=False, streaming=streaming)
    assert source.picture_name(records(source)[0]) == "caf\ufffd.png"


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tgz"])
def test_compressed_shards(name, tmp_path, streaming):
    whole = write_tar(tmp_path / "x", [sample(txt=b"one"), sample(txt=b"two")]).read_bytes()
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / name).write_bytes(gzip.compress(whole))
    for given in (tmp_path / "shards", tmp_path / "shards" / name):
        source = open_source(given, streaming=streaming)
        assert [source.captions_of(record) for record in records(source)] == [["one"], ["two"]]


def test_shards_that_were_joined(tmp_path, streaming):
    """Their samples may go by the same names; the last of one and the first of the other too."""
    parts = [write_tar(tmp_path / "x", [sample(txt=text)]).read_bytes() for text in (b"one", b"two", b"three")]
    (tmp_path / "a.tar").write_bytes(b"".join(parts))
    source = open_source(tmp_path / "a.tar", streaming=streaming)
    assert [source.captions_of(record) for record in records(source)] == [["one"], ["two"], ["three"]]


def test_a_folder_read_anew_after_hf_clip_reads_otherwise(tmp_path, monkeypatch):
    """`datasets` keeps the rows that an earlier version of hf_clip made of the same shards."""
    file = write_tar(tmp_path / "a.tar", [sample(txt=b"x")])
    assert open_source(file).captions(0) == ["x"]
    monkeypatch.setattr(webdataset, "_captions", lambda where, value: ["otherwise"])
    assert open_source(file).captions(0) == ["x"], "a function's text is no part of the key"
    monkeypatch.setattr(webdataset, "_READING", -1)
    assert open_source(file).captions(0) == ["otherwise"]


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
    "a caption's pair": ([sample(json=rb'{"caption": "a \ud83d"}')], r"a.tar: sample 'folder/000' has half of a surr"),
    "a caption's other half": (
        [sample(json=rb'{"caption": ["a", "\ude00\ud83d"]}')],
        r"sample 'folder/000' has half of a surrogate pair \('.ude00'\) in a caption, which no tokenizer takes: fix",
    ),
    "apart": ([{"png": b"1"}, {"txt": b"a"}], "the parts of sample 'folder/000' are apart: pack them one after an"),
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
    file = write_tar(tmp_path / "a.tar", samples)
    if fault == "apart":  # as a shell lists *.png *.txt
        content = packed({f"folder/{i:03}.{part}": b"1" for part in ("png", "txt") for i in range(2)})
        file.write_bytes(content)
    with pytest.raises(InputError, match=message) as raised:
        records(open_source(file, streaming=streaming))
    assert "a.tar" in str(raised.value)
    assert "\n" not in str(raised.value)


LABEL_FAULTS = {
    "a pair": ({"cls": "\ud83d"}, r"has half of a surrogate pair .* in a label, which no tokenizer takes"),
    "other": ({"cls": 0.5}, "has float for a label, not text"),
    "truth": ({"cls": True}, "has bool for a label, not text"),
    "a list": ({"cls": ["a"]}, "has a list of labels, unlike others"),
}


@pytest.mark.parametrize("fault", LABEL_FAULTS)
def test_faulty_labels_are_refused_with_their_sample(fault, tmp_path, streaming):
    value, message = LABEL_FAULTS[fault]
    file = write_tar(tmp_path / "a.tar", [sample(json=json_of({"cls": "a"})), sample(json=json_of(value))])
    with pytest.raises(InputError, match=rf"a.tar: sample 'folder/001' {message}"):
        records(open_source(file, label_column="json.cls", streaming=streaming))
    write_tar(file, [sample(cls=b"3"), sample(cls=b"cat")])
    with pytest.raises(InputError, match=r"sample 'folder/001' has the label 'cat', and others have numbers: fix it"):
        records(open_source(file, label_column="cls", class_names=list("abcd"), streaming=streaming))


def test_folders_of_two_kinds_are_refused(tmp_path):
    shards(tmp_path, png=picture, txt=str.encode)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"holds files of parquet and webdataset: give one kind, as in 'folder/\*"):
        open_source(tmp_path)
