"""Processes that wait for each other by files: here threads, each with its own end of the meeting."""

import os
import threading
import time

import pytest
import torch
from conftest import write_pictures
from filelock import FileLock
from processes import fill_a_cache_slowly
from processes import run as run_processes

from hf_clip.core.errors import InputError
from hf_clip.training import meeting as meeting_file
from hf_clip.training.feature_cache import _held
from hf_clip.training.meeting import Meeting, meeting_in


def test_what_is_said_is_heard(tmp_path):
    one, two = Meeting(tmp_path, 0, 2), Meeting(tmp_path, 1, 2)
    threading.Timer(0.3, one.say, ("prepared", "text-1")).start()
    assert two.hear("prepared", 0) == "text-1"
    threading.Timer(0.1, two.say, ("filled",)).start()
    one.wait_for_all("filled")
    assert one.hear("filled", 1) is None


def test_one_process_leaves_no_files(tmp_path):
    with meeting_in(tmp_path / "root", 0, 1) as alone:
        alone.say("prepared")
        alone.wait_for_all("filled")
    assert list((tmp_path / "root").iterdir()) == []


@pytest.mark.parametrize("error", [InputError("row 3\nand more"), KeyError("x"), KeyboardInterrupt()])
def test_who_fails_takes_the_others_along(error, tmp_path):
    one, two = Meeting(tmp_path, 0, 3), Meeting(tmp_path, 1, 3)
    with pytest.raises(type(error)), one.attended():
        raise error
    said = {InputError: "row 3", KeyError: "'x'", KeyboardInterrupt: "KeyboardInterrupt"}[type(error)]
    with pytest.raises(InputError, match=f"^process 0 failed: {said}$"), two.attended():
        two.hear("filled", 2)  # whoever it waits for


def test_a_process_without_a_sign_of_life_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(meeting_file, "_BEAT", 0.05)
    one, two = Meeting(tmp_path, 0, 2), Meeting(tmp_path, 1, 2, patience=0.4)
    with one.attended():
        threading.Timer(0.9, one.say, ("prepared",)).start()
        two.hear("prepared", 0)  # it lives, and was long
    start = time.monotonic()
    with pytest.raises(InputError, match="process 0 has given no sign of life for 0 seconds"):
        two.hear("filled", 0)
    assert time.monotonic() - start < 5


def test_others_wait_in_the_meeting_while_another_run_holds_the_folder(tmp_path, caplog):
    """The lock is the first process's affair."""
    (tmp_path / "text").mkdir()
    other = FileLock(tmp_path / "text" / ".lock")
    other.acquire()
    one, two = Meeting(tmp_path, 0, 2), Meeting(tmp_path, 1, 2)

    def first():
        with one.attended(), _held(tmp_path / "text"):
            one.say("prepared")

    thread = threading.Thread(target=first)
    thread.start()
    time.sleep(0.3)
    assert not (tmp_path / "prepared-0").exists()
    other.release()
    two.hear("prepared", 0)
    thread.join()
    assert "waiting for another run that fills" in caplog.text


def test_what_a_failed_run_left_is_removed_after_a_week(tmp_path):
    old, young = (tmp_path / f".meeting-{name}" for name in ("old", "young"))
    for folder in (old, young):
        folder.mkdir()
        (folder / "alive-0").write_text("3")
    for file in (old / "alive-0", old):
        os.utime(file, (0, 0))
    assert meeting_file._try_to_open(tmp_path)[1] is None
    assert (old.exists(), young.exists()) == (False, True)


def test_a_slow_first_process_outlasts_no_collective(tmp_path):
    """The scan, and the first share, each take longer than ddp_timeout; a failure reaches the other as a line."""
    data = write_pictures(tmp_path / "pictures", count=8)
    run_processes(fill_a_cache_slowly, 2, str(tmp_path), str(data), 2.0)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert len(first["ids"]) == 8
    assert first["ids"] == second["ids"]
    assert (first["seen"]["captions"], second["seen"]["captions"]) == (4, 4)
    assert first["error"].startswith("row 3 is no text")
    assert second["error"] == "process 0 failed: row 3 is no text"
