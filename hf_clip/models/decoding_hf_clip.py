"""What an image file holds as 8-bit sRGB: upright, deep pixels at their contrast, transparency on white.

The one description of it: training, evaluation, the commands and the processor use it here, and beside a saved model;
an ONNX export carries this file as it stands, so it needs numpy and Pillow alone.
"""

import contextlib
import importlib
import io
import logging
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, features

if TYPE_CHECKING:
    from PIL.ImageCms import ImageCmsTransform

logger = logging.getLogger(__name__)


class Undecodable(ValueError):
    """An image that is whole and yet cannot be shown; the message says why and what helps."""


def decode_image(content: bytes, at_least: int | None = None) -> Image.Image:
    """The image of a file's bytes, the first of several.

    Args:
        at_least: pixels that the shorter side needs; a JPEG is decoded at the smallest of its size, a half, a quarter
            and an eighth that has them. None: every pixel there is.

    Returns:
        8-bit sRGB. Pixels decide: metadata that cannot be read (EXIF, color profile, texts) are passed over.

    Raises:
        Undecodable: nothing says which value of deep pixels is white, or a plugin of Pillow is missing.
        Exception: of many kinds, as Pillow's decoders raise them: pixels are missing or broken.
    """
    formats = _needed_plugin(content)
    try:
        return _decode(content, at_least, formats)
    except Undecodable:
        raise
    except Exception:
        for bare in _without_metadata(content):
            try:
                return _decode(bare, at_least, formats)
            except Undecodable:
                raise
            except Exception:
                continue
        raise


def to_rgb(image: Image.Image) -> Image.Image:
    """As `decode_image`, of an image that Pillow opened or made; the image itself stays as it is."""
    if image.tell():
        with contextlib.suppress(EOFError):  # a PSD counts from 1
            image.seek(0)
    with _quietly():
        rgb = _upright_rgb(image)
    return _plain(rgb.copy() if rgb is image else rgb)


def _decode(content: bytes, at_least: int | None, formats: list[str] | None) -> Image.Image:
    with _quietly(), Image.open(io.BytesIO(content), formats=formats) as image:
        if at_least:
            image.draft(None, (at_least, at_least))
        rgb = _upright_rgb(image)
        # A JPEG is free of its file by now, and a copy of a large one costs as much as a third of its decoding.
        return _plain(rgb.copy() if rgb is image and image.format != "JPEG" else rgb)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Pillow warns of what it can decode all the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _plain(rgb: Image.Image) -> Image.Image:
    """What was applied must not be applied again by whoever sees it."""
    rgb.info = {}
    return rgb


def _upright_rgb(image: Image.Image) -> Image.Image:
    packed = _packing(image)
    image.load()
    turn = _turn(image)
    colors, alpha = _eight_bit(image, packed)
    rgb = _to_srgb(colors, image.info.get("icc_profile"))
    if alpha is not None:
        rgb.putalpha(alpha)
        rgb = Image.alpha_composite(Image.new("RGBA", rgb.size, "white"), rgb).convert("RGB")
    return rgb if turn is None else rgb.transpose(turn)


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What puts it upright. Free text, half a block and other things that are no EXIF count as none."""
    try:
        return _TURNS.get(image.getexif().get(0x0112, 0))
    except Exception:  # what Pillow's reader of EXIF raises has no common type
        return None


# ---- depth and transparency ---------------------------------------------------------------------------------------


def _packing(image: Image.Image) -> str:
    """How the file packs its samples ("RGB;16B"), which Pillow knows until it has read them; else ""."""
    tiles = getattr(image, "tile", None)
    how = tiles[0][3] if tiles else ""
    if isinstance(how, tuple):
        how = how[0] if how else ""
    return how if isinstance(how, str) else ""


def _eight_bit(image: Image.Image, packed: str) -> tuple[Image.Image, Image.Image | None]:
    """(colors: L, RGB, CMYK or LAB; opacity, where not all is opaque)."""
    if image.mode.startswith(("I", "F")):
        return _of_deep_gray(image)
    if ";16" in packed:
        _check_contrast(image)
    image = _transparency_in_8_bits(image, packed)
    if image.mode in ("La", "RGBa"):
        image = image.convert(image.mode.upper())
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    if image.mode in ("1", "L", "LA") or packed.startswith("LA"):
        return image.convert("L"), alpha
    if alpha is not None:
        return image.convert("RGBA").convert("RGB"), alpha
    return (image if image.mode in ("RGB", "CMYK", "LAB") else image.convert("RGB")), alpha


def _of_deep_gray(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    values = np.asarray(image)
    low, high = _black_and_white(image, values)
    if (low, high) == (0, 65535):
        gray = (values >> 8).astype(np.uint8)  # as Pillow makes 8 bits of deep colors
    else:
        gray = ((values.astype(np.float64) - low) * (255 / (high - low)) + 0.5).clip(0, 255).astype(np.uint8)
    if _tag(image, "photometric") == 0:  # white is zero
        gray = 255 - gray
    transparent = image.info.get("transparency")
    alpha = None if transparent is None else Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8))
    return Image.fromarray(gray), alpha


_ROUNDING = 1e-3  # what arithmetic leaves beyond 0 and 1
_HELP = "save it with 8 bits, or as a TIFF that says so (MinSampleValue, MaxSampleValue)"


def _black_and_white(image: Image.Image, values: np.ndarray) -> tuple[float, float]:
    """The values that mean black and white: as the file says, else as its type of numbers does.

    Raises:
        Undecodable: neither does, or hardly a shade of that range is used, as of 12 bits in 16.
    """
    least, most = float(values.min()), float(values.max())  # NaN, where one is among them
    if said := _range_said(image):
        low, high = said
        if not (low <= least and most <= high):
            raise Undecodable(f"its pixels, {least:g} to {most:g}, are not within {low:g} to {high:g}, as it says")
        return said
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        high = 65535
    elif image.mode == "F":
        high = 1
    else:
        raise Undecodable(f"its pixels are integers, {least:g} to {most:g}; nothing says which is white: {_HELP}")
    if not (least >= -_ROUNDING * high and most <= (1 + _ROUNDING) * high):
        raise Undecodable(f"its pixels are floats, {least:g} to {most:g}, of which 1 should be white: {_HELP}")
    if 0 < most < high / 4:
        raise _unknown_white(f"{most:g} of {high}")
    return 0, high


def _unknown_white(most: str) -> Undecodable:
    return Undecodable(f"its brightest pixel is {most}, almost black, unless another value means white: {_HELP}")


def _check_contrast(image: Image.Image) -> None:
    """Of deep colors Pillow gives the upper 8 bits; of 12 bits in 16 there is next to nothing in them."""
    extrema: Any = image.getextrema()  # a pair for each channel, of which a fourth one may be opacity
    colors = extrema[:3] if image.mode.startswith("RGB") else extrema
    if (most := max(high for _, high in colors)) < 64:
        raise _unknown_white(f"{most * 257} of 65535")


def _range_said(image: Image.Image) -> tuple[float, float] | None:
    low = _tag(image, "least") or 0.0
    if (high := _tag(image, "most")) is not None and high > low:
        return low, high
    if image.mode.startswith("I;16") and (bits := _tag(image, "bits")) and bits < 16:
        return 0, 2**bits - 1
    # What these decoders give is stretched to 16 bits already, by the depth that the file says.
    return (0, 65535) if image.format in ("PPM", "JPEG2000", "JXL") and image.mode.startswith("I") else None


# MinSampleValue or SMinSampleValue, and so on.
_TAGS = {"bits": (258,), "photometric": (262,), "least": (340, 280), "most": (341, 281)}


def _tag(image: Image.Image, name: str) -> float | None:
    """A number of a TIFF's."""
    tags = getattr(image, "tag_v2", None)
    if not tags:
        return None
    for number in _TAGS[name]:
        value = tags.get(number)
        value = value[0] if isinstance(value, tuple) and value else value
        with contextlib.suppress(TypeError, ValueError):
            return float(value)
    return None


def _transparency_in_8_bits(image: Image.Image, packed: str) -> Image.Image:
    """The color that means transparent, in the depth that Pillow has brought the pixels to."""
    color = image.info.get("transparency")
    if isinstance(color, int) and packed in ("L;2", "L;4"):
        color *= 85 if packed == "L;2" else 17
    elif isinstance(color, tuple) and ";16" in packed:
        color = tuple(value >> 8 for value in color)
    else:
        return image
    changed = image.copy()
    changed.info["transparency"] = color
    return changed


# ---- color --------------------------------------------------------------------------------------------------------

_UNSEEN = 2  # of 255: what two makers' profiles of sRGB itself differ by


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """By the embedded profile, where it is one of such an image; else as Pillow converts."""
    if isinstance(profile, bytes) or image.mode == "LAB":
        transform = _color_transform(profile if isinstance(profile, bytes) else b"", image.mode)
        if transform is not None:
            with contextlib.suppress(Exception):  # ImageCms.PyCMSError, where there is an ImageCms
                return transform.apply(image)
    return image if image.mode == "RGB" else image.convert("RGB")


@lru_cache(maxsize=32)
def _color_transform(profile: bytes, mode: str) -> "ImageCmsTransform | None":
    """To sRGB; None for a profile that is broken, of another kind of image, or of sRGB itself."""
    if not features.check("littlecms2"):
        logger.warning("this Pillow has no LittleCMS: color profiles of images are passed over")
        return None
    from PIL import ImageCms

    try:
        if mode == "LAB" and not profile:
            source = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
        else:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
        return None if mode in ("L", "RGB") and _changes_nothing(transform, mode) else transform
    except Exception:  # PyCMSError, OSError, and others for what is no profile at all
        return None


def _changes_nothing(transform: "ImageCmsTransform", mode: str) -> bool:
    steps = np.arange(0, 256, 15, dtype=np.uint8)
    colors = np.stack(np.meshgrid(*[steps] * len(mode)), axis=-1).reshape(1, -1, len(mode))
    probe = Image.fromarray(colors if mode == "RGB" else colors[..., 0])
    before, after = (np.asarray(image, dtype=int) for image in (probe.convert("RGB"), transform.apply(probe)))
    return bool(np.abs(after - before).max() <= _UNSEEN)


# ---- formats that Pillow has plugins for --------------------------------------------------------------------------

_HEIF_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1"}


def _needed_plugin(content: bytes) -> list[str] | None:
    """What to tell `Image.open`, the plugin that it takes being there.

    Raises:
        Undecodable: it is not installed.
    """
    if content[4:8] == b"ftyp":
        brands = {content[at : at + 4] for at in range(8, min(int.from_bytes(content[:4], "big"), 256), 4)}
        if brands & _HEIF_BRANDS and not brands & {b"avif", b"avis"}:
            _import_plugin("HEIC", "pillow_heif", "heif").register_heif_opener()
            return ["HEIF"]
    elif content.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")):
        _import_plugin("JPEG XL", "pillow_jxl", "jxl")
        return ["JXL"]
    return None


def _import_plugin(kind: str, module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Undecodable(f'{kind}: pip install "hf_clip[{extra}]"') from error


# ---- files without their metadata ---------------------------------------------------------------------------------


def _without_metadata(content: bytes) -> Iterator[bytes]:
    """The file with its color profile and what turns it upright alone, then with the latter, then with neither: some
    broken metadata keep Pillow from the pixels."""
    for magic, bare in _BARE.items():
        if re.match(magic, content, re.DOTALL):
            for kept in ({"profile", "exif"}, {"exif"}, set()):
                with contextlib.suppress(struct.error, IndexError):
                    yield bare(content, kept)


def _bare_png(content: bytes, kept: set[str]) -> bytes:
    metadata = {b"iCCP": "profile", b"eXIf": "exif"}
    parts, at = [content[:8]], 8
    while at + 8 <= len(content):
        length, kind = struct.unpack(">I4s", content[at : at + 8])
        chunk = content[at : at + length + 12]
        whole = zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")
        if kind[:1].isupper() or kind == b"tRNS" or (metadata.get(kind) in kept and whole):
            parts.append(chunk)
        at += length + 12
    return b"".join(parts)


def _bare_webp(content: bytes, kept: set[str]) -> bytes:
    metadata = {b"ICCP": ("profile", 0b00100000), b"EXIF": ("exif", 0b00001000)}
    flags, parts, at = 0b00010010, [], 12  # what a VP8X chunk may tell: opacity, animation
    while at + 8 <= len(content):
        kind, length = struct.unpack("<4sI", content[at : at + 8])
        chunk = content[at : at + 8 + length + length % 2]
        name, flag = metadata.get(kind, ("", 0))
        if name in kept and len(chunk) >= 8 + length:
            parts.append(chunk)
            flags |= flag
        elif kind in (b"VP8X", b"ALPH", b"VP8 ", b"VP8L", b"ANIM", b"ANMF"):
            parts.append(chunk)
            if kind == b"ANMF":
                break  # the first image of an animation
        at += 8 + length + length % 2
    if parts and parts[0].startswith(b"VP8X"):
        parts[0] = parts[0][:8] + bytes([parts[0][8] & 0b00010010 | flags & 0b00101000]) + parts[0][9:]
    body = b"".join(parts)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def _bare_jpeg(content: bytes, kept: set[str]) -> bytes:
    parts, at = [content[:2]], 2
    while content[at] == 0xFF and content[at + 1] != 0xDA:  # up to the first scan
        (length,) = struct.unpack(">H", content[at + 2 : at + 4])
        marker, segment = content[at + 1], content[at : at + 2 + length]
        is_metadata = 0xE0 <= marker <= 0xEF or marker == 0xFE
        if not is_metadata or _is_kept(segment[4:], kept):
            parts.append(segment)
        at += 2 + length
    return b"".join([*parts, content[at:]])


def _is_kept(said: bytes, kept: set[str]) -> bool:
    """Of a JPEG's application segments: those that tell how its colors are coded, or that are asked for."""
    if said.startswith((b"JFIF\0", b"Adobe")):
        return len(said) >= 12
    return (said.startswith(b"Exif\0\0") and "exif" in kept) or (said.startswith(b"ICC_PR") and "profile" in kept)


# Size, depth, compression, place of the pixels, palette, samples, opacity, JPEG tables.
_TIFF_PIXELS = {
    256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 280, 281, 284, 292, 293, 317, 320, 322, 323, 324, 325, 332, 338,
    339, 340, 341, 347, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532,
}  # fmt: skip


def _bare_tiff(content: bytes, kept: set[str]) -> bytes:
    order = "<" if content.startswith(b"II") else ">"
    is_big = 43 in (content[2], content[3])
    at, (number, size), width = (8, "QQ", 20) if is_big else (4, "HI", 12)
    (start,) = struct.unpack_from(order + size, content, at)
    (count,) = struct.unpack_from(order + number, content, start)
    first = start + struct.calcsize(order + number)
    entries = [content[first + i * width : first + (i + 1) * width] for i in range(count)]
    tags = _TIFF_PIXELS | ({274} if "exif" in kept else set()) | ({34675} if "profile" in kept else set())
    entries = [entry for entry in entries if struct.unpack_from(order + "H", entry)[0] in tags]
    directory = struct.pack(order + number, len(entries)) + b"".join(entries) + struct.pack(order + size, 0)
    return content[:start] + directory + content[start + len(directory) :]


def _bare_heif(content: bytes, kept: set[str]) -> bytes:
    """Its items of EXIF and XMP under a type that nobody reads; profile and orientation are no such items."""
    return re.sub(rb"(infe(?:\x02.{7}|\x03.{9}))(?:Exif|mime)", rb"\1none", content, flags=re.DOTALL)


_BARE = {
    rb"\x89PNG\r\n": _bare_png,
    rb"RIFF....WEBP": _bare_webp,
    rb"\xff\xd8\xff": _bare_jpeg,
    rb"II[*+]\0|MM\0[*+]": _bare_tiff,
    rb"....ftyp": _bare_heif,
}
