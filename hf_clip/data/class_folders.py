"""The images in the folders of their classes, or all in one folder; and what is left out of them, by name."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import InputError
from .folders import METADATA, SHARDS, TABLES, of_kinds, say_once, visible
from .image_files import has_image_name, why_unread

_DEPTH = 8  # how far below the classes images are looked for, to be named
_NAMED = 3  # files of each kind that a warning names
_CAPTIONS = (".txt", ".caption")


def images_in(folder: Path) -> list[Path]:
    """Those in the folders of their classes, or else all in the folder itself; [] where there are none.

    What looks like an image and is not among them is counted and named in a warning.

    Raises:
        InputError: files beside or below them that may hold the captions.
    """
    tree = _Tree.of(folder)
    if not (images := tree.classed or tree.flat):
        return []
    _check_tables(tree)
    left_out = tree.left_out() | {
        image: "of a name that is not UTF-8: rename" for image in images if not _is_utf8(image)
    }
    said = [*_lines_about(left_out, folder), *_lines_about_classes(tree)]
    if said:
        say_once(f"{folder}: {'; '.join(said)}")
    return [image for image in images if image not in left_out]


@dataclass
class _Tree:
    """A folder of images.

    Attributes:
        files: in the folder itself; below: (folders, files) of each folder in it.
        flat: the images among `files`; classed: those in the folders.
    """

    folder: Path
    files: list[Path]
    below: dict[Path, tuple[list[Path], list[Path]]]
    flat: list[Path]
    classed: list[Path]

    @classmethod
    def of(cls, folder: Path) -> "_Tree":
        folders, files = visible(folder)
        below = {each: visible(each) for each in folders}
        classed = [file for _, within in below.values() for file in within if has_image_name(file)]
        return cls(folder, files, below, [file for file in files if has_image_name(file)], classed)

    @functools.cached_property
    def classes(self) -> set[Path]:
        return {image.parent for image in self.classed}

    @functools.cached_property
    def others(self) -> list[Path]:
        """Files without the name of an image."""
        every = [*self.files, *(file for _, files in self.below.values() for file in files)]
        return [file for file in every if not has_image_name(file)]

    def left_out(self) -> dict[Path, str]:
        """Files that look like images, and why each is none of the rows."""
        found = dict.fromkeys(self.flat if self.classed else (), "in no folder of a class")
        for deeper, _ in self.below.values():
            found |= dict.fromkeys(_images_below(deeper), "deeper than the folders of the classes")
        return found | {file: why for file in self.others if (why := why_unread(file))}


def _images_below(folders: list[Path], depth: int = _DEPTH) -> Iterator[Path]:
    for folder in folders:
        if depth and not folder.is_symlink():  # a link may lead back
            deeper, files = visible(folder)
            yield from (file for file in files if has_image_name(file))
            yield from _images_below(deeper, depth - 1)


def _check_tables(tree: _Tree) -> None:
    """Images in folders are read without the tables that stand about: those must not be what holds the captions."""
    within = [file for file in tree.others if file.parent != tree.folder]
    if captions := [file for file in within if file.name in METADATA or file in of_kinds(within, SHARDS)]:
        raise InputError(
            f"{captions[0]} would be passed over, and the folders' names taken for captions: give one of the folders, "
            f"as in {captions[0].parent}, or put one {METADATA[0]} for all into {tree.folder}"
        )
    tables = of_kinds(tree.files, TABLES)
    if tables and len(tree.classes) == 1:
        raise InputError(
            f"{tables[0]} would be passed over, and the name of the one folder beside it be every caption: give that "
            f"file, or call it metadata{tables[0].suffix}"
        )


def _lines_about(left_out: dict[Path, str], folder: Path) -> Iterator[str]:
    reasons: dict[str, list[Path]] = {}
    for file, why in left_out.items():
        reasons.setdefault(why, []).append(file)
    for why, files in reasons.items():
        yield f"{len(files)} file{'s' if len(files) > 1 else ''} left out ({_listed(files, folder)}), {why}"


def _lines_about_classes(tree: _Tree) -> Iterator[str]:
    """What else a folder holds that its owner may take for rows, classes or captions."""
    if tree.classed and (empty := [each for each in tree.below if each not in tree.classes]):
        yield f"no image in {_listed(empty, tree.folder)}, so no class of that name"
    if tree.classed and (tables := of_kinds(tree.files, TABLES)):
        yield f"{_listed(tables, tree.folder)} is not read, for the folders are classes: give the file to read it"
    texts = [file for file in tree.others if file.suffix.lower() in _CAPTIONS]
    stems = {image.with_suffix("") for image in tree.classed or tree.flat} if texts else set()
    if texts := [file for file in texts if file.with_suffix("") in stems]:
        named = _listed(texts, tree.folder)
        yield f"{len(texts)} texts beside images are not read ({named}): put captions into {METADATA[0]}"


def _listed(files: list[Path], folder: Path) -> str:
    """The first ones, from the folder on, in letters that any terminal prints."""
    names = [str(file.relative_to(folder)).encode("utf-8", "backslashreplace").decode() for file in files[:_NAMED]]
    return ", ".join([*names, *(["…"] if len(files) > _NAMED else [])])


def _is_utf8(file: Path) -> bool:
    try:
        str(file).encode()
    except UnicodeEncodeError:
        return False
    return True
