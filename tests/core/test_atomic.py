"""A file or folder appears whole or not at all."""

import os

import pytest

from hf_clip.core.atomic import put_back, replace_file, replace_folder, replaced, staged
from hf_clip.core.errors import InputError


def test_a_new_folder_appears_at_the_end(tmp_path):
    with staged(tmp_path / "new") as aside:
        (aside / "sub").mkdir()
        (aside / "sub" / "file").write_text("content")
        assert not (tmp_path / "new").exists()
    assert (tmp_path / "new" / "sub" / "file").read_text() == "content"
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def write_half(folder):
    with staged(folder) as aside:
        (aside / "file").write_text("half")
        raise OSError("disk full")


def test_on_an_error_nothing_appears_and_what_was_there_stays(tmp_path):
    old = tmp_path / "old"
    old.mkdir()
    (old / "file").write_text("before")
    for folder in (old, tmp_path / "new"):
        with pytest.raises(InputError, match=r"could not be written to .* \(disk full\): make room"):
            write_half(folder)
    assert (old / "file").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_files_of_a_folder_that_is_there_are_replaced_and_others_stay(tmp_path):
    for name in ("kept", "replaced"):
        (tmp_path / name).write_text("before")
    with staged(tmp_path) as aside:
        (aside / "replaced").write_text("after")
    assert (tmp_path / "kept").read_text() == "before"
    assert (tmp_path / "replaced").read_text() == "after"


def test_a_checkpoint_takes_another_s_place_whole(tmp_path):
    old, aside = tmp_path / "checkpoint-2", tmp_path / ".staging" / "checkpoint-2"
    for folder, files in ((old, ("weights", "only_before")), (aside, ("weights", "only_after"))):
        folder.mkdir(parents=True)
        for name in files:
            (folder / name).write_text(folder.parent.name)
    replace_folder(aside, old)
    assert {file.name for file in old.iterdir()} == {"weights", "only_after"}
    assert (old / "weights").read_text() == ".staging"
    assert list((tmp_path / ".staging").iterdir()) == []


def test_what_a_kill_between_two_renames_took_away_is_put_back(tmp_path, monkeypatch):
    old, aside = tmp_path / "checkpoint-2", tmp_path / ".staging" / "checkpoint-2"
    for folder in (old, aside):
        folder.mkdir(parents=True)
        (folder / "weights").write_text(folder.parent.name)
    rename = os.rename

    def killed(source, target):
        if source == aside:
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        replace_folder(aside, old)
    assert not old.exists()
    put_back(tmp_path)
    assert (old / "weights").read_text() == tmp_path.name
    put_back(tmp_path)  # nothing is left to do


def test_a_file_that_cannot_be_written_leaves_the_one_before_and_no_half(tmp_path):
    file = tmp_path / "file"
    replace_file(file, lambda aside: aside.write_text("before"))

    def break_off(aside):
        aside.write_text("half")
        raise OSError("disk full")

    with pytest.raises(InputError, match=r"file could not be written \(disk full\): make room there and run it again"):
        replace_file(file, break_off)
    assert (file.read_text(), os.listdir(tmp_path)) == ("before", ["file"])


def test_another_process_may_remove_the_staging_folder_while_it_is_empty(tmp_path, monkeypatch):
    make, removed = os.mkdir, []

    def make_and_lose(path, *mode):
        make(path, *mode)
        if os.path.basename(path) == ".staging" and len(removed) < 3:
            os.rmdir(path)
            removed.append(path)

    monkeypatch.setattr(os, "mkdir", make_and_lose)
    with staged(tmp_path / "new") as aside:
        (aside / "file").touch()
    assert (len(removed), os.listdir(tmp_path / "new")) == (3, ["file"])


def test_a_folder_takes_the_place_of_another_whole(tmp_path):
    for name in ("first", "second"):
        with replaced(tmp_path / "folder") as aside:
            (aside / name).write_text(name)
    assert (os.listdir(tmp_path), os.listdir(tmp_path / "folder")) == (["folder"], ["second"])
