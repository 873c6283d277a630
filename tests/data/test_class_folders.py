"""Images in the folders of their classes: none is left out without a word, and nothing else is taken for a class."""

import logging
import shutil

import pytest
from PIL import Image

from hf_clip.core.errors import InputError
from hf_clip.data.folders import say_once, visible
from hf_clip.data.images import read_image
from hf_clip.data.sources import open_source


@pytest.fixture(autouse=True)
def warned(caplog):
    say_once.cache_clear()
    visible.cache_clear()
    caplog.set_level(logging.WARNING)
    return caplog


@pytest.fixture
def image(tmp_path):
    Image.new("RGB", (8, 8), "red").save(tmp_path / "image.png")
    return tmp_path / "image.png"


@pytest.fixture
def animals(tmp_path, image):
    """Two classes of two."""
    for name in ("cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png"):
        put(tmp_path / "animals" / name, image)
    return tmp_path / "animals"


def put(file, image):
    file.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(image, file)


LEFT_BEHIND = [
    ".ipynb_checkpoints/1-checkpoint.png", ".Trash-1000/files/1.png", ".thumbnails/1.png", "__MACOSX/cat/._1.png",
    "@eaDir/1.png", "$RECYCLE.BIN/1.png", "System Volume Information/1.png", "lost+found/1.png", ".git/1.png",
    "__pycache__/1.png", "#recycle/1.png", "cat/._1.png", "cat/.ipynb_checkpoints/1-checkpoint.png",
    "cat/@eaDir/1.png", "cat/Thumbs.db", "cat/desktop.ini", ".DS_Store", "._cat.png", ".cache/1.parquet",
    "._shard.tar", "cat/._metadata.jsonl", "__MACOSX/metadata.jsonl",
]  # fmt: skip


@pytest.mark.parametrize("streaming", [False, True])
def test_what_systems_leave_behind_is_no_class_caption_or_row(streaming, animals, image, warned):
    for name in LEFT_BEHIND:
        put(animals / name, image)
    source = open_source(animals, streaming=streaming)
    assert source.class_names == ["cat", "dog"]
    rows = source.rows if not streaming else [row for shard in range(4) for row in source.read_shard(shard)]
    assert [source.captions_of(row) for row in rows] == [["cat"], ["cat"], ["dog"], ["dog"]]
    assert warned.text == ""


SAVED = {".ppm": "PPM", ".pgm": "PPM", ".tga": "TGA", ".ico": "ICO", ".dds": "DDS", ".pcx": "PCX", ".mpo": "MPO"} | {
    ".j2k": "JPEG2000", ".icns": "ICNS", ".JPE": "JPEG", ".apng": "PNG", ".avif": "AVIF", ".qoi": "QOI", ".sgi": "SGI",
}  # fmt: skip


def test_every_kind_that_pillow_opens_is_a_row(tmp_path, warned):
    for suffix, kind in SAVED.items():
        file = tmp_path / "all" / suffix[1:] / f"1{suffix}"
        file.parent.mkdir(parents=True)
        Image.new("RGB", (64, 64), "red").save(file, kind)
    source = open_source(tmp_path / "all")
    assert source.class_names == sorted(suffix[1:] for suffix in SAVED)
    for record in source.rows:
        red = read_image(record["image"])[0].getpixel((32, 32))
        assert red[0] > 240, record
        assert max(red[1:]) < 20, record
    assert warned.text == ""


def test_kinds_of_phones_are_rows_whether_or_not_they_can_be_decoded_here(animals, image):
    for name in ("emu/1.heic", "emu/2.HEIF", "fox/1.jxl", "gnu/1.psd"):
        put(animals / name, image)
    assert open_source(animals).class_names == ["cat", "dog", "emu", "fox", "gnu"]


def test_what_looks_like_an_image_and_is_none_of_the_rows_is_counted_and_named(animals, image, warned):
    names = ["emu/1.NEF", "emu/2.dng", "fox/1.svg", "gnu/1.xcf", "cat/no_suffix", "cat/3.png.part", "top.png"]
    for name in [*names, "cat/deeper/1.png", "cat/deeper/still/2.png"]:
        put(animals / name, image)
    (animals / "hen").mkdir()
    (animals / "cat" / "notes.md").write_text("no image")
    assert len(open_source(animals)) == 4
    said = warned.text
    for line in (
        "2 files left out (emu/1.NEF, emu/2.dng), raw data of a camera: develop to JPEG or TIFF first",
        "1 file left out (fox/1.svg), a drawing: render to PNG first",
        "2 files left out (cat/3.png.part, cat/no_suffix), an image by its content, not by its name: rename",
        "1 file left out (top.png), in no folder of a class",
        "2 files left out (cat/deeper/1.png, cat/deeper/still/2.png), deeper than the folders of the classes",
        "no image in emu, fox, gnu, …, so no class of that name",
    ):
        assert line in said
    assert "notes" not in said


def test_a_name_that_is_not_utf8(animals, image, warned):
    with open(bytes(animals / "cat") + b"/\xff.png", "wb") as file:
        file.write(image.read_bytes())
    assert len(open_source(animals)) == 4
    assert r"1 file left out (cat/\udcff.png), of a name that is not UTF-8: rename" in warned.text


def test_a_link_that_leads_nowhere_is_a_row_that_cannot_be_read(animals):
    (animals / "cat" / "3.png").symlink_to("nowhere")
    assert len(open_source(animals)) == 5


@pytest.mark.parametrize("name", ["cat/metadata.jsonl", "dog/metadata.csv", "cat/0.parquet", "dog/0.tar"])
def test_captions_in_the_folders_are_not_passed_over(name, animals):
    (animals / name).write_text("x")
    with pytest.raises(InputError, match=rf"{name} would be passed over, .*: give one of the folders"):
        open_source(animals)


def test_captions_beside_one_folder_of_images_are_not_passed_over(tmp_path, image, warned):
    """The layout of many a captioned set: its one folder would be every caption."""
    put(tmp_path / "flickr" / "images" / "1.png", image)
    (tmp_path / "flickr" / "captions.csv").write_text("image,caption\nimages/1.png,a dog\n")
    with pytest.raises(
        InputError, match=r"captions.csv would be passed over, .* give that file, or call it metadata.csv"
    ):
        open_source(tmp_path / "flickr")
    source = open_source(tmp_path / "flickr" / "captions.csv")
    assert source.captions(0) == ["a dog"]
    put(tmp_path / "flickr" / "more" / "1.png", image)
    assert open_source(tmp_path / "flickr").class_names == ["images", "more"]
    assert "captions.csv is not read, for the folders are classes" in warned.text


def test_texts_beside_images_are_named(animals, warned):
    (animals / "cat" / "1.txt").write_text("a cat")
    open_source(animals)
    assert "1 texts beside images are not read (cat/1.txt): put captions into metadata.jsonl" in warned.text


def test_a_folder_of_tables(tmp_path):
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text('{"image": "a.png", "caption": "b"}\n')
    (tmp_path / "dataset_info.json").write_text("{}")
    assert len(open_source(tmp_path)) == 2


def test_archives_are_to_be_unpacked(tmp_path):
    (tmp_path / "train.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"has neither .*: unpack train.zip first"):
        open_source(tmp_path)


def test_a_folder_and_its_archive(tmp_path, image):
    put(tmp_path / "train" / "cat" / "1.png", image)
    put(tmp_path / "train" / "dog" / "1.png", image)
    (tmp_path / "train.zip").write_bytes(b"PK")
    assert open_source(tmp_path).class_names == ["cat", "dog"]
    (tmp_path / "train.tar").write_bytes(b"x")
    with pytest.raises(InputError, match=r"train.tar stands beside a folder of its name: give one of the two"):
        open_source(tmp_path)
