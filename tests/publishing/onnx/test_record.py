"""What exports say of themselves: as version 0.1.0 wrote it, and what is none of it."""

import json
from pathlib import Path

import pytest

from hf_clip.core.records import InvalidRecord
from hf_clip.publishing.onnx.record import OnnxRecord

WRITTEN = Path(__file__).parents[2] / "fixtures" / "records_of_0.1" / "onnx" / "export.json"


def changed(**changes) -> dict:
    return json.loads(WRITTEN.read_text(encoding="utf-8")) | changes


def test_what_version_0_1_wrote_is_read_and_written_again():
    record = OnnxRecord.read(WRITTEN)
    assert record.pixels.crop == [32, 32]
    assert record.int8.recall["image_retrieval_recall@5"].chance == 0.625
    assert record.to_json() == changed(format_version=1, probabilities="softmax")
    assert OnnxRecord.from_json(changed(logit_bias=-10)).probabilities == "sigmoid"
    assert "int8" not in OnnxRecord.from_json(changed(int8=None)).to_json()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "m"}, "model: str where a mapping belongs"),
        ({"model": {"name": "m"}}, "model: 'digest' is missing"),
        ({"opset": "20"}, "Field 'opset'"),
        ({"shapes": {"input_ids": "texts"}}, "in dict 'shapes'"),
        ({"pixels": {"crop": 32}}, "pixels: 'shortest_edge' is missing"),
        ({"largest_difference": {"text_embeds": 1e-7, "image_embeds": None}}, "largest_difference: Field 'image_e"),
        ({"notes": "none"}, "Field 'notes'"),
        ({"int8": {"data": 3}}, "int8: 'methods' is missing"),
    ],
)
def test_a_value_of_another_kind_is_one_line_with_file_and_field(changes, said, tmp_path):
    (tmp_path / "export.json").write_text(json.dumps(changed(**changes)))
    with pytest.raises(InvalidRecord, match=said) as refusal:
        OnnxRecord.read(tmp_path / "export.json")
    assert "export.json" in str(refusal.value)
    assert "\n" not in str(refusal.value)
