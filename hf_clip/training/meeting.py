"""Processes that wait for each other by files, for as long as it takes: no collective is open meanwhile."""

import contextlib
import json
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..core.atomic import write_text
from ..core.errors import InputError, first_line
from .processes import gather_objects

_NAME = ".meeting-"
_LOOK, _BEAT = 0.1, 2.0  # seconds between two looks for a file, and between two signs of life
PATIENCE = 300.0  # seconds without a sign of life after which a process is taken for dead
_OLD = 7 * 24 * 3600.0  # seconds after which what a failed run left is removed


class Meeting:
    """A folder that all processes see, in which each says how far it is.

    A collective fails after `ddp_timeout`, whatever the others are busy with; here one waits as long as the others
    show signs of life.
    """

    def __init__(self, folder: Path, rank: int, processes: int, patience: float = PATIENCE):
        self.folder, self.rank, self.processes, self.patience = folder, rank, processes, patience
        self._over = threading.Event()
        self._beats: dict[int, tuple[str, float]] = {}  # what was last read, and when that was new

    def say(self, what: str, value: Any = None) -> None:
        if self.processes == 1:
            return
        write_text(self._file(what, self.rank), json.dumps(value))

    def hear(self, what: str, rank: int) -> Any:
        """What a process says, once it does.

        Raises:
            InputError: a process has failed, or gives no sign of life.
        """
        while (said := self._read(what, rank)) is None:
            self._check_failures()
            self._check_life(rank)
            time.sleep(_LOOK)
        return json.loads(said)

    def wait_for_all(self, what: str) -> None:
        """Until every process has said this."""
        self.say(what)
        for rank in range(self.processes):
            if rank != self.rank:
                self.hear(what, rank)

    @contextlib.contextmanager
    def attended(self) -> Iterator[None]:
        """Shows that this process lives, and tells the others if it fails."""
        threading.Thread(target=self._beat, daemon=True).start()
        try:
            yield
        except BaseException as error:
            with contextlib.suppress(Exception):  # the error counts, not that the others hear of it
                self.say("failed", first_line(error) or type(error).__name__)
            raise
        finally:
            self._over.set()

    def _beat(self) -> None:
        count = 0
        while not self._over.is_set():
            with contextlib.suppress(OSError):
                self._file("alive", self.rank).write_text(str(count))
            count += 1
            self._over.wait(_BEAT)

    def _check_life(self, rank: int) -> None:
        beat, now = self._read("alive", rank) or "", time.monotonic()
        before, since = self._beats.get(rank, (None, now))
        if beat != before:
            self._beats[rank] = beat, now
        elif now - since > self.patience:
            raise InputError(
                f"process {rank} has given no sign of life for {self.patience:.0f} seconds: look at what it printed, "
                "and start all of them again"
            )

    def _check_failures(self) -> None:
        for rank in range(self.processes):
            if rank != self.rank and (said := self._read("failed", rank)):
                raise InputError(f"process {rank} failed: {json.loads(said)}")

    def _read(self, what: str, rank: int) -> str | None:
        try:
            return self._file(what, rank).read_text(encoding="utf-8") or None
        except FileNotFoundError:
            return None

    def _file(self, what: str, rank: int) -> Path:
        return self.folder / f"{what}-{rank}"


@contextlib.contextmanager
def meeting_in(root: Path, rank: int, processes: int) -> Iterator[Meeting]:
    """A meeting in a folder of its own. Every process enters at the same time, and leaves at the same time.

    Raises:
        InputError: the folder cannot be made, or is not seen by every process; a process fails.
    """
    if processes == 1:
        _make(root)
        yield Meeting(root, rank, processes)
        return
    made, error = _try_to_open(root) if rank == 0 else (None, None)
    folder, error = gather_objects((made, error))[0]
    if error:
        raise InputError(error)
    if not all(gather_objects(Path(folder).is_dir())):
        raise InputError(f"{root} is not seen by every process: give a feature_cache_dir that all machines share")
    meeting = Meeting(Path(folder), rank, processes)
    with meeting.attended():
        yield meeting
        meeting.wait_for_all("end")
    gather_objects(None)  # nobody reads there any more
    if rank == 0:
        shutil.rmtree(folder, ignore_errors=True)


def _try_to_open(root: Path) -> tuple[str | None, str | None]:
    """(the new folder, why there is none)"""
    try:
        _make(root)
        for left in root.glob(f"{_NAME}*"):
            if all(time.time() - file.stat().st_mtime > _OLD for file in [left, *left.iterdir()]):
                shutil.rmtree(left, ignore_errors=True)
        return tempfile.mkdtemp(prefix=_NAME, dir=root), None
    except (InputError, OSError) as error:
        return None, str(error)


def _make(root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{root} cannot be made: {error.strerror}: give another feature_cache_dir") from error
