"""Files and folders that are whole or not there: written aside, put on the disk, then renamed."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from safetensors import SafetensorError

from .errors import InputError, first_line

UNFINISHED = ".part"  # ends the name of a file that is being written
STAGING = ".staging"  # the folder that folders are written in
_OLD = ".old"


def replace_file(file: Path, write: Callable[[Path], object]) -> None:
    """Writes a file aside and puts it in its place once it is on the disk.

    Raises:
        InputError: it cannot be written; what was there before is whole.
    """
    aside = file.with_name(f".{file.name}{UNFINISHED}")
    try:
        write(aside)
        _flush(aside)
        os.replace(aside, file)
        _flush(file.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise InputError(
            f"{file} could not be written ({first_line(error)}): make room there and run it again, and it goes on"
        ) from error


def write_text(file: Path, text: str) -> None:
    replace_file(file, lambda aside: aside.write_text(text, encoding="utf-8"))


@contextlib.contextmanager
def staged(folder: str | Path) -> Iterator[Path]:
    """Yields an empty folder aside; on success its content takes the place of `folder`.

    Where `folder` does not exist yet, that is one rename. Where it does, its files are replaced one by one, each
    atomically, and files that were not written again stay. On an error `folder` is as it was.
    """
    folder = Path(folder)
    # On the same disk as what it becomes: a folder that is there may be one that is mounted.
    with _aside(folder if folder.exists() else folder.parent, folder.name) as aside:
        yield aside
        _publish(aside, folder)


@contextlib.contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """Yields an empty folder aside, which on success takes the place of `folder`, whole: never files of both."""
    folder = folder.resolve()
    put_back(folder.parent)
    with _aside(folder.parent, folder.name) as aside:
        yield aside
        replace_folder(aside, folder)


@contextlib.contextmanager
def _aside(parent: Path, name: str) -> Iterator[Path]:
    aside = parent / STAGING / name
    shutil.rmtree(aside, ignore_errors=True)
    with writing(aside):
        _make(aside)
        yield aside
    discard(aside)


def _make(aside: Path) -> None:
    for _ in range(100):  # another process may remove the staging folder, empty, before this one is in it
        with contextlib.suppress(FileNotFoundError):
            aside.mkdir(parents=True)
            return
    aside.mkdir(parents=True)


@contextlib.contextmanager
def writing(aside: Path) -> Iterator[None]:
    """Of what goes wrong in writing a staged folder (a full disk, for one), nothing is left but one line.

    Raises:
        InputError: in place of the errors that the libraries that write have for it.
    """
    try:
        yield
    except BaseException as error:
        discard(aside)
        if not _is_about_writing(error):
            raise
        raise InputError(
            f"{aside.name} could not be written to {aside.parent.parent} ({first_line(error)}): make room there, if "
            "that is what it lacks; what was saved before is whole"
        ) from error


def _is_about_writing(error: BaseException) -> bool:
    # torch.save has no error of its own for it: it names the writer, or the file that it is written in.
    of_torch = isinstance(error, RuntimeError) and ("StreamWriter" in str(error) or "inline_container" in str(error))
    return of_torch or isinstance(error, (OSError, SafetensorError))


def _publish(aside: Path, folder: Path) -> None:
    """Moves a staged folder to its place."""
    _flush_with_content(aside)
    if not folder.exists():
        os.rename(aside, folder)
        _flush(folder.parent)
        return
    for file in sorted(aside.rglob("*")):
        if file.is_file():
            target = folder / file.relative_to(aside)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, target)
    for part in (folder, *(folder / path.relative_to(aside) for path in aside.rglob("*") if path.is_dir())):
        _flush(part)


def replace_folder(aside: Path, folder: Path) -> None:
    """Puts a staged folder in the place of one that may be there, whole: never a mix of both.

    Where that is two renames, `put_back` mends what a kill between them leaves.
    """
    _flush_with_content(aside)
    old = aside.with_name(aside.name + _OLD)
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.rename(folder, old)
    os.rename(aside, folder)
    _flush(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def put_back(parent: Path) -> None:
    """Folders that were taken out of their place for another, by a process that was then killed."""
    for old in (parent / STAGING).glob(f"*{_OLD}"):
        if not (parent / old.stem).exists():
            with contextlib.suppress(FileNotFoundError):  # another process has done it
                os.rename(old, parent / old.stem)


def discard(aside: Path) -> None:
    """Removes what is left of a staged folder, and the staging folder once it is empty."""
    shutil.rmtree(aside, ignore_errors=True)
    with contextlib.suppress(OSError):
        aside.parent.rmdir()


def _flush_with_content(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        _flush(path)


def _flush(path: Path) -> None:
    """To the disk: a file's content, or which names stand in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
