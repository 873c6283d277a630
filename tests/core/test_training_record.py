"""What runs say of themselves: as version 0.1.0 wrote it, and what is none of it."""

import json
from pathlib import Path

import pytest

from hf_clip.core.records import InvalidRecord
from hf_clip.core.training_record import DataRecord, TrainingRecord
from hf_clip.publishing.clip.training_record import PairTrainingRecord

WRITTEN = Path(__file__).parents[1] / "fixtures" / "records_of_0.1" / "training.json"


def test_what_version_0_1_wrote_is_read_and_written_again():
    said = json.loads(WRITTEN.read_text(encoding="utf-8"))
    record = PairTrainingRecord.read(WRITTEN)
    assert (record.steps, record.epochs, record.batch_size) == (4, 2.0, 4)
    assert (record.vision_model, record.text_model, record.temperature) == (
        "microsoft/resnet-50",
        "bert",
        0.07012668997049332,
    )
    assert record.has_frozen("text")
    assert not record.has_frozen("vision")
    assert record.data[0].words.median == 2.0
    later = {"format_version": 1, "repositories": {}, "loss": None}
    assert record.to_json() == said | later


def test_what_is_not_known_may_be_none_in_an_older_file():
    said = json.loads(WRITTEN.read_text(encoding="utf-8"))
    assert PairTrainingRecord.from_json(dict.fromkeys(said)) == PairTrainingRecord()
    with pytest.raises(InvalidRecord, match="Field 'data'"):
        TrainingRecord.from_json({"format_version": 1, "data": None})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": "birds"}, "Field 'data' expected a list, got str"),
        ({"data": [{"name": 3}]}, r"data\[0\]: Field 'name'"),
        (
            {"data": [{"name": "x", "words": {"median": "2", "shortest": 1, "longest": 2}}]},
            r"data\[0\].words: Field 'm",
        ),
        ({"data": [{"name": "x", "pictures": 1.5}]}, r"data\[0\]: Field 'pictures'"),
        ({"hyperparameters": [1]}, "hyperparameters: list where a mapping belongs"),
        ({"hyperparameters": {"changed": 3}}, "hyperparameters: Field 'changed'"),
        ({"parameters": {"trained": "all"}}, "in dict 'parameters'"),
        ({"augmentation": "none"}, "Field 'augmentation'"),
        ({"hardware": {"processes": "2"}}, "hardware: Field 'processes'"),
        ({"emissions": {"kg": [1]}}, "emissions: Field 'kg'"),
        ({"versions": {"torch": 2}}, "in dict 'versions'"),
        ({"steps": "4"}, "Field 'steps'"),
        ({"pictures_may_be_shown": "yes"}, "Field 'pictures_may_be_shown'"),
        ({"vision_model": 50}, "Field 'vision_model'"),
        ({"repositories": ["a"]}, "Field 'repositories'"),
        ({"loss": "mine"}, "loss: str where a mapping belongs"),
        ({"colour": 1}, "unknown field 'colour'"),
    ],
)
def test_a_value_of_another_kind_is_one_line_with_file_and_field(changes, said, tmp_path):
    (tmp_path / "training.json").write_text(json.dumps(json.loads(WRITTEN.read_text("utf-8")) | changes))
    with pytest.raises(InvalidRecord, match=said) as refusal:
        PairTrainingRecord.read(tmp_path / "training.json")
    assert str(tmp_path / "training.json") in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_names_that_are_places_are_told_by_their_last_part():
    record = PairTrainingRecord(
        started_from="/mnt/team/old",
        vision_model="/mnt/team/resnet",
        text_model="",
        data=[DataRecord(name="/mnt/x/y")],
    )
    public = record.in_public()
    assert (public.started_from, public.vision_model, public.text_model) == ("old", "resnet", None)
    assert public.data[0].name == "y"
    assert record.started_from == "/mnt/team/old"


def test_of_a_source_what_is_not_known_is_not_written():
    assert DataRecord(name="x", streamed=True).to_json() == {"name": "x", "weight": None, "streamed": True}
    assert DataRecord(name="x", pictures=0).to_json() == {"name": "x", "weight": None, "pictures": 0}
