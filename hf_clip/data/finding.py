"""Finds the files of a source: of which format they are, and of which split."""

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..core.errors import InputError
from .class_folders import images_in
from .folders import (
    METADATA,
    check_archives,
    data_files,
    data_root,
    format_of,
    is_leftover,
    nothing_in,
    say_once,
    visible,
)
from .image_files import has_image_name
from .named_splits import TRAINING, choose_split, folders_of_splits, split_called, splits_of

_FORMATS = {".parquet": "parquet", ".csv": "csv", ".jsonl": "json", ".json": "json", ".tar": "webdataset"}


@dataclass(frozen=True)
class Found:
    """What stands under a source's name.

    Attributes:
        kind: "hub" where nothing is here, "opened" where it is in memory.
        split: which of several was taken; "" where all is one set.
        is_flat: of images, whether they are in no folders by class.
        folders: of metadata, the split of the images in each folder beside them.
    """

    kind: str
    files: list[Path]
    split: str = ""
    is_flat: bool = False
    folders: dict[str, str] = field(default_factory=dict)


def find_files(name: str, split: str | Sequence[str] = TRAINING, config: str | None = None) -> Found:
    """
    Args:
        split, config: of a folder that has several, as for `open_source`.

    Raises:
        InputError: files of no kind that is read, or of several; no such split.
    """
    path = Path(name)
    visible.cache_clear()
    try:
        if path.is_dir():
            return _in_folder(path, split, config)
        if not (files := [path] if path.exists() else _matching(name)):
            return Found("hub", [])
        if config is not None:
            raise InputError(f"{name} is no folder with a card of configurations: leave out data_config {config!r}")
        return Found(_kind_of(files, name), files)
    finally:
        visible.cache_clear()


def _matching(name: str) -> list[Path]:
    """Files by a pattern, which begins where no file has the name as it stands; [] where it is none."""
    if not glob.has_magic(name):
        return []
    fixed, wild = Path(name), Path()
    while not fixed.exists():
        fixed, wild = fixed.parent, Path(fixed.name, wild)
    found = (Path(file) for file in glob.glob(str(Path(glob.escape(str(fixed)), wild)), recursive=True))
    asked = {part for part in wild.parts if is_leftover(part)}
    files = sorted(file for file in found if asked or not any(map(is_leftover, file.parts[-len(wild.parts) :])))
    if not files:
        raise InputError(f"no file is called {name}: mend the pattern")
    splits = dict.fromkeys(split_called("-".join(file.relative_to(fixed).parts)) for file in files)
    if len(named := [split for split in splits if split]) > 1:
        say_once(f"{name}: files of {', '.join(named)} are read together, as the pattern finds them all")
    return files


def _in_folder(folder: Path, asked: str | Sequence[str], config: str | None) -> Found:
    check_archives(data_root(folder))
    root, splits = splits_of(folder, config)
    if not splits:
        root = data_root(root)
        files, is_flat = _files_of(root)
        kind = _kind_of(files, str(folder))
        folders = folders_of_splits(root) if files[0].name in METADATA else {}
        return Found(kind, files, "", is_flat, folders)
    split, names = choose_split(splits, asked, str(folder))
    paths = [path for part in names for path in splits[part]]
    parts = [_files_of(path) if path.is_dir() else ([path], _share_a_folder(paths)) for path in paths]
    files = [file for found, _ in parts for file in found]
    if len({file.parent for file in files}) > 1 and any(file.name in METADATA for file in files):
        raise InputError(
            f"{folder}: the split {split} has metadata in several folders: give one, as in {files[0].parent}"
        )
    kind = _kind_of(files, str(folder))
    return Found(kind, files, split, any(is_flat for _, is_flat in parts))


def _share_a_folder(files: list[Path]) -> bool:
    return len({file.parent for file in files}) == 1


def _files_of(folder: Path) -> tuple[list[Path], bool]:
    """(files with data, whether they are images in no folders by class)"""
    if files := data_files(folder):
        return files, False
    if not (images := images_in(folder)):
        raise nothing_in(folder, visible(folder)[1])
    return images, images[0].parent == folder


def _kind_of(files: list[Path], name: str) -> str:
    if all(map(has_image_name, files)) and Path(name).is_dir():
        return "imagefolder"
    for file in files:
        if not os.access(file, os.R_OK):
            raise InputError(f"{file} cannot be read: there is no such file, or it is another user's")
    if all(file.stat().st_size == 0 for file in files):
        raise InputError(f"{files[0]} is empty: it needs rows of a picture and a caption")
    suffixes = sorted({format_of(file) for file in files})
    for suffix in suffixes:
        if suffix not in _FORMATS:
            raise InputError(f"{name}: cannot read {suffix or 'such'} files, only {', '.join(_FORMATS)}")
    kinds = sorted({_FORMATS[suffix] for suffix in suffixes})
    if len(kinds) > 1:
        raise InputError(f"{name} holds files of {' and '.join(kinds)}: give one kind, as in 'folder/*{suffixes[0]}'")
    return kinds[0]
