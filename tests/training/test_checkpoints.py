"""A staged folder appears whole or not at all."""

import os
import shutil

import pytest

from hf_clip.core.errors import InputError
from hf_clip.training.checkpoints import put_back, remove_oldest, replace, staged


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
    replace(aside, old)
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
        replace(aside, old)
    assert not old.exists()
    put_back(tmp_path)
    assert (old / "weights").read_text() == tmp_path.name
    put_back(tmp_path)  # nothing is left to do


def test_the_oldest_go_but_not_those_to_be_kept_and_none_in_its_place(tmp_path, monkeypatch):
    for step in (2, 4, 6, 8):
        (tmp_path / f"checkpoint-{step}").mkdir()
        os.utime(tmp_path / f"checkpoint-{step}", (step * 10, step * 10))
    removed, remove = [], shutil.rmtree

    def watched(path, **how):
        removed.append(path.parent)
        remove(path, **how)

    monkeypatch.setattr(shutil, "rmtree", watched)
    remove_oldest(tmp_path, None, {"checkpoint-8"})
    assert len(list(tmp_path.iterdir())) == 4
    remove_oldest(tmp_path, 2, {"checkpoint-2", "checkpoint-8"})
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-2", "checkpoint-8"}
    assert set(removed) == {tmp_path / ".staging"}
    remove_oldest(tmp_path, 1, {"checkpoint-2", "checkpoint-8"})
    assert len(list(tmp_path.iterdir())) == 2
