"""Which checkpoints of a run stay."""

import os
import shutil

from hf_clip.training.checkpoints import remove_oldest


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
