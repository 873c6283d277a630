"""What a folder holds: its visible files, and those of them that are data."""

import functools
import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..core.errors import InputError
from .image_files import has_image_name
from .tars import is_tar

logger = logging.getLogger(__name__)

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
SHARDS = (".parquet", ".tar")
TABLES = (".csv", ".jsonl", ".json")
# JSON that describes a data set or a model is no data.
_DESCRIPTIONS = ("config.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
_ARCHIVES = (".zip", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar", ".arrow")
# Of macOS, Windows, file managers, network storage and Python; what begins with a dot is hidden anyway.
_LEFTOVERS = {
    *("__macosx", "__pycache__", "@eadir", "@recycle", "#recycle", "#snapshot", "lost+found", "$recycle.bin"),
    *("recycler", "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r"),
    *("system volume information", "network trash folder", "temporary items"),
}


def is_leftover(name: str) -> bool:
    """Whether a name is of what systems and tools leave in folders, or hidden."""
    return name.startswith((".", "~$")) or name.lower() in _LEFTOVERS


@functools.cache
def say_once(line: str) -> None:
    """Warns; a source that is opened several times says what was done once."""
    logger.warning(line)


@functools.cache
def visible(folder: Path) -> tuple[list[Path], list[Path]]:
    """(folders, files) in a folder, sorted, without hidden ones and leftovers; broken links are files."""
    try:
        entries = [entry for entry in os.scandir(folder) if not is_leftover(entry.name)]
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}") from error
    names = {entry.name for entry in entries if entry.is_dir()}
    paths = [folder / name for name in sorted(entry.name for entry in entries)]
    return [path for path in paths if path.name in names], [path for path in paths if path.name not in names]


def metadata_of(folder: Path) -> list[Path]:
    return [folder / name for name in METADATA if (folder / name).is_file()][:1]


def of_kinds(files: Iterable[Path], suffixes: Sequence[str]) -> list[Path]:
    """Those files that hold data in one of the formats."""
    return [file for file in files if format_of(file) in suffixes and file.name not in _DESCRIPTIONS]


def format_of(file: Path) -> str:
    """The suffix that says it: that of a tar also where it is compressed."""
    return ".tar" if is_tar(file) else file.suffix.lower()


def data_files(folder: Path) -> list[Path]:
    """Metadata, or else shards, or else tables in the folder itself, where there are any."""
    if found := metadata_of(folder):
        return found
    folders, files = visible(folder)
    shards = of_kinds(files, SHARDS)
    if shards or _holds_images(folder, folders, files):
        return shards
    return of_kinds(files, TABLES)


def _holds_images(folder: Path, folders: list[Path], files: list[Path]) -> bool:
    return any(map(has_image_name, files)) or any(
        has_image_name(file) for each in folders for file in visible(each)[1]
    )


def check_archives(folder: Path) -> None:
    """
    Raises:
        InputError: a tar that is of a folder beside it, and no shard.
    """
    folders, files = visible(folder)
    names = {each.name for each in folders}
    for file in of_kinds(files, [".tar"]):
        if file.name.partition(".")[0] in names:
            raise InputError(f"{file} stands beside a folder of its name: give one of the two, or move the other away")


def data_root(folder: Path) -> Path:
    """The folder itself, or the one below it in which all its data stand, as in that of a data set from the Hub."""
    folders, files = visible(folder)
    if data_files(folder) or len(folders) != 1 or any(map(has_image_name, files)):
        return folder
    if any(has_image_name(file) for file in visible(folders[0])[1]) and not metadata_of(folders[0]):
        return folder  # of one class
    return data_root(folders[0])


def nothing_in(folder: Path, files: Sequence[Path] = ()) -> InputError:
    packed = [file.name for file in files if file.suffix.lower() in _ARCHIVES]
    hint = f"unpack {packed[0]} first" if packed else "add one with the captions"
    return InputError(
        f"{folder} has neither {', '.join(METADATA)} nor parquet files, tar shards, tables or images in folders by "
        f"class: {hint}"
    )
