"""A staged folder appears whole or not at all."""

import pytest

from hf_clip.errors import InputError
from hf_clip.training.checkpoints import replace, staged


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
