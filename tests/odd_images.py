"""One image as the files of other software: deep, transparent, turned, in other colors, with broken metadata."""

import io
import struct
import zlib

import numpy as np
from PIL import Image, PngImagePlugin

SIZE = (60, 45)


def blobs(seed: int = 0) -> Image.Image:
    """What all of them show: dark to bright, other on each side."""
    noise = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(SIZE, Image.Resampling.BICUBIC)


COLORS = np.asarray(blobs())
GRAY = np.asarray(blobs().convert("L"))
SIXTEEN = GRAY.astype(np.uint16) * 257  # the same grays, of 65535


def saved(image: Image.Image | np.ndarray, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image.copy()).save(file, kind, **options)
    return file.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(pixels: np.ndarray, bits: int, color: int, *chunks: bytes, last: bytes = b"") -> bytes:
    """`color`: 0 gray, 2 RGB, 4 gray with opacity, 6 RGBA; `chunks` stand before the pixels, `last` behind them."""
    height, width = pixels.shape[:2]
    if bits == 16:
        rows = pixels.astype(">u2").reshape(height, -1).view(np.uint8)
    else:
        rows = np.packbits(np.unpackbits(pixels[..., None], axis=-1)[..., 8 - bits :].reshape(height, -1), axis=1)
    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    parts = [chunk(b"IHDR", header), *chunks, chunk(b"IDAT", zlib.compress(lines)), last, chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(pixels: np.ndarray, kind: int, photometric: int, extra: tuple[int, ...] = (), **tags: tuple) -> bytes:
    """`kind`: 1 unsigned, 2 signed, 3 float; `photometric`: 0 white is zero, 1 black is zero, 2 RGB. `tags`:
    t270=(type, values)."""
    samples = 1 if pixels.ndim == 2 else pixels.shape[2]
    height, width = pixels.shape[:2]
    entries = {
        256: (4, [width]), 257: (4, [height]), 258: (3, [pixels.itemsize * 8] * samples), 259: (3, [1]),
        262: (3, [photometric]), 273: (4, [0]), 277: (3, [samples]), 278: (4, [height]), 279: (4, [pixels.nbytes]),
        339: (3, [kind] * samples), **({338: (3, list(extra))} if extra else {}),
        **{int(name[1:]): value for name, value in tags.items()},
    }  # fmt: skip
    letters = {1: "B", 2: "B", 3: "H", 4: "I", 7: "B", 11: "f"}
    packed = {tag: struct.pack(f"<{len(v)}{letters[kind]}", *v) for tag, (kind, v) in entries.items()}
    at = 8 + 2 + 12 * len(entries) + 4
    blobs = b"".join(value for _, value in sorted(packed.items()) if len(value) > 4)
    packed[273] = struct.pack("<I", at + len(blobs))
    directory = struct.pack("<H", len(entries))
    for tag in sorted(entries):
        kind, values = entries[tag]
        value = packed[tag]
        directory += struct.pack("<HHI", tag, kind, len(values))
        directory += value.ljust(4, b"\0") if len(value) <= 4 else struct.pack("<I", at)
        at += len(value) if len(value) > 4 else 0
    return b"II*\0" + struct.pack("<I", 8) + directory + bytes(4) + blobs + pixels.tobytes()


def jpeg_with(*segments: tuple[int, bytes]) -> bytes:
    """Application segments (number, content) in front of all others."""
    content = saved(blobs(), "JPEG", quality=95)
    parts = [b"\xff" + bytes([0xE0 + number]) + struct.pack(">H", len(said) + 2) + said for number, said in segments]
    return content[:2] + b"".join(parts) + content[2:]


def exif(orientation: int = 6) -> bytes:
    """6: to be turned clockwise by a quarter."""
    block = Image.Exif()
    block[0x0112] = orientation
    return block.tobytes()


def text_chunk(key: str, text: str) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text(key, text)
    return info


def curve_profile(space: bytes, gamma: float, primaries: tuple[tuple[float, ...], ...] = ()) -> bytes:
    """An ICC profile of one curve, and of three primaries (XYZ for D50) where `space` is "RGB "."""

    def numbers(values: tuple[float, ...]) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    tags = {b"wtpt": numbers((0.9642, 1.0, 0.8249))}
    if primaries:
        for name, values in zip(b"rgb", primaries, strict=True):
            tags |= {bytes([name]) + b"XYZ": numbers(values), bytes([name]) + b"TRC": curve}
    else:
        tags[b"kTRC"] = curve
    return _profile(space, b"XYZ ", tags)


def table_profile() -> bytes:
    """Of CMYK as Lab, by a table of the 16 corners: a + b as of ink, and a paper that is no pure white."""
    corners = b"".join(
        bytes([255 * (2 - cyan - black) // 2 if cyan + black else 230, 128 + 40 * (magenta - cyan), 128 + 40 * yellow])
        for cyan in (0, 1) for magenta in (0, 1) for yellow in (0, 1) for black in (0, 1)
    )  # fmt: skip
    ramp = bytes(range(256))
    identity = b"".join(struct.pack(">i", 65536 * (i in (0, 4, 8))) for i in range(9))
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + identity + ramp * 4 + corners + ramp * 3
    return _profile(b"CMYK", b"Lab ", {b"A2B0": table}, b"prtr")


def _profile(space: bytes, connection: bytes, tags: dict[bytes, bytes], device: bytes = b"mntr") -> bytes:
    text = b"desc\0\0\0\0" + struct.pack(">I", 2) + b"x\0" + bytes(78)
    tags = {b"desc": text, b"cprt": b"text\0\0\0\0x\0\0\0", **tags}
    at, table, body = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += name + struct.pack(">II", at + len(body), len(content))
        body += content
    head = struct.pack(">I4sI4s4s4s", 128 + len(table) + len(body), bytes(4), 0x02100000, device, space, connection)
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">iii", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + table + body


# Bruce Lindbloom's figures for D50.
_ADOBE = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
ADOBE_RGB = curve_profile(b"RGB ", 2.19921875, _ADOBE)
GRAY_GAMMA_1 = curve_profile(b"GRAY", 1.0)
CMYK_TABLE = table_profile()

_OPACITY = np.linspace(0, 255, SIZE[0]).astype(np.uint8)[None].repeat(SIZE[1], 0)
_KEY = int(GRAY[3, 3])
TURNED_BACK = blobs().transpose(Image.Transpose.ROTATE_90)  # upright again where orientation 6 is applied

# Files of what users have, all of which can be read: the same image in every way that hf_clip opens images.
ODD_FILES = {
    "plain.png": saved(blobs()),
    "gray.png": saved(GRAY),
    "gray16.png": saved(SIXTEEN),
    "gray16_key.png": png(SIXTEEN, 16, 0, chunk(b"tRNS", struct.pack(">H", _KEY * 257))),
    "gray16.tiff": saved(SIXTEEN, "TIFF"),
    "gray12.pgm": b"P5 60 45 4095\n" + (GRAY * (4095 / 255)).round().astype(">u2").tobytes(),
    "gray4_key.png": png(GRAY >> 4, 4, 0, chunk(b"tRNS", struct.pack(">H", _KEY >> 4))),
    "rgb16.png": png(COLORS.astype(np.uint16) * 257, 16, 2),
    "float.tiff": saved((GRAY / 255).astype(np.float32), "TIFF"),
    "int32_said.tiff": saved(GRAY.astype(np.int32), "TIFF", tiffinfo={281: 255}),
    "white_is_zero.tiff": tiff(65535 - SIXTEEN, 1, 0),
    "la.png": saved(np.dstack([GRAY, _OPACITY])),
    "rgba.png": saved(np.dstack([COLORS, _OPACITY])),
    "rgba.webp": saved(np.dstack([COLORS, _OPACITY]), "WEBP", lossless=True),
    "palette.png": saved(blobs().quantize(32), transparency=3),
    "palette_opacities.png": saved(blobs().quantize(16), transparency=bytes(range(0, 256, 16))),
    "cmyk.jpg": saved(blobs().convert("CMYK"), "JPEG", quality=95),
    "turned.jpg": saved(TURNED_BACK, "JPEG", quality=95, exif=exif()),
    "turned.png": saved(TURNED_BACK, exif=exif()),
    "bad_exif.png": saved(blobs(), exif=b"parameters: steps 20"),
    "bad_exif.webp": saved(blobs(), "WEBP", lossless=True, exif=b"parameters: steps 20"),
    "animation.gif": saved(blobs(), "GIF", save_all=True, append_images=[blobs(1)]),
    "adobe_rgb.png": saved(blobs(), icc_profile=ADOBE_RGB),
    "gray_profile.png": saved(GRAY, icc_profile=GRAY_GAMMA_1),
    "two_pages.tiff": saved(blobs(), "TIFF", save_all=True, append_images=[blobs(1)]),
}
