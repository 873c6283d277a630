"""JSON files: only mappings are read, and nothing that is no JSON is written."""

import json
import math

import pytest

from hf_clip.core.errors import InputError
from hf_clip.core.json_files import flattened, read_json, write_json


def test_what_is_written_is_read_and_no_file_is_nothing(tmp_path):
    file, value = tmp_path / "a.json", {"name": "é", "many": [1, {"deep": None}]}
    write_json(file, value)
    assert (read_json(file), json.loads(file.read_bytes())) == (value, value)
    assert "é" in file.read_text(encoding="utf-8")
    assert read_json(tmp_path / "b.json") == {}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(file, {"loss": math.nan})
    assert read_json(file) == value


@pytest.mark.parametrize(("text", "message"), [("{", "is no JSON"), (b"\xff", "is no JSON"), ("[]", "is no mapping")])
def test_other_files_are_refused(text, message, tmp_path):
    (tmp_path / "a.json").write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(InputError, match=rf"a.json {message}.*: write it again, or remove it"):
        read_json(tmp_path / "a.json")


def test_mappings_within_mappings():
    assert flattened({"a": {"b": 1, "c": {"d": [2]}}, "e": {}}) == {"a.b": 1, "a.c.d": [2]}
