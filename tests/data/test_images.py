"""Whatever a file holds becomes upright 8-bit RGB on white, or a reason why not; pixels are worked out by hand."""

import contextlib
import hashlib
import io
import random
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from hf_clip.core.digests import content_id
from hf_clip.data.images import UnreadableImage, image_name, read_image

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def encode(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(content: bytes) -> list[tuple[int, int, int]]:
    image, _ = read_image(content)
    assert image.mode == "RGB"
    return [image.getpixel((x, y)) for y in range(image.height) for x in range(image.width)]


def row_of(mode: str, *values) -> Image.Image:
    image = Image.new(mode, (len(values), 1))
    for x, value in enumerate(values):
        image.putpixel((x, 0), value)
    return image


def palette_of(*values: int) -> Image.Image:
    """Pixels of the palette 0 = red, 1 = blue."""
    image = row_of("P", *values)
    image.putpalette([*RED, *BLUE])
    return image


ODD_PICTURES = {
    "plain": (encode(row_of("RGB", RED, BLUE)), [RED, BLUE]),
    "one pixel": (encode(row_of("RGB", RED)), [RED]),
    "grey": (encode(row_of("L", 7)), [(7, 7, 7)]),
    "black and white": (encode(row_of("1", 0, 1)), [(0, 0, 0), WHITE]),
    # 0x0000, 0x8000, 0xffff and a grey of 8 bits, written twice: 0x6464
    "16-bit grey": (
        encode(Image.fromarray(np.array([[0, 0x8000, 0xFFFF, 0x6464]], dtype=np.uint16))),
        [(0, 0, 0), (128, 128, 128), WHITE, (100, 100, 100)],
    ),
    "transparent": (encode(row_of("RGBA", (9, 9, 9, 0), (*RED, 255), (*RED, 128))), [WHITE, RED, (255, 127, 127)]),
    "grey, transparent": (encode(row_of("LA", (0, 0), (0, 255), (0, 128))), [WHITE, (0, 0, 0), (127, 127, 127)]),
    "palette": (encode(palette_of(0, 1)), [RED, BLUE]),
    "palette with a transparent colour": (encode(palette_of(0, 1), transparency=0), [WHITE, BLUE]),
    "palette with opacities": (encode(palette_of(0, 1), transparency=b"\xff\x80"), [RED, (127, 127, 255)]),
    "colour that means transparent": (encode(row_of("RGB", RED, BLUE), transparency=RED), [WHITE, BLUE]),
    "CMYK": (encode(row_of("CMYK", (0, 255, 255, 0), (0, 0, 0, 255)), "TIFF"), [RED, (0, 0, 0)]),
    "animation": (
        encode(palette_of(0, 0), "GIF", save_all=True, append_images=[palette_of(1, 1)]),
        [RED, RED],
    ),
}


@pytest.mark.parametrize("kind", ODD_PICTURES)
def test_odd_pictures_are_converted(kind):
    content, expected = ODD_PICTURES[kind]
    assert pixels(content) == expected


def test_an_animation_has_two_frames_of_which_the_first_is_taken():
    with Image.open(io.BytesIO(ODD_PICTURES["animation"][0])) as image:
        assert image.n_frames == 2
        image.seek(1)
        assert read_image(image)[0].getpixel((0, 0)) == RED


def test_cmyk_of_a_camera():
    image, _ = read_image(encode(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG"))
    assert np.abs(np.array(image.getpixel((8, 8))) - RED).max() < 6


def test_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its left side: turned clockwise to be shown
    stored = Image.new("RGB", (3, 2), "white")
    stored.putpixel((0, 0), RED)
    stored.putpixel((2, 0), BLUE)
    image, _ = read_image(encode(stored, exif=exif))
    assert image.size == (2, 3)
    assert (image.getpixel((1, 0)), image.getpixel((1, 2)), image.getpixel((0, 0))) == (RED, BLUE, WHITE)


WHOLE = encode(Image.effect_noise((64, 64), 50))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (WHOLE[: len(WHOLE) // 2], "not a whole picture .*truncated"),
        (WHOLE[:20], "not a whole picture"),
        (b"", "the file is empty"),
        (b"<html>not found</html>", "not a whole picture .*cannot identify"),
        ("missing.png", "No such file"),
        ("", "directory"),
        ("null\0.png", "null"),
        (None, "no file is named"),
        ({"bytes": None, "path": None}, "no file is named"),
        ({"bytes": b"", "path": "a.png"}, "the file is empty"),
        (7, "a int is not a picture"),
    ],
)
def test_broken_pictures_say_why(value, reason, tmp_path):
    with pytest.raises(UnreadableImage, match=reason):
        read_image(value, tmp_path)


def test_any_failure_of_a_decoder_is_a_broken_picture(monkeypatch):
    # AVIF's raises RuntimeError, DDS's NotImplementedError, for damaged files.
    def fail(*args, **kwargs):
        raise NotImplementedError("Unknown pixel format flags 136")

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(UnreadableImage, match="flags 136"):
        read_image(WHOLE)


def test_a_decompression_bomb_is_a_broken_picture(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UnreadableImage, match="decompression bomb"):
        read_image(WHOLE)


def test_paths_bytes_and_what_datasets_gives(tmp_path):
    content = encode(row_of("RGB", RED))
    (tmp_path / "a.png").write_bytes(content)
    values = ["a.png", tmp_path / "a.png", content, {"bytes": content, "path": None}, {"bytes": None, "path": "a.png"}]
    assert len({read_image(value, tmp_path)[1] for value in values}) == 1
    assert all(read_image(value, tmp_path)[0].getpixel((0, 0)) == RED for value in values)


def test_digests_name_the_content():
    digest = hashlib.blake2b(WHOLE, digest_size=8).digest()
    assert read_image(WHOLE)[1] == content_id(WHOLE) == np.frombuffer(digest, "<i8")[0]
    assert min(content_id(bytes([i])) for i in range(9)) < 0 < max(content_id(bytes([i])) for i in range(9))


def test_digests_of_decoded_pictures_tell_palettes_and_shapes_apart():
    other = palette_of(0, 1)
    other.putpalette([*BLUE, *RED])
    tall = palette_of(0, 1).transpose(Image.Transpose.ROTATE_270)  # the same bytes, another shape
    assert len({read_image(image)[1] for image in (palette_of(0, 1), other, tall)}) == 3
    assert read_image(palette_of(0, 1))[1] == read_image(row_of("RGB", RED, BLUE))[1]


def test_names_for_reports():
    assert image_name("a/b.png") == "a/b.png"
    assert image_name({"bytes": b"", "path": "b.png"}) == "b.png"
    assert image_name({"bytes": b"", "path": None}) == image_name(None) == "picture without a file name"


def chunk(kind: bytes, content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")


def png(width: int, height: int, *chunks: bytes) -> bytes:
    """Of 8-bit grey, whose pixels are missing or in `chunks`."""
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IEND", b"")


def test_a_bomb_is_refused_by_its_header_before_memory_is_taken():
    # Ten gigabytes, of which the file holds none: a decoder that began would say that it is truncated.
    with pytest.raises(UnreadableImage, match=r"^not a whole .*Image size \(10000000000 pixels\) exceeds limit"):
        read_image(png(100_000, 100_000))


def test_bombs_in_text_chunks_are_passed_over():
    bomb = zlib.compress(b"x" * (70 * 1024 * 1024), 9)
    pixels = chunk(b"IDAT", zlib.compress(b"\0\7"))
    for text in (bomb, zlib.compress(b"x")):
        assert read_image(png(1, 1, chunk(b"zTXt", b"k\0\0" + text), pixels))[0].getpixel((0, 0)) == (7, 7, 7)


def test_a_large_picture_within_the_limit_is_read_without_a_warning(monkeypatch, recwarn, capfd):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 64 - 1)
    assert read_image(WHOLE)[0].size == (64, 64)
    assert not recwarn.list
    assert capfd.readouterr() == ("", "")


def test_reasons_are_the_same_in_every_run():
    reasons = []
    for _ in range(2):
        with pytest.raises(UnreadableImage) as raised:
            read_image(b"no picture")
        reasons.append(str(raised.value))
    assert reasons == ["not a whole picture (cannot identify image file)"] * 2


NOISE = Image.effect_noise((40, 30), 90).convert("RGB")
FORMATS = {
    "png": encode(NOISE), "palette": encode(NOISE.convert("P")), "jpeg": encode(NOISE, "JPEG"),
    "progressive": encode(NOISE, "JPEG", progressive=True), "webp": encode(NOISE, "WEBP"), "bmp": encode(NOISE, "BMP"),
    "gif": encode(NOISE, "GIF", save_all=True, append_images=[NOISE.rotate(90)]), "tiff": encode(NOISE, "TIFF"),
    "deflated": encode(NOISE, "TIFF", compression="tiff_deflate"),
    "lzw": encode(NOISE, "TIFF", compression="tiff_lzw"),
}  # fmt: skip


def mutilated(content: bytes, generator: random.Random) -> bytes:
    broken = bytearray(content)
    for _ in range(generator.choice([1, 3, 20])):
        way, at = generator.randrange(3), generator.randrange(len(broken))
        if way == 0:
            broken[at] ^= generator.randrange(1, 256)
        elif way == 1:
            other = generator.randrange(len(broken))
            broken[at : at + 8], broken[other : other + 8] = broken[other : other + 8], broken[at : at + 8]
        elif generator.random() < 0.3:
            del broken[max(at, 1) :]
    # Most of what stands in a header is at the beginning.
    if generator.random() < 0.5:
        broken[generator.randrange(min(64, len(broken)))] = generator.randrange(256)
    return bytes(broken)


@pytest.mark.parametrize("count", [6, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", FORMATS)
def test_mutilated_pictures_are_pictures_or_unreadable(kind, count):
    readable = 0
    for seed in range(count):
        with contextlib.suppress(UnreadableImage):
            image, _ = read_image(mutilated(FORMATS[kind], random.Random(seed)))
            assert image.mode == "RGB"
            assert image.tobytes()
            readable += 1
    assert readable < count


def test_a_picture_in_a_store_is_read_and_one_on_the_web_is_not(tmp_path):
    Image.new("RGB", (4, 4), "red").save(tmp_path / "red.png")
    with zipfile.ZipFile(tmp_path / "pictures.zip", "w") as archive:
        archive.write(tmp_path / "red.png", "red.png")
    for address in (f"file://{tmp_path}/red.png", f"zip://red.png::file://{tmp_path}/pictures.zip"):
        assert read_image(address)[0].getpixel((0, 0)) == (255, 0, 0)
    with pytest.raises(UnreadableImage, match="No such file"):
        read_image(f"file://{tmp_path}/blue.png")
    with pytest.raises(UnreadableImage, match=r"the web is not fetched: .*img2dataset"):
        read_image("https://127.0.0.1:1/red.png")


def photograph(width: int = 1600, height: int = 1200) -> Image.Image:
    """Light that falls off, texture of every size, and the noise of a sensor."""
    generator = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    light = 130 + 60 * np.sin(x / width * 5) * np.cos(y / height * 4)
    texture = sum(
        np.asarray(Image.fromarray(generator.normal(0, 9, (height // n, width // n)).astype(np.float32))
                   .resize((width, height), Image.Resampling.BICUBIC))
        for n in (2, 4, 8, 16, 32, 64)
    )  # fmt: skip
    colors = np.stack([light + texture, light - texture / 2, 255 - light + texture], axis=-1)
    return Image.fromarray((colors + generator.normal(0, 5, colors.shape)).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 0}], ids=["4:2:0", "progressive", "4:4:4"]
)
def test_a_large_jpeg_is_decoded_at_the_smallest_size_that_is_enough(options):
    content = encode(photograph(), "JPEG", quality=90, **options)
    whole, whole_id = read_image(content)
    small = np.asarray(whole.resize((133, 100), Image.Resampling.BICUBIC)).astype(float)
    for at_least, height in ((1, 150), (150, 150), (151, 300), (300, 300), (599, 600), (601, 1200), (5000, 1200)):
        image, image_id = read_image(content, at_least=at_least)
        assert (image.size, image.mode, image_id) == ((height * 4 // 3, height), "RGB", whole_id)
        found = np.asarray(image.resize((133, 100), Image.Resampling.BICUBIC)).astype(float)
        assert np.abs(found - small).mean() <= 2
    assert image.tobytes() == whole.tobytes()


def test_only_a_jpeg_is_decoded_at_reduced_size():
    noise = Image.effect_noise((64, 64), 50)
    for content in (WHOLE, encode(noise, "WEBP"), encode(noise, "GIF"), encode(noise, "TIFF")):
        assert read_image(content, at_least=8)[0].size == (64, 64)
    assert read_image(noise, at_least=8)[0].size == noise.size == (64, 64)


def test_odd_jpegs_are_converted_at_reduced_size_too():
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.new("RGB", (320, 160), "white")
    stored.paste(RED, (0, 0, 160, 160))
    turned, _ = read_image(encode(stored, "JPEG", exif=exif), at_least=20)
    assert turned.size == (20, 40)
    assert np.abs(np.array(turned.getpixel((10, 5))) - RED).max() < 6
    assert turned.getpixel((10, 35)) == WHITE
    cmyk, _ = read_image(encode(Image.new("CMYK", (64, 64), (0, 255, 255, 0)), "JPEG"), at_least=8)
    assert cmyk.size == (8, 8)
    assert np.abs(np.array(cmyk.getpixel((4, 4))) - RED).max() < 6
    grey, _ = read_image(encode(Image.new("L", (64, 64), 7), "JPEG"), at_least=8)
    assert (grey.size, grey.getpixel((4, 4))) == ((8, 8), (7, 7, 7))
    content = encode(photograph(320, 240), "JPEG")
    with pytest.raises(UnreadableImage, match=r"not a whole picture .*truncated"):
        read_image(content[: len(content) // 2], at_least=8)
