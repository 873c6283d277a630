"""What a run has skipped stands in its checkpoints, by whichever version."""

import json

import pytest

from hf_clip.core.records import InvalidRecord
from hf_clip.training.skipped import SKIPPED_IMAGES, SkippedImages, SkippedRecord

WRITTEN = [[1, "1.png", "the file is empty"], [5, "/mnt/team/5.png", "/mnt/team/5.png is cut"]]


@pytest.mark.parametrize("content", [WRITTEN, {"format_version": 1, "images": WRITTEN}], ids=["0.1", "today"])
def test_a_checkpoint_s_are_taken_up(content, tmp_path):
    (tmp_path / SKIPPED_IMAGES).write_text(json.dumps(content))
    skipped = SkippedImages()
    skipped[9] = ("9.png", "of a training before")
    skipped.resume(tmp_path)
    assert skipped == {row: (name, reason) for row, name, reason in WRITTEN}


def test_in_public_their_folder_is_not_told():
    public = SkippedRecord([(row, name, reason) for row, name, reason in WRITTEN]).in_public()
    assert public.to_json() == {
        "format_version": 1,
        "images": [[1, "1.png", "the file is empty"], [5, "5.png", "5.png is cut"]],
    }


@pytest.mark.parametrize("content", [3, {"images": 3}, [3], [[1, "1.png"]], [["1", "1.png", "empty"]], [[1, 2, 3]]])
def test_a_file_of_another_shape_is_one_line_and_takes_nothing_away(content, tmp_path):
    (tmp_path / SKIPPED_IMAGES).write_text(json.dumps(content))
    skipped = SkippedImages()
    skipped[9] = ("9.png", "of a training before")
    with pytest.raises(InvalidRecord, match=rf"{SKIPPED_IMAGES} is not as hf_clip writes it") as refusal:
        skipped.resume(tmp_path)
    assert "\n" not in str(refusal.value)
    assert skipped == {9: ("9.png", "of a training before")}
