"""Images in base64 are decoded, and no error shows their letters."""

import base64
import io
import json

import pytest
from PIL import Image

from hf_clip.core.errors import InputError
from hf_clip.data.base64_images import decoded_base64
from hf_clip.data.images import UnreadableImage, image_name, read_image
from hf_clip.data.sources import open_source
from hf_clip.data.split import split_by_image


def encoded(kind: str) -> bytes:
    memory = io.BytesIO()
    Image.effect_noise((60, 60), 50).convert("RGB").save(memory, kind)
    return memory.getvalue()


KINDS = ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"]


@pytest.mark.parametrize("kind", KINDS)
def test_all_ways_of_writing_it(kind):
    content = encoded(kind)
    letters = base64.b64encode(content).decode()
    others = [way(content).decode() for way in (base64.urlsafe_b64encode, base64.encodebytes)]
    for text in [letters, letters.rstrip("="), *others, f"data:image/{kind.lower()};base64,{letters}"]:
        assert decoded_base64(text) == decoded_base64(text.encode()) == content
        assert read_image(text)[1] == read_image(content)[1]
        assert image_name(text) == "image in base64"


@pytest.mark.parametrize(
    "text", ["a.png", "/9j/a.png", "x" * 5000, "images/" + "a" * 90 + ".jpg", "", "data:image/png"]
)
def test_other_texts_are_none(text):
    assert decoded_base64(text) is None
    assert len(image_name(text)) < 200


def test_a_damaged_one_is_skipped_in_few_words():
    for text in ("data:image/png;base64,%%%", base64.b64encode(encoded("PNG")).decode()[:2000]):
        with pytest.raises(UnreadableImage) as raised:
            read_image(text)
        assert len(str(raised.value)) < 200


def test_a_table_of_them(tmp_path):
    rows = [{"image": base64.b64encode(encoded(kind)).decode(), "caption": kind} for kind in KINDS]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = open_source(tmp_path / "a.jsonl")
    for row in source.rows:
        assert read_image(row["image"], source.folder)[0].size == (60, 60)
        assert source.picture_name(row) == "image in base64"
    assert len(split_by_image(source, 0.5)[1]) == 3


@pytest.mark.parametrize("streaming", [False, True])
def test_a_table_of_addresses_is_refused_with_what_to_do(streaming, tmp_path):
    address = "https://example.org/1.png" + "?" * 500
    (tmp_path / "a.jsonl").write_text(json.dumps({"url": address, "caption": "a"}) + "\n")
    with pytest.raises(InputError, match=r"a.jsonl: row 1 has an address in column 'url' .*img2dataset") as raised:
        open_source(tmp_path / "a.jsonl", image_column="url", streaming=streaming)
    assert len(str(raised.value)) < 500


def test_an_address_among_files_is_skipped_with_the_reason(pictures):
    with pytest.raises(UnreadableImage, match="the web is not fetched"):
        read_image("http://example.org/1.png", pictures)
