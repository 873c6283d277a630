"""WebDataset shards: tar files where the parts of a sample stand one after the other under one name."""

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets

from ..core.errors import InputError, first_line
from .columns import ColumnFeatures, Row, value_of
from .image_files import image_suffixes
from .tars import read_tar
from .text import check_text, trimmed

PICTURE = "image"  # the column of a sample's one picture, whatever its extension
_PEEK = 100  # samples that are looked at to learn what the parts are called
_READING = 2  # changes with what rows are made of shards: `datasets` keeps those that it has read

Sample = tuple[Path, str, dict[str, bytes]]  # its shard, its key, its parts by extension


def part_names(files: Sequence[Path], asked: Iterable[str | None] = ()) -> list[str]:
    """What samples' parts are called: "image" for any picture, "png", "txt", "json.caption", "json.captions.en", ….

    Args:
        asked: names that are looked for further on where the first samples lack them.
    """
    names: dict[str, None] = {}
    for number, (file, key, parts) in enumerate(_samples(files)):
        if number >= _PEEK and names.keys() >= {name for name in asked if name}:
            break
        for part, content in parts.items():
            names |= dict.fromkeys([PICTURE, part] if _is_picture(part) else [part])
            if _is_json(part):
                names |= dict.fromkeys(_dotted(part, _decoded(file, key, part, content)))
    return list(names)


def _dotted(name: str, value: object) -> Iterator[str]:
    """Names of what stands in a structure, at any depth."""
    for field, inner in value.items() if isinstance(value, dict) else ():
        yield f"{name}.{field}"
        yield from _dotted(f"{name}.{field}", inner)


def open_shards(
    files: Sequence[Path], image: str, caption: str | None, label: str | None, streaming: bool
) -> datasets.Dataset | datasets.IterableDataset:
    """The samples as rows of a picture, a list of captions and a label, under the names that were asked for.

    Raises:
        InputError: a shard that is damaged, or a part of a sample that is not what it should be; with the shard and
            the sample. When reading, where `streaming`.
    """
    columns: ColumnFeatures = {image: datasets.Image(decode=False)}
    if caption:
        columns[caption] = datasets.List(datasets.Value("string"))
    numbers = several = False
    if label:
        numbers, several = _kind_of_labels(files, label)
        columns[label] = datasets.Value("int64" if numbers else "string")
        columns[label] = datasets.List(columns[label]) if several else columns[label]
    # Size and time tell the cache of `datasets` when a shard was written anew under its old name.
    shards = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    opener = datasets.IterableDataset if streaming else datasets.Dataset
    parts = {"shards": shards, "image": image, "caption": caption, "label": label, "numbers": numbers}
    kwargs = parts | {"several": several, "reading": _READING}
    return opener.from_generator(read_rows, features=datasets.Features(columns), gen_kwargs=kwargs)


def read_rows(
    shards: list[tuple[str, int, int]],
    image: str,
    caption: str | None,
    label: str | None,
    numbers: bool,
    several: bool,
    reading: int,
) -> Iterator[Row]:
    """The rows of shards given as (path, bytes, time of change); of labels `_kind_of_labels` says the kind."""
    for file, key, parts in _samples([Path(path) for path, *_ in shards]):
        where = f"{file}: sample {key!r}"
        row: Row = {image: _picture(where, key, parts, image)}
        if caption:
            row[caption] = _captions(where, _value(file, key, parts, caption))
        if label:
            row[label] = _label(where, _value(file, key, parts, label), numbers, several)
        yield row


def _samples(files: Iterable[Path]) -> Iterator[Sample]:
    for file in files:
        seen: dict[str, frozenset[str]] = {}
        for (_, key), group in itertools.groupby(_parts(file), key=lambda part: part[:2]):
            parts: dict[str, bytes] = {}
            for *_, part, content in group:
                if part in parts:
                    raise InputError(
                        f"{file}: sample {key!r} has two parts {part!r}: give each sample a name of its own"
                    )
                parts[part] = content
            if seen.get(key, parts.keys()).isdisjoint(parts):
                raise InputError(
                    f"{file}: the parts of sample {key!r} are apart: pack them one after another (tar --sort=name)"
                )
            seen[key] = frozenset(parts)
            yield file, key, parts


def _parts(file: Path) -> Iterator[tuple[int, str, str, bytes]]:
    """(archive, key, extension, content) of each file that is not hidden."""
    for archive, name, content in read_tar(file):
        folder, slash, base = name.rpartition("/")
        stem, dot, part = base.partition(".")
        if stem and dot and not any(_is_hidden(each) for each in folder.split("/")):
            yield archive, f"{folder}{slash}{stem}", part.lower(), content


def _is_hidden(folder: str) -> bool:
    return folder not in (".", "..") and folder.startswith((".", "__MACOSX", "PaxHeaders"))


def _picture(where: str, key: str, parts: dict[str, bytes], image: str) -> dict[str, str | bytes] | None:
    found = [image] if image in parts else [part for part in parts if image == PICTURE and _is_picture(part)]
    if len(found) > 1:
        raise InputError(f"{where} has {len(found)} pictures: set image_column to one of {found}")
    if not found:
        return None
    name = f"{key}.{found[0]}".encode(errors="surrogateescape").decode(errors="replace")  # it may be no UTF-8
    return {"bytes": parts[found[0]], "path": name}


def _value(file: Path, key: str, parts: dict[str, bytes], name: str) -> Any:
    """A decoded part, or with a dotted name ("json.caption") what stands in it; None where there is no such."""
    leading = [part for part in parts if name == part or (_is_json(part) and name.startswith(f"{part}."))]
    return value_of({part: _decoded(file, key, part, parts[part]) for part in leading}, name)


def _decoded(file: Path, key: str, part: str, content: bytes) -> Any:
    """White space around a text, and an editor's mark before it, are no part of it."""
    try:
        return json.loads(content) if _is_json(part) else trimmed(content.decode())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: part {part!r} of sample {key!r} cannot be read ({first_line(error)})") from error


def _captions(where: str, value: Any) -> list[str | None]:
    captions = value if isinstance(value, list) else [value]
    for caption in captions:
        if caption is not None:
            check_text(caption, where)
    return captions


def _kind_of_labels(files: Sequence[Path], label: str) -> tuple[bool, bool]:
    """(whether labels are numbers, whether a sample has a list of them), as the first that there is tells."""
    for file, key, parts in _samples(files):
        value = _value(file, key, parts, label)
        for one in value if isinstance(value, list) else [value]:
            if one is not None:
                return type(_number(one)) is int, isinstance(value, list)
    return False, False


def _label(where: str, value: Any, numbers: bool, several: bool) -> Any:
    if value is None:
        return None
    if isinstance(value, list) != several:
        raise InputError(f"{where} has {'one label' if several else 'a list of labels'}, unlike others: fix it")
    if several:
        return [_label(where, one, numbers, False) for one in value]
    if numbers:
        if type(_number(value)) is not int:
            raise InputError(f"{where} has the label {value!r}, and others have numbers: fix it")
        return _number(value)
    if type(value) is int:  # among names: a class may be called 7
        return str(value)
    check_text(value, where, "a label")
    return trimmed(value)


def _number(value: object) -> object:
    """A class number stands as text in a part of its own ("cls")."""
    return int(value) if isinstance(value, str) and value.strip().isdecimal() else value


def _is_json(part: str) -> bool:
    return part.rpartition(".")[2] == "json"


def _is_picture(part: str) -> bool:
    return f".{part}" in image_suffixes()
