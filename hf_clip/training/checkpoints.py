"""Folders that are whole or not there: written aside, then renamed."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from ..errors import InputError, first_line

STAGING = ".staging"


@contextlib.contextmanager
def staged(folder: str | Path) -> Iterator[Path]:
    """Yields an empty folder aside; on success its content takes the place of `folder`.

    Where `folder` does not exist yet, that is one rename. Where it does, its files are replaced one by one, each
    atomically, and files that were not written again stay. On an error `folder` is as it was.
    """
    folder = Path(folder)
    # On the same disk as what it becomes: a folder that is there may be one that is mounted.
    aside = (folder if folder.exists() else folder.parent) / STAGING / folder.name
    shutil.rmtree(aside, ignore_errors=True)
    with writing(aside):
        aside.mkdir(parents=True)
        yield aside
        _publish(aside, folder)
    discard(aside)


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
    for file in sorted(aside.rglob("*")):
        if file.is_file():
            _flush_to_disk(file)
    if not folder.exists():
        os.rename(aside, folder)
        return
    for file in sorted(aside.rglob("*")):
        if file.is_file():
            target = folder / file.relative_to(aside)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, target)


def replace(aside: Path, folder: Path) -> None:
    """Puts a staged folder in the place of one that may be there, whole: never a mix of both."""
    old = aside.with_name(f"{aside.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.rename(folder, old)
    _publish(aside, folder)
    shutil.rmtree(old, ignore_errors=True)


def discard(aside: Path) -> None:
    """Removes what is left of a staged folder, and the staging folder once it is empty."""
    shutil.rmtree(aside, ignore_errors=True)
    with contextlib.suppress(OSError):
        aside.parent.rmdir()


def _flush_to_disk(file: Path) -> None:
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
