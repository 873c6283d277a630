"""WebDataset shards: tar files where the parts of a sample stand one after the other under one name."""

import itertools
import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets

from ..errors import InputError, first_line
from .images import PICTURE_SUFFIXES

PICTURE = "image"  # the column of a sample's one picture, whatever its extension
_PEEK = 100  # samples that are looked at to learn what the parts are called


def part_names(files: Sequence[Path]) -> list[str]:
    """What a sample's parts are called: "image" for any picture, "png", "txt", "json.caption", …."""
    names: dict[str, None] = {}
    for key, parts in itertools.islice(_samples(files[0]), _PEEK):
        for part, content in parts.items():
            names |= dict.fromkeys([PICTURE, part] if _is_picture(part) else [part])
            if part == "json" and isinstance(value := _decoded(files[0], key, part, content), dict):
                names.update(dict.fromkeys(f"json.{field}" for field in value))
    return list(names)


def open_shards(
    files: Sequence[Path], image: str, caption: str | None, label: str | None, streaming: bool
) -> datasets.Dataset | datasets.IterableDataset:
    """The samples as rows of a picture, a list of captions and a label, under the names that were asked for.

    Raises:
        InputError: a shard that is damaged, or a part of a sample that is not what it should be; with the shard and
            the sample. When reading, where `streaming`.
    """
    columns: dict[str, Any] = {image: datasets.Image(decode=False)}
    if caption:
        columns[caption] = datasets.List(datasets.Value("string"))
    if label:
        columns[label] = datasets.Value(_kind_of_label(files[0], label))
    # Size and time tell the cache of `datasets` when a shard was written anew under its old name.
    shards = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    opener = datasets.IterableDataset if streaming else datasets.Dataset
    parts = {"shards": shards, "image": image, "caption": caption, "label": label}
    return opener.from_generator(read_rows, features=datasets.Features(columns), gen_kwargs=parts)


def read_rows(
    shards: list[tuple[str, int, int]], image: str, caption: str | None, label: str | None
) -> Iterator[dict[str, Any]]:
    """The rows of shards given as (path, bytes, time of change)."""
    for path, *_ in shards:
        file = Path(path)
        for key, parts in _samples(file):
            row: dict[str, Any] = {image: _picture(file, key, parts, image)}
            if caption:
                row[caption] = _captions(file, key, _value(file, key, parts, caption))
            if label:
                row[label] = _label(_value(file, key, parts, label))
            yield row


def _samples(file: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """(key, parts by extension) of each sample."""
    members = _members(file)
    for key, group in itertools.groupby(members, key=lambda member: member[0]):
        parts: dict[str, bytes] = {}
        for _, part, content in group:
            if part in parts:
                raise InputError(f"{file}: sample {key!r} has two parts {part!r}: give each sample a name of its own")
            parts[part] = content
        yield key, parts


def _members(file: Path) -> Iterator[tuple[str, str, bytes]]:
    """(key, extension, content) of each file of a tar, which must be whole."""
    last = ""
    try:
        with tarfile.open(file, "r:") as tar:
            while member := tar.next():
                tar.members.clear()  # type: ignore[attr-defined] # or it remembers every header of a large shard
                folder, slash, base = member.name.rpartition("/")
                stem, dot, part = base.partition(".")
                if not (member.isfile() and stem and dot):
                    continue
                yield f"{folder}{slash}{stem}", part.lower(), tar.extractfile(member).read()
                last = f" after {member.name}"
            # `tarfile` takes a damaged header for the end, which is marked by zeros.
            tar.fileobj.seek(tar.offset)
            if tar.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0"):
                raise tarfile.ReadError("no header where one should be")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise InputError(f"shard {file} is damaged{last} ({first_line(error)}): write or fetch it again") from error


def _picture(file: Path, key: str, parts: dict[str, bytes], image: str) -> dict[str, Any] | None:
    found = [image] if image in parts else [part for part in parts if image == PICTURE and _is_picture(part)]
    if len(found) > 1:
        raise InputError(f"{file}: sample {key!r} has {len(found)} pictures: set image_column to one of {found}")
    return {"bytes": parts[found[0]], "path": f"{key}.{found[0]}"} if found else None


def _value(file: Path, key: str, parts: dict[str, bytes], name: str) -> Any:
    """A decoded part, or with a dotted name ("json.caption") what stands in it; None where there is no such."""
    part, _, field = (name, "", "") if name in parts else name.rpartition(".")
    if part not in parts:
        return None
    value = _decoded(file, key, part, parts[part])
    return (value.get(field) if isinstance(value, dict) else None) if field else value


def _decoded(file: Path, key: str, part: str, content: bytes) -> Any:
    try:
        return json.loads(content) if part.rpartition(".")[2] == "json" else content.decode("utf-8")
    except ValueError as error:
        raise InputError(f"{file}: part {part!r} of sample {key!r} cannot be read ({first_line(error)})") from error


def _captions(file: Path, key: str, value: Any) -> list[str | None]:
    captions = value if isinstance(value, list) else [value]
    for caption in captions:
        if not isinstance(caption, str | None):
            raise InputError(f"{file}: sample {key!r} has {type(caption).__name__} for a caption, not text")
    return captions


def _label(value: Any) -> Any:
    """A class number stands as text in a part of its own ("cls")."""
    return int(value) if isinstance(value, str) and value.strip().isdecimal() else value


def _kind_of_label(file: Path, label: str) -> str:
    key, parts = next(_samples(file))
    return "int64" if isinstance(_label(_value(file, key, parts, label)), int) else "string"


def _is_picture(part: str) -> bool:
    return f".{part}" in PICTURE_SUFFIXES
