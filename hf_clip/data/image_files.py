"""Which files are images, by name and by content, and why some that look like it are not read."""

import functools
from pathlib import Path

from PIL import Image

# Pillow opens these and cannot decode them: weather data, films, and drawings for Windows or Ghostscript.
_NO_DECODER = frozenset(["BUFR", "GRIB", "HDF5", "MPEG", "WMF", "EPS"])
# Of phones and cameras: Pillow opens MPO as JPEG, the others where the packages of an extra are installed.
_OF_CAMERAS = frozenset([".mpo", ".heic", ".heif", ".hif", ".jxl"])
_UNREAD = {
    "raw data of a camera: develop to JPEG or TIFF first": "3fr arw cr2 cr3 crw dcr dng erf iiq kdc mrw nef nrw orf "
    "pef raf rw2 rwl sr2 srf srw x3f",
    "a drawing: render to PNG first": "ai emf eps svg svgz wmf",
    "a kind that is not read: convert to PNG first": "bpg djvu exr flif jxr kra psb wdp xcf",
}
_WHY_UNREAD = {f".{suffix}": why for why, suffixes in _UNREAD.items() for suffix in suffixes.split()}
_HEADS = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"8BPS\0\1", b"qoif", b"DDS "),
    *(b"\0\0\0\x0cjP  \r\n", b"\0\0\0\x0cJXL \r\n"),
)
_BRANDS = frozenset([b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"avif", b"avis"])
_HEAD = 16  # bytes that tell
# Sidecars are not opened to see whether they are images: there may be one beside each.
_SIDECARS = frozenset([".txt", ".json", ".jsonl", ".xml", ".csv", ".tsv", ".caption", ".yaml", ".yml", ".md", ".npy"])


@functools.cache
def image_suffixes() -> frozenset[str]:
    """Of what Pillow decodes, alone or with the package of an extra: ".jpg", ".heic", …, in small letters."""
    Image.init()
    known = Image.registered_extensions().items()
    return _OF_CAMERAS | {suffix for suffix, kind in known if kind in Image.OPEN and kind not in _NO_DECODER}


def has_image_name(file: Path) -> bool:
    return file.suffix.lower() in image_suffixes()


def why_unread(file: Path) -> str | None:
    """Why a file without an image's name looks like one all the same, and is not read; None if it does not."""
    suffix = file.suffix.lower()
    if suffix in _WHY_UNREAD:
        return _WHY_UNREAD[suffix]
    if suffix in _SIDECARS:
        return None
    try:
        with file.open("rb") as opened:
            is_image = looks_like_image(opened.read(_HEAD))
    except OSError:
        return None
    return "an image by its content, not by its name: rename" if is_image else None


def looks_like_image(head: bytes) -> bool:
    """By the first 16 bytes."""
    if head[:4] == b"RIFF":
        return head[8:12] == b"WEBP"
    if head[:2] == b"BM":
        return head[6:10] == bytes(4)  # reserved
    return head.startswith(_HEADS) or (head[4:8] == b"ftyp" and head[8:12] in _BRANDS)
