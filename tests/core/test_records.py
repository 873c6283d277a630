"""Records are what was written, or one line that says where a file is something else."""

import json
from dataclasses import dataclass, field
from typing import Literal

import pytest
from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassFieldValidationError

from hf_clip.core.records import InvalidRecord, Record


@strict
@dataclass
class Speed(Record):
    pairs_per_second: float
    size: tuple[int, int] | None = None
    device: Literal["cpu", "gpu"] = "cpu"


@strict
@dataclass
class Course(Record):
    version = 2

    first: Speed
    parts: list[Speed] = field(default_factory=list)
    by_name: dict[str, Speed] = field(default_factory=dict)
    settings: dict[str, object] = field(default_factory=dict)
    names: tuple[str, ...] = ()

    @classmethod
    def upgraded(cls, value, version):
        return {"first": {"pairs_per_second": value["speed"]}}


@strict
@dataclass
class Note(Record):
    note: str | None = None


@strict
@dataclass
class Noted(Record):
    first: Note = field(default_factory=Note)
    several: int | str = 0


WRITTEN = {
    "format_version": 2,
    "first": {"pairs_per_second": 1.0, "size": [2, 3], "device": "gpu"},
    "parts": [{"pairs_per_second": 2.5, "size": None, "device": "cpu"}],
    "by_name": {"a": {"pairs_per_second": 4.0, "size": None, "device": "cpu"}},
    "settings": {"betas": [0.9, None], "more": {"x": True}},
    "names": ["one", "two"],
}


def test_what_was_written_is_read(tmp_path):
    course = Course.from_json(WRITTEN)
    assert course.first == Speed(1.0, (2, 3), "gpu")
    assert course.by_name["a"].pairs_per_second == 4.0
    assert course.names == ("one", "two")
    course.write(tmp_path / "course.json")
    assert json.loads((tmp_path / "course.json").read_text()) == WRITTEN
    assert Course.read(tmp_path / "course.json") == course


def test_a_whole_number_is_a_float():
    assert type(Speed.from_json({"pairs_per_second": 120}).pairs_per_second) is float


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"first": {}}, "first: 'pairs_per_second' is missing"),
        ({"first": {"pairs_per_second": "1"}}, "first: Field 'pairs_per_second' expected float, got str"),
        ({"first": {"pairs_per_second": True}}, "first: Field 'pairs_per_second' expected float, got bool"),
        ({"first": {"pairs_per_second": 1, "size": [2]}}, "first: Field 'size'"),
        ({"first": {"pairs_per_second": 1, "device": "tpu"}}, "first: Field 'device' expected one of"),
        ({"parts": [WRITTEN["first"], 3]}, r"parts\[1\]: int where a mapping belongs"),
        ({"by_name": {"a": {"pairs_per_second": None}}}, "by_name.a: Field 'pairs_per_second'"),
        ({"first": {"pairs_per_second": float("nan")}}, "first.pairs_per_second: nan where a number belongs"),
        ({"settings": {"a": [{"b": float("-inf")}]}}, r"settings.a\[0\].b: -inf where a number belongs"),
        ({"settings": [1]}, "Field 'settings' expected a dict, got list"),
        ({"speed": 3}, "unknown field 'speed'"),
        ({"format_version": 3}, "newer hf_clip"),
        ({"format_version": "2"}, "format_version '2' is no version"),
        ({"format_version": -1}, "format_version -1 is no version"),
    ],
)
def test_what_is_no_record_is_refused_with_its_place(changes, said, tmp_path):
    (tmp_path / "course.json").write_text(json.dumps(WRITTEN | changes))
    with pytest.raises(InvalidRecord, match=said) as refusal:
        Course.read(tmp_path / "course.json")
    assert "course.json" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_an_optional_field_is_named_once():
    with pytest.raises(InvalidRecord, match=r"first: Field 'note' expected str, got int \(value: 5\)\)") as refusal:
        Noted.from_json({"first": {"note": 5}})
    assert str(refusal.value).count("Field") == 1
    with pytest.raises(InvalidRecord, match="Field 'several' with value None doesn't match any type in"):
        Noted.from_json({"several": None})


def test_an_older_file_is_upgraded():
    assert Course.from_json({"speed": 7}) == Course(Speed(7.0))
    assert Course.from_json({"speed": 7, "format_version": 1}) == Course(Speed(7.0))


def test_no_file_is_no_record(tmp_path):
    with pytest.raises(InvalidRecord, match=r"there is no .*course\.json"):
        Course.read(tmp_path / "course.json")


def test_a_wrong_value_is_refused_where_it_is_made():
    with pytest.raises(StrictDataclassFieldValidationError, match="pairs_per_second"):
        Speed("fast")
    course = Course(Speed(1.0))
    with pytest.raises(StrictDataclassFieldValidationError, match="parts"):
        course.parts = "none"


@strict
@dataclass
class Step(Record):
    from_: int
    to: int


def test_a_word_of_python_s_is_a_field_too():
    assert Step.from_json({"from": 1, "to": 2}) == Step(1, 2)
    assert Step(1, 2).to_json() == {"from": 1, "to": 2}
    with pytest.raises(InvalidRecord, match="unknown field 'from_'"):
        Step.from_json({"from_": 1, "to": 2})
