"""The files within a tar, which must be whole; or a line that says what a file is instead."""

import bz2
import contextlib
import functools
import gzip
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from ..core.errors import InputError, first_line

_COMPRESSED: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
# What else is called .tar, and what to do with it.
_OTHERS = {
    b"\x28\xb5\x2f\xfd": "is compressed by zstd: decompress it (zstd -d)",
    b"\x04\x22\x4d\x18": "is compressed by lz4: decompress it (lz4 -d)",
    b"PK\x03\x04": "is a zip: unpack it, and pack it as a tar",
    b"version https://git-lfs": "is a pointer of Git LFS in place of the shard: git lfs pull",
    b"<!DOCTYPE": "is a web page in place of the shard: fetch it again",
}
_SUFFIXES = (".tar", *(f".tar.{kind}" for kind in ("gz", "bz2", "xz", "zst", "lz4")), ".tgz", ".tbz2", ".txz")
_AT_ONCE = 1 << 20  # bytes


def is_tar(file: Path) -> bool:
    """By its name."""
    return file.name.lower().endswith(_SUFFIXES)


def read_tar(file: Path) -> Iterator[tuple[int, str, bytes]]:
    """(archive, name, content) of each file; `archive` counts the tars that were joined into one.

    Raises:
        InputError: the tar is damaged, cut off, goes on after its end, or is no tar.
    """
    last, archive = "", 0
    start: int | None = 0
    try:
        with contextlib.ExitStack() as opened:
            handle = opened.enter_context(_open(file))
            # A second look for what links lead to: the first one forgets what it has passed.
            whole = functools.cache(lambda: opened.enter_context(tarfile.open(file, ignore_zeros=True)))
            while start is not None:
                handle.seek(start)
                tar = opened.enter_context(tarfile.open(fileobj=handle, mode="r:"))
                while member := tar.next():
                    tar.members.clear()  # type: ignore[attr-defined] # or it remembers every header of a large shard
                    if member.isfile():
                        yield archive, member.name, tar.extractfile(member).read()  # type: ignore[union-attr]
                    elif member.islnk() or member.issym():
                        yield archive, member.name, _linked(member, whole(), file)
                    last = f" after {member.name}"
                if archive and tar.offset == start:
                    raise tarfile.ReadError("it goes on after its end with what is no tar")
                archive, start = archive + 1, _next_archive(handle, tar.offset)
    except (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise InputError(f"shard {file} is damaged{last} ({first_line(error)}): write or fetch it again") from error


def _open(file: Path) -> IO[bytes]:
    with file.open("rb") as handle:
        start = handle.read(tarfile.BLOCKSIZE)
    if start[257:262] == b"ustar":  # its name may begin like anything
        return open(file, "rb")
    for magic, what in _OTHERS.items():
        if start.startswith(magic):
            raise InputError(f"shard {file} {what}")
    opener = next((opener for magic, opener in _COMPRESSED.items() if start.startswith(magic)), open)
    return opener(file, "rb")


def _next_archive(handle: IO[bytes], end: int) -> int | None:
    """Where, behind the zeros that end a tar, another one begins."""
    handle.seek(end)
    zeros = 0
    while chunk := handle.read(_AT_ONCE):
        rest = chunk.lstrip(b"\0")
        zeros += len(chunk) - len(rest)
        if rest:
            break
    if zeros < tarfile.BLOCKSIZE:
        # `tarfile` takes a damaged header for the end, and a file that was cut between two members for whole.
        raise tarfile.ReadError("no header where one should be" if chunk else "cut off: a tar ends in zeros")
    return end + zeros // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE if chunk else None


def _linked(link: tarfile.TarInfo, whole: tarfile.TarFile, file: Path) -> bytes:
    try:
        return whole.extractfile(link.name).read()  # type: ignore[union-attr]
    except (KeyError, AttributeError, RecursionError) as error:  # nothing, a folder, itself
        raise InputError(
            f"shard {file}: {link.name} is a link to {link.linkname}, which is no file in it: pack the files "
            "themselves (tar --dereference --hard-dereference)"
        ) from error
