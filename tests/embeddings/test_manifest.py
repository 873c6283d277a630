"""What a pass says of itself: as version 0.1.0 wrote it, and what is none of it."""

import json
import shutil
from pathlib import Path

import pytest

from hf_clip.core.errors import InputError
from hf_clip.embeddings.manifest import read_manifest

WRITTEN = Path(__file__).parents[1] / "fixtures" / "records_of_0.1" / "manifest.json"


def test_what_version_0_1_wrote_is_read_and_its_segments_are_known_by_the_same_origin(tmp_path):
    shutil.copy(WRITTEN, tmp_path)
    manifest = read_manifest(tmp_path)
    assert manifest.to_json() == json.loads(WRITTEN.read_text("utf-8")) | {"format_version": 1}
    assert manifest.origin == "cc1c42f6623a96356f09132de2b072af"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "m"}, "model: str where a mapping belongs"),
        ({"preprocessing": {"tokenizer": 3}}, "preprocessing: 'image_processor' is missing"),
        ({"dimension": "16"}, "Field 'dimension'"),
        ({"rows": -3}, "'rows' is -3, and at least 0"),
        ({"segment_size": 0}, "'segment_size' is 0, and at least 1"),
        ({"class_names": [1]}, "in list 'class_names'"),
        ({"counts": [1]}, "counts: list where a mapping belongs"),
        ({"skipped": [["1", "a.png", "cut"]]}, "in list 'skipped'"),
    ],
)
def test_a_value_of_another_kind_is_one_line_with_file_and_field(changes, said, tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps(json.loads(WRITTEN.read_text("utf-8")) | changes))
    with pytest.raises(InputError, match=said) as refusal:
        read_manifest(tmp_path)
    assert str(tmp_path / "manifest.json") in str(refusal.value)
    assert "\n" not in str(refusal.value)
