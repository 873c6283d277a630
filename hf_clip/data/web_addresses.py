"""Addresses of images in the web, which is not fetched."""

import re
from typing import TypeGuard

from ..core.errors import InputError, shortened

_WEB = re.compile(r"(https?|ftps?)://", re.IGNORECASE)
ADVICE = "the web is not fetched: get the images first, for example with img2dataset"


def is_web_address(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and bool(_WEB.match(value.strip()))


def check_address(value: object, column: str, name: str) -> None:
    """
    Args:
        value: the first of a column of images.

    Raises:
        InputError: it is an address in the web.
    """
    path = value.get("path") if isinstance(value, dict) and value.get("bytes") is None else value
    if is_web_address(path):
        raise InputError(
            f"{name}: row 1 has an address in column {column!r} ({shortened(path)}): {ADVICE}, and give the folder or "
            "shards that it writes"
        )
