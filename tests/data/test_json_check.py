"""JSON with text that no reader takes, or that one loses: the row is named, whole and streamed alike."""

import json

import pytest

from hf_clip.core.errors import InputError
from hf_clip.data.json_check import check_json
from hf_clip.data.sources import open_source


def row_of(text: str) -> str:
    return f'{{"image": "0.png", "caption": {text}}}'


GOOD = row_of(r'"a \ud83d\ude00 \\ud83d"')  # a whole pair, and the letters of a half one
HALVES = {
    "first": row_of(r'"x \ud83d"'),
    "before a letter": row_of(r'"\uD83Dx"'),
    "second": row_of(r'"\ude00"'),
    "swapped": row_of(r'"\ude00\ud83d"'),
    "two firsts": row_of(r'"\ud83d\ud83d\ude00"'),
    "in a list": row_of(r'["x", "\ud83d"]'),
    "in another column": '{"image": "0.png", "caption": "x", "note": "\\ud83d"}',
}


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("form", ["a.jsonl", "metadata.jsonl", "a.json"])
@pytest.mark.parametrize("half", HALVES)
def test_half_of_a_surrogate_pair_is_refused_with_its_row(half, form, streaming, tmp_path):
    good = row_of(r'["a"]') if half == "in a list" else GOOD
    rows = [good, good, HALVES[half], good]
    (tmp_path / form).write_text("[" + ",\n".join(rows) + "]" if form == "a.json" else "\n".join(rows))
    name = tmp_path if form == "metadata.jsonl" else tmp_path / form
    where = "note" if half == "in another column" else "caption"
    with pytest.raises(
        InputError,
        match=rf"{form}: row 3 has half of a surrogate pair \('.u\w+'\) in '{where}', which no tokenizer takes: fix",
    ):
        list(open_source(name, streaming=streaming).read_shard(0))


def test_what_is_whole_passes(tmp_path):
    (tmp_path / "a.jsonl").write_text(f"{GOOD}\nno json\n\n{GOOD}\n")
    (tmp_path / "b.json").write_text(json.dumps([json.loads(GOOD)]))
    (tmp_path / "c.json").write_text("[1")
    (tmp_path / "d.parquet").write_bytes(b"\xff")
    check_json([*sorted(tmp_path.iterdir()), tmp_path / "none.json"])
    assert open_source(tmp_path / "b.json").captions(0) == ["a \U0001f600 \\ud83d"]


@pytest.mark.parametrize("streaming", [False, True])
def test_other_encodings(streaming, tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text("\n".join([row_of('"a"'), row_of('"café"')]), "latin-1")
    with pytest.raises(InputError, match=r"a.jsonl: row 2 (is not|has text that is not) UTF-8"):
        list(open_source(file, streaming=streaming).read_shard(0))
    file.write_text(row_of('"a"'), "utf-16")
    with pytest.raises(InputError, match=r"a.jsonl is UTF-16: save it as UTF-8"):
        list(open_source(file, streaming=streaming).read_shard(0))
    file.write_text("\n".join([row_of('"a"'), row_of('"b"')]), "utf-8-sig")
    assert [record["caption"] for record in open_source(file, streaming=True).read_shard(0)] == ["a", "b"]
