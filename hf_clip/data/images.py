"""One picture, whatever its file holds, as 8-bit RGB."""

import re
from pathlib import Path
from typing import Any

from PIL import Image

from ..core.digests import content_id
from ..core.errors import InputError, first_line, shortened
from ..models.decoding_hf_clip import Undecodable, decode_image, to_rgb
from .base64_images import decoded_base64
from .web_addresses import ADVICE, is_web_address

# A store's address, but not a web page's: pictures are not fetched from all over the world.
_STORE = re.compile(r"^(?!https?:|ftp:)[a-z0-9]+://")


class UnreadableImage(ValueError):
    """A picture that cannot be decoded; the message says why."""


def read_image(value: Any, folder: Path | None = None, at_least: int | None = None) -> tuple[Image.Image, int]:
    """Decodes a picture and names its content.

    Args:
        value: a path (relative to `folder`), encoded bytes, a PIL image, or what `datasets` gives for an undecoded
            image: {"bytes": …, "path": …}.
        at_least: pixels that the shorter side needs; a JPEG is decoded at the smallest of its size, a half, a quarter
            and an eighth that has them. None: every pixel there is.

    Returns:
        The picture (8-bit sRGB, upright, transparency on white, first frame of an animation) and the signed 64-bit
        digest of its content, equal for equal content in every process.

    Raises:
        UnreadableImage: for anything that is not a whole picture, for deep pixels of which nothing says which value is
            white, for a format whose decoder is not installed, and for one with more pixels than Pillow's limit
            (`2 * PIL.Image.MAX_IMAGE_PIXELS`), which Pillow reads from the header, before any memory is taken.
    """
    content = None if isinstance(value, Image.Image) else _read_bytes(value, folder)
    if content == b"":
        raise UnreadableImage("the file is empty")
    try:
        rgb = to_rgb(value) if content is None else decode_image(content, at_least)
    except Undecodable as error:
        raise UnreadableImage(first_line(error)) from error
    except Exception as error:  # what Pillow's decoders raise has no common type: RuntimeError, SyntaxError, …
        raise UnreadableImage(f"not a whole picture ({_reason(error)})") from error
    return rgb, content_id(str(rgb.size).encode() + rgb.tobytes() if content is None else content)


def image_name(value: object) -> str:
    """What to call a picture in a report: its file, where it has one."""
    if isinstance(value, dict):
        value = value.get("path")
    if isinstance(value, str) and decoded_base64(value) is not None:
        return "image in base64"
    return shortened(value) if isinstance(value, (str, Path)) else "picture without a file name"


def skipped_line(row: int, name: str, reason: str) -> str:
    """One line about a picture that was skipped; a stream's or a mixture's name for it says the row already."""
    return f"{name}: {reason}" if ": row " in name else f"row {row + 1}: {name}: {reason}"


def broken_picture(row: int, name: str, reason: str) -> InputError:
    """What `strict` stops with."""
    return InputError(f"{skipped_line(row, name, reason)}: mend or remove it, or leave out strict to skip it")


def _read_bytes(value: object, folder: Path | None) -> bytes:
    if isinstance(value, dict):
        value = value.get("path") if value.get("bytes") is None else value["bytes"]
    if value is None:
        raise UnreadableImage("no file is named")
    if isinstance(value, (bytes, bytearray)):
        return decoded_base64(bytes(value)) or bytes(value)
    if isinstance(value, str) and (content := decoded_base64(value)) is not None:
        return content
    if is_web_address(value):
        raise UnreadableImage(f"an address: {ADVICE}")
    if isinstance(value, str) and _STORE.search(value):
        return _read_from_store(value)
    if isinstance(value, (str, Path)):
        try:
            return Path(folder or ".", value).read_bytes()
        except (OSError, ValueError) as error:
            raise UnreadableImage(getattr(error, "strerror", None) or str(error)) from error
    raise UnreadableImage(f"a {type(value).__name__} is not a picture")


def _reason(error: Exception) -> str:
    """A short line that is the same in every run: Pillow's names the address of the bytes it was given."""
    return re.sub(r" <_io\.BytesIO[^>]*>", "", first_line(error))[:200]


def _read_from_store(address: str) -> bytes:
    """What a stream of the Hub names its pictures by: hf://…, also inside an archive, zip://…::hf://…"""
    import fsspec

    try:
        with fsspec.open(address, "rb") as file:
            return file.read()
    except Exception as error:  # each kind of store has its own
        raise UnreadableImage(first_line(error)) from error
