"""Temporary folders; one that a killed process leaves is removed by the next."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

_PREFIX, _LOCK = "hf_clip-", ".lock"


@contextmanager
def temporary_folder(parent: str | Path | None = None) -> Iterator[Path]:
    """An empty folder, removed at the end; those that no process owns any more are removed before.

    A lock of the operating system's says whose a folder is: it goes with the process, however that ends.

    Args:
        parent: default: the system's temporary folder.
    """
    parent = Path(parent or tempfile.gettempdir())
    remove_abandoned(parent)
    descriptor, name = tempfile.mkstemp(prefix=_PREFIX, suffix=_LOCK, dir=parent)
    os.close(descriptor)
    lock, folder = FileLock(name, thread_local=False), Path(name.removesuffix(_LOCK))
    with lock:
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            _remove(folder, Path(name))


def remove_abandoned(parent: Path) -> None:
    """Removes the folders there that `temporary_folder` has made in processes which are gone."""
    for lock in parent.glob(f"{_PREFIX}*{_LOCK}"):
        with suppress(OSError, Timeout), FileLock(lock, timeout=0):  # else another user's, or one in use
            _remove(lock.with_suffix(""), lock)


def _remove(folder: Path, lock: Path) -> None:
    """Both while the lock is held; who waits for a file that is gone by then makes it anew."""
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        lock.unlink()
