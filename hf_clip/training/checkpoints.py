"""Folders that are whole or not there: written aside, then renamed."""

import contextlib
import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from safetensors import SafetensorError
from transformers.trainer_utils import sort_checkpoints

from ..core.errors import InputError, first_line

STAGING = ".staging"
_OLD = ".old"


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


def replace(aside: Path, folder: Path) -> None:
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


def put_back(run: Path) -> None:
    """Folders of a run that were taken out of their place for another, by a process that was then killed."""
    for old in (run / STAGING).glob(f"*{_OLD}"):
        if not (run / old.stem).exists():
            with contextlib.suppress(FileNotFoundError):  # another process has done it
                os.rename(old, run / old.stem)


def remove_oldest(run: Path, limit: int | None, kept: Collection[str]) -> None:
    """Removes a run's checkpoints beyond `limit`, oldest first, but none with a name in `kept`.

    Each is renamed before: what is half removed is no checkpoint.
    """
    checkpoints = [Path(path) for path in sort_checkpoints(str(run), use_mtime=True)]
    surplus = max(len(checkpoints) - limit, 0) if limit and limit > 0 else 0
    for checkpoint in [path for path in checkpoints if path.name not in kept][:surplus]:
        aside = run / STAGING / checkpoint.name
        shutil.rmtree(aside, ignore_errors=True)
        aside.parent.mkdir(exist_ok=True)
        os.rename(checkpoint, aside)
        discard(aside)


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
