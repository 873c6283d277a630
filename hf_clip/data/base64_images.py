"""Images that stand in a table as base64, as web pages and some exports write them."""

import base64
import binascii
import re

from .image_files import looks_like_image

_DATA_URL = re.compile(rb"\s*data:[\w./+-]*(;[\w=.-]+)*;base64,", re.IGNORECASE)
_LETTERS = re.compile(rb"[A-Za-z0-9+/_\s-]+=*\s*")
_START = 64  # letters that tell whether it is one


def decoded_base64(value: str | bytes) -> bytes | None:
    """The bytes of an image in base64, with or without `data:…;base64,` before it, also URL-safe or in lines; None
    for anything else."""
    start = value[: 2 * _START].encode("ascii", "replace") if isinstance(value, str) else bytes(value[: 2 * _START])
    prefix = _DATA_URL.match(start)
    if not prefix and not _is_start_of_image(start):
        return None
    text = value.encode("ascii", "replace") if isinstance(value, str) else bytes(value)
    try:
        return _decoded(text[prefix.end() if prefix else 0 :])
    except binascii.Error:
        return b"" if prefix else None


def _is_start_of_image(start: bytes) -> bool:
    if len(start) < _START or not _LETTERS.fullmatch(start):
        return False
    try:
        return looks_like_image(_decoded(start[:_START]))
    except binascii.Error:
        return False


def _decoded(text: bytes) -> bytes:
    letters = text.translate(bytes.maketrans(b"-_", b"+/"), delete=b" \t\r\n=")
    return base64.b64decode(letters + b"=" * (-len(letters) % 4), validate=True)
