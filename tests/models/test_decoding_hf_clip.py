"""Odd files become the image that the plain one holds, or a reason; colors are worked out by hand or by LittleCMS."""

import io
import re
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from odd_images import (
    ADOBE_RGB,
    CMYK_TABLE,
    COLORS,
    GRAY,
    GRAY_GAMMA_1,
    ODD_FILES,
    SIXTEEN,
    TURNED_BACK,
    blobs,
    chunk,
    exif,
    jpeg_with,
    png,
    saved,
    text_chunk,
    tiff,
)
from PIL import Image, ImageCms, features

from hf_clip.data.images import UnreadableImage, read_image
from hf_clip.models import decoding_hf_clip
from hf_clip.models.decoding_hf_clip import decode_image, to_rgb

GRAYS = np.dstack([GRAY] * 3)


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(decode_image(content)).astype(int)


def refusal(content) -> str:
    with pytest.raises(UnreadableImage) as raised:
        read_image(content)
    return str(raised.value)


# ---- depth --------------------------------------------------------------------------------------------------------

TWELVE = (GRAY * (4095 / 255)).round().astype(np.uint16)
DEEP = {
    "16 bits": saved(SIXTEEN),
    "TIFF of 16 bits": saved(SIXTEEN, "TIFF"),
    "TIFF of 12 in 16 that says so": saved(TWELVE, "TIFF", tiffinfo={281: 4095}),
    "PGM of 12": ODD_FILES["gray12.pgm"],
    "PGM of 16": b"P5 60 45 65535\n" + SIXTEEN.astype(">u2").tobytes(),
    "integers that say so": saved(GRAY.astype(np.int32) - 100, "TIFF", tiffinfo={340: -100.0, 341: 155.0}),
    "signed, that say so": tiff(GRAY.astype(np.int16), 2, 1, t281=(3, [255])),
    "floats of 0 to 1": saved((GRAY / 255).astype(np.float32), "TIFF"),
    "floats, rounded a little beyond": saved((GRAY / 254.9).astype(np.float32).clip(0, 1.0004), "TIFF"),
    "floats of 0 to 255 that say so": saved(GRAY.astype(np.float32), "TIFF", tiffinfo={281: 255}),
    "white is zero": tiff(65535 - SIXTEEN, 1, 0),
    "white is zero, floats": tiff((1 - GRAY / 255).astype(np.float32), 3, 0),
    "with opacity": png(np.dstack([SIXTEEN, np.full_like(SIXTEEN, 65535)]), 16, 4),
}  # fmt: skip
COLORS_16 = COLORS.astype(np.uint16) * 257
OPAQUE = np.full_like(SIXTEEN, 65535)
DEEP_COLORS = {
    "PNG": png(COLORS_16, 16, 2),
    "with opacity": png(np.dstack([COLORS_16, OPAQUE]), 16, 6),
    "TIFF": tiff(COLORS_16, 1, 2),
    "TIFF with opacity": tiff(np.dstack([COLORS_16, OPAQUE]), 1, 2, extra=(2,)),
    "PPM of 12": b"P6 60 45 4095\n" + (COLORS * (4095 / 255)).round().astype(">u2").tobytes(),
    "of 5 bands": tiff(np.dstack([COLORS, GRAY, GRAY]), 1, 2, extra=(0, 0)),
}


@pytest.mark.parametrize("name", DEEP)
def test_deep_gray_has_the_contrast_of_8_bits(name):
    assert np.abs(pixels(DEEP[name]) - GRAYS).max() <= 1


@pytest.mark.parametrize("name", DEEP_COLORS)
def test_deep_colors_have_the_contrast_of_8_bits(name):
    assert np.array_equal(pixels(DEEP_COLORS[name]), COLORS)


FLOATS = (GRAY / 255).astype(np.float32)
NOT_A_NUMBER = np.where(GRAY[0, 0] == GRAY, np.nan, FLOATS).astype(np.float32)
UNKNOWN = {
    "12 in 16": (saved(SIXTEEN >> 4), "its brightest pixel is 40.. of 65535, almost black"),
    "10 in 16": (saved(SIXTEEN >> 6, "TIFF"), "of 65535, almost black"),
    "14 in 16": (saved(SIXTEEN >> 2), "of 65535, almost black"),
    "8 in 16": (saved(GRAY.astype(np.uint16)), "its brightest pixel is 25. of 65535"),
    "12 in 16, with opacity": (png(np.dstack([SIXTEEN >> 4, OPAQUE]), 16, 4), "almost black"),
    "12 in 16, colors": (png(COLORS_16 >> 4, 16, 2), "almost black"),
    "12 in 16, TIFF of colors": (tiff(COLORS_16 >> 4, 1, 2), "almost black"),
    "32 bits": (saved(GRAY.astype(np.int32), "TIFF"), "integers, 2. to 25.; nothing says which is white"),
    "32 bits, unsigned": (tiff(GRAY.astype(np.uint32) * 16843009, 1, 1), "nothing says which is white"),
    "signed": (tiff((GRAY.astype(np.int16) * 128), 2, 1), "nothing says which is white"),
    "floats of 0 to 255": (saved(GRAY.astype(np.float32), "TIFF"), "floats, 2. to 25., of which 1 should be white"),
    "floats of -1 to 1": (saved((GRAY / 127.5 - 1).astype(np.float32), "TIFF"), "floats, -0.*1 should be white"),
    "floats that are hardly above 0": (saved(FLOATS / 100, "TIFF"), "almost black"),
    "not a number": (saved(NOT_A_NUMBER, "TIFF"), "floats, nan to nan"),
    "infinite": (saved(np.where(np.isnan(NOT_A_NUMBER), np.inf, FLOATS).astype(np.float32), "TIFF"), "to inf"),
    "beyond what they say": (saved(GRAY.astype(np.int32), "TIFF", tiffinfo={281: 100}), "not within 0 to 100"),
    "64 bits": (tiff(GRAY / 255, 3, 1), "not a whole picture"),
    "2 bands": (tiff(np.dstack([GRAY, GRAY]), 1, 1), "not a whole picture"),
    "as Pillow has integers": (Image.fromarray(GRAY.astype(np.int32)), "nothing says which is white"),
    "as Pillow has floats": (Image.fromarray(GRAY.astype(np.float32)), "1 should be white"),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_deep_pixels_of_unknown_white_are_refused(name):
    content, reason = UNKNOWN[name]
    assert re.search(reason, refusal(content))


def test_black_is_black():
    assert not pixels(saved(np.zeros_like(SIXTEEN))).any()
    assert not pixels(saved(np.zeros_like(FLOATS), "TIFF")).any()


def test_what_pillow_opened_or_made_is_converted_as_a_file_is():
    for content in ODD_FILES.values():
        image = Image.open(io.BytesIO(content))
        assert np.array_equal(np.asarray(to_rgb(image)), pixels(content))
    for image in (Image.fromarray(SIXTEEN), Image.fromarray(FLOATS)):
        before = image.copy()
        assert np.array_equal(np.asarray(to_rgb(image)), GRAYS)
        assert image == before
    premultiplied = Image.new("RGBa", (1, 1), (128, 0, 0, 128))
    assert to_rgb(premultiplied).getpixel((0, 0)) == (255, 127, 127)


def test_nothing_is_applied_twice():
    for name in ("turned.jpg", "turned.png", "adobe_rgb.png", "la.png", "gray16_key.png"):
        once = decode_image(ODD_FILES[name])
        again = to_rgb(once)
        assert again is not once
        assert np.array_equal(np.asarray(again), np.asarray(once))


# ---- transparency -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_transparent_gray_is_white_at_any_depth(bits):
    steps = SIXTEEN if bits == 16 else GRAY >> (8 - bits)
    key = int(steps[3, 3])
    found = pixels(png(steps, bits, 0, chunk(b"tRNS", struct.pack(">H", key))))
    opaque = pixels(png(steps, bits, 0))
    assert (steps == key).any()
    assert (steps != key).any()
    assert np.array_equal(found, np.where((steps == key)[..., None], 255, opaque))


def test_a_transparent_color_is_white_at_16_bits_too():
    key = COLORS[3, 3].astype(int)
    expected = np.where((key == COLORS).all(-1, keepdims=True), 255, COLORS)
    for content in (png(COLORS, 8, 2, chunk(b"tRNS", struct.pack(">HHH", *key))),
                    png(COLORS_16, 16, 2, chunk(b"tRNS", struct.pack(">HHH", *key * 257)))):  # fmt: skip
        assert np.array_equal(pixels(content), expected)


# ---- color --------------------------------------------------------------------------------------------------------


def test_adobe_rgb_becomes_srgb():
    """By hand: Lindbloom's matrices for D65, without adaptation, and the two curves."""
    to_xyz = np.array([[0.57667, 0.18556, 0.18823], [0.29734, 0.62736, 0.07529], [0.02703, 0.07069, 0.99134]])
    from_xyz = np.array([[3.24045, -1.53714, -0.49853], [-0.96927, 1.87601, 0.04156], [0.05564, -0.20403, 1.05723]])
    linear = ((COLORS / 255) ** 2.19921875) @ to_xyz.T @ from_xyz.T
    linear = linear.clip(0, 1)
    expected = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055) * 255
    for kind in ("PNG", "TIFF", "WEBP"):
        content = saved(blobs(), kind, icc_profile=ADOBE_RGB, **({"lossless": True} if kind == "WEBP" else {}))
        assert np.abs(pixels(content) - expected).max() < 2.5
    assert np.abs(COLORS - expected).max() > 30


def test_gray_cmyk_and_lab_become_srgb():
    linear = GRAY / 255
    expected = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055) * 255
    grays = [
        saved(gray, icc_profile=GRAY_GAMMA_1)
        for gray in (GRAY, SIXTEEN, np.dstack([GRAY, OPAQUE >> 8]).astype(np.uint8))
    ]
    profile = chunk(b"iCCP", b"x\0\0" + zlib.compress(GRAY_GAMMA_1))
    for content in (*grays, png(np.dstack([SIXTEEN, OPAQUE]), 16, 4, profile)):
        found = pixels(content)
        assert np.abs(found - expected[..., None]).max() < 2.5
    inks = blobs().convert("CMYK")
    srgb = ImageCms.createProfile("sRGB")
    theirs = ImageCms.profileToProfile(inks, io.BytesIO(CMYK_TABLE), srgb, outputMode="RGB")
    found = pixels(saved(inks, "TIFF", icc_profile=CMYK_TABLE))
    assert np.array_equal(found, np.asarray(theirs))
    assert np.abs(found - np.asarray(inks.convert("RGB"))).mean() > 20
    lab = Image.merge("LAB", [Image.new("L", (2, 2), value) for value in (255, 128, 128)])
    assert np.abs(np.array(to_rgb(lab).getpixel((0, 0))) - 255).max() <= 1


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize("profile", [SRGB, b"no profile", ADOBE_RGB[:200], GRAY_GAMMA_1, CMYK_TABLE, b""])
def test_profiles_of_srgb_broken_ones_and_those_of_other_images_change_nothing(profile):
    assert np.array_equal(pixels(saved(blobs(), icc_profile=profile)), COLORS)
    assert np.array_equal(pixels(saved(GRAY, icc_profile=ADOBE_RGB)), GRAYS)
    assert decoding_hf_clip._color_transform(profile, "RGB") is None  # so that they cost nothing


def test_a_pillow_without_little_cms_says_so_once(monkeypatch, caplog):
    monkeypatch.setattr(features, "check", lambda name: False)
    decoding_hf_clip._color_transform.cache_clear()
    for _ in range(2):
        assert np.array_equal(pixels(ODD_FILES["adobe_rgb.png"]), COLORS)
    assert [record.getMessage() for record in caplog.records] == [
        "this Pillow has no LittleCMS: color profiles of images are passed over"
    ]
    decoding_hf_clip._color_transform.cache_clear()


# ---- metadata -----------------------------------------------------------------------------------------------------

CUT = b"Exif\0\0II*\0"
ENDLESS = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x03\0" * 5
BROKEN_EXIF = {
    f"{kind}, {name}": saved(blobs(), kind, exif=block, **options)
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True}))
    for name, block in (
        ("text", b"parameters: steps 20"), ("cut", CUT), ("endless", ENDLESS), ("of 9", exif(9)), ("of 0", exif(0)),
        ("without its end", exif()[:-6]),
    )
} | {
    "PNG, text chunk of bytes": saved(blobs(), pnginfo=text_chunk("exif", repr(CUT))),
    "PNG, raw profile cut": saved(blobs(), pnginfo=text_chunk("Raw profile type exif", "\nexif\n    8\n45786966\n")),
    "PNG, raw profile of no hex": saved(blobs(), pnginfo=text_chunk("Raw profile type exif", "\nexif\n 8\nxyz\n")),
    "TIFF, no block": tiff(COLORS, 1, 2, t34665=(4, [99_999_999])),
    "TIFF, of 9": tiff(COLORS, 1, 2, t274=(3, [9])),
    "TIFF, of text": tiff(COLORS, 1, 2, t274=(2, list(b"6\0"))),
}  # fmt: skip
BROKEN_REST = {
    "PNG, text that is a bomb": png(COLORS, 8, 2, chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(70 << 20), 9))),
    "PNG, checksum of a text": png(COLORS, 8, 2, chunk(b"tEXt", b"a\0b")[:-1] + b"x"),
    "PNG, color profile": png(COLORS, 8, 2, chunk(b"iCCP", b"a\0\0xx")),
    "PNG, chunks that are too short": png(COLORS, 8, 2, *(chunk(name, b"") for name in (b"pHYs", b"gAMA", b"cHRM"))),
    "PNG, last text cut": png(COLORS, 8, 2, last=chunk(b"tEXt", b"a\0" + bytes(100)))[:-60],
    "PNG, without its end": saved(blobs())[:-12],
    "PNG, later frames": saved(blobs(), save_all=True, append_images=[blobs(1), blobs(2)])[:-3000],
    "WebP, last text cut": saved(blobs(), "WEBP", lossless=True, xmp=b"<x" * 50)[:-30],
    "WebP, later frames": saved(blobs(), "WEBP", lossless=True, save_all=True, append_images=[blobs(1)])[:-1000],
    "TIFF, a tag longer than the file": tiff(COLORS, 1, 2, t305=(7, [0] * 4)).replace(
        struct.pack("<HHI", 305, 7, 4), struct.pack("<HHI", 305, 7, 2**31 - 1)
    ),
    "TIFF, a tag of no type": tiff(COLORS, 1, 2, t305=(7, [0] * 4)).replace(
        struct.pack("<HH", 305, 7), struct.pack("<HH", 305, 99)
    ),
    "TIFF, color profile": tiff(COLORS, 1, 2, t34675=(7, [7] * 20)),
    "TIFF, XMP that is a number": tiff(COLORS, 1, 2, t700=(3, [5])),
    "TIFF, XMP that is text": tiff(COLORS, 1, 2, t700=(2, list(b"<x:xmpmeta/>"))),
}


@pytest.mark.parametrize("name", BROKEN_EXIF | BROKEN_REST)
def test_pixels_decide(name):
    assert np.array_equal(pixels((BROKEN_EXIF | BROKEN_REST)[name]), COLORS)


SEGMENTS = {
    "no table of images": (2, b"MPF\0junk"),
    "a table of nothing": (2, b"MPF\0II*\0\x08\0\0\0\1\0\1\xb0\4\0\1\0\0\0\2\0\0\0\0\0\0\0"),
    "short JFIF": (0, b"JFIF"),
    "short Adobe": (14, b"Adobe"),
    "short Photoshop": (13, b"Photoshop 3.0\0008BIM\4\4"),
    "half a profile": (2, b"ICC_PROFILE\0\1"),
    "XMP of nothing": (1, b"http://ns.adobe.com/xap/1.0/"),
}


@pytest.mark.parametrize("name", SEGMENTS)
def test_pixels_of_a_jpeg_decide_and_what_turns_it_is_kept(name):
    plain = pixels(jpeg_with())
    assert np.array_equal(pixels(jpeg_with(SEGMENTS[name])), plain)
    assert np.array_equal(pixels(jpeg_with(SEGMENTS[name], (1, exif()))), np.rot90(plain, -1))


def test_broken_texts_leave_what_turns_it():
    bomb = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(70 << 20), 9))
    content = png(np.asarray(TURNED_BACK), 8, 2, bomb, last=chunk(b"eXIf", exif()[6:]))
    assert np.array_equal(pixels(content), COLORS)


def test_broken_exif_of_avif():
    block = Image.Exif()
    block[0x010F] = "a maker of cameras"
    whole = saved(blobs(), "AVIF", quality=90, exif=block.tobytes())
    broken = whole.replace(b"MM\0*", b"text")
    assert broken != whole
    assert np.array_equal(pixels(broken), pixels(whole))


def test_what_is_cut_is_refused_in_every_format_or_whole():
    """A share of the pixels is never taken for the image."""
    tiffs = [("TIFF", {"compression": f"tiff_{name}"}) for name in ("lzw", "adobe_deflate", "jpeg")]
    plain = [
        (kind, {}) for kind in ("PNG", "JPEG", "BMP", "GIF", "TIFF", "AVIF", "PPM", "TGA", "JPEG2000", "PCX", "QOI")
    ]
    for kind, options in [*plain, *tiffs, ("WEBP", {"lossless": True}), ("JPEG", {"progressive": True})]:
        content = saved(blobs(), kind, **options)
        whole = pixels(content)
        for share in (0.3, 0.6, 0.9):
            try:
                image, _ = read_image(content[: int(len(content) * share)])
            except UnreadableImage:
                continue
            assert np.array_equal(np.asarray(image), whole), (kind, options, share)


# ---- formats ------------------------------------------------------------------------------------------------------


def test_a_psd_has_no_image_of_number_0():
    """Headers of a PSD: nothing of palettes, resources and layers; then rows of R, G and B, uncompressed."""
    head = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 45, 60, 8, 3) + struct.pack(">III", 0, 0, 0)
    content = head + b"\0\0" + COLORS.transpose(2, 0, 1).tobytes()
    assert np.array_equal(pixels(content), COLORS)
    assert np.array_equal(np.asarray(to_rgb(Image.open(io.BytesIO(content)))), COLORS)


@pytest.mark.parametrize("kind", ["ICO", "ICNS", "DDS", "MPO", "PPM", "TGA", "SGI", "QOI", "PCX", "IM"])
def test_formats_of_one_image_or_more(kind):
    options = {"ICO": {"sizes": [(60, 45)]}, "MPO": {"quality": 100}}.get(kind, {})
    image = blobs().resize((128, 128)) if kind == "ICNS" else blobs()
    found = pixels(saved(image, kind, **options))
    assert np.abs(found - np.asarray(image.resize(found.shape[1::-1]))).mean() < 4


def encoded(kind: str, **options) -> bytes:
    """As a phone or a converter writes it, in another process: this one must not have met the plugin."""
    code = f"""
import sys, io, numpy as np
from PIL import Image
import pillow_jxl, pillow_heif
pillow_heif.register_heif_opener()
image = Image.fromarray(np.frombuffer(sys.stdin.buffer.read(), np.uint8).reshape(45, 60, 3))
file = io.BytesIO(); image.save(file, {kind!r}, **{options!r}); sys.stdout.buffer.write(file.getvalue())
"""
    return subprocess.run([sys.executable, "-c", code], input=COLORS.tobytes(), capture_output=True, check=True).stdout


@pytest.fixture(scope="module")
def heic() -> bytes:
    pytest.importorskip("pillow_heif")
    return encoded("HEIF", quality=95, exif=exif())


@pytest.fixture(scope="module")
def jxl() -> bytes:
    pytest.importorskip("pillow_jxl")
    return encoded("JXL", lossless=True, exif=exif())


def test_heic_and_jpeg_xl_through_their_plugins(heic, jxl):
    assert np.array_equal(pixels(jxl), np.rot90(COLORS, -1))
    found = pixels(heic)
    assert found.shape == (60, 45, 3)
    assert np.abs(found - np.rot90(COLORS, -1)).mean() < 4
    assert np.array_equal(pixels(heic.replace(b"ftypheic", b"ftypmif1")), found)  # Pillow would take it for AVIF
    assert "not a whole picture" in refusal(heic[:-400])
    assert "not a whole picture" in refusal(jxl[: len(jxl) // 2])


def test_without_the_plugin_the_reason_says_what_to_install(heic, jxl, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setitem(sys.modules, "pillow_jxl", None)
    assert refusal(heic) == 'HEIC: pip install "hf_clip[heif]"'
    assert refusal(jxl) == refusal(b"\0\0\0\x0cJXL \r\n\x87\n...") == 'JPEG XL: pip install "hf_clip[jxl]"'
