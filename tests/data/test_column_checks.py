"""Columns as other software stores them are read alike whole and streamed; what no tokenizer takes names its row."""

import json
import re

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import write_pictures

from hf_clip.core.errors import InputError
from hf_clip.data import columns
from hf_clip.data.augmentation import Augmentation
from hf_clip.data.dataset import TrainingPairs
from hf_clip.data.sources import open_source
from hf_clip.data.split import content_keys
from hf_clip.embeddings.provenance import data_facts
from hf_clip.models.image_processors import square_image_processor

TEXTS = ["red", "a green dog", "blue"]
LISTS = [["red"], ["a green dog", "grün"], []]
BAD = b"caf\xe9"  # Latin-1


@pytest.fixture(params=[False, True], ids=["whole", "streaming"])
def streaming(request) -> bool:
    return request.param


def records(source) -> list[dict]:
    if source.streaming:
        return [record for shard in range(source.rows.num_shards) for record in source.read_shard(shard)]
    return [source.rows[row] for row in range(len(source))]


def parquet(folder, **values):
    count = len(next(iter(values.values())))
    pq.write_table(pa.table({"image": ["0.png"] * count, **values}), folder / "a.parquet")
    return folder / "a.parquet"


def dictionary_of_lists() -> pa.Array:
    return pa.ListArray.from_arrays([0, 1, 3, 3], pa.array(["red", "a green dog", "grün"]).dictionary_encode())


STORED_TEXTS = {
    "string": pa.array(TEXTS),
    "large": pa.array(TEXTS, pa.large_string()),
    "view": pa.array(TEXTS, pa.string_view()),
    "dictionary": pa.array(TEXTS).dictionary_encode(),
    "dictionary of large": pa.array(TEXTS, pa.large_string()).dictionary_encode(),
    "sliced view": pa.array(["no", *TEXTS], pa.string_view()).slice(1),
}
STORED_LISTS = {
    "list": pa.array(LISTS),
    "large list": pa.array(LISTS, pa.large_list(pa.large_string())),
    "list of views": pa.array(LISTS, pa.list_(pa.string_view())),
    "large list of views": pa.array(LISTS, pa.large_list(pa.string_view())),
    "list of dictionary": dictionary_of_lists(),
}


@pytest.mark.parametrize("kind", [*STORED_TEXTS, *STORED_LISTS])
def test_captions_in_every_form_of_text(kind, tmp_path, streaming):
    stored = (STORED_TEXTS | STORED_LISTS)[kind]
    expected = [[text] for text in TEXTS] if kind in STORED_TEXTS else LISTS
    source = open_source(parquet(tmp_path, caption=stored), captions_required=False, streaming=streaming)
    assert [source.captions_of(record) for record in records(source)] == expected


@pytest.mark.parametrize("kind", ["string", "view", "list of views", "fixed"])
def test_lengths_of_captions(kind, tmp_path):
    lists = [["red", "a red"], ["green", ""], ["blue", "it"]]
    fixed = pa.array(lists, pa.list_(pa.string_view(), 2))
    stored = {"fixed": fixed, "list of views": pa.array(lists, pa.list_(pa.string_view()))} | STORED_TEXTS
    file = parquet(tmp_path, caption=stored[kind])
    lengths = list(columns.caption_lengths(open_source(file, captions_required=False).rows, "caption"))
    assert lengths == ([3, 11, 4] if kind in STORED_TEXTS else [4, 2, 3]), "of lists the mean: 4, 2.5, 3"


@pytest.mark.parametrize("kind", [*STORED_TEXTS, *STORED_LISTS])
def test_labels_in_every_form_of_text(kind, tmp_path, streaming):
    stored = (STORED_TEXTS | STORED_LISTS)[kind]
    names = ["a green dog", "blue", "grün", "red"]
    settings = {"label_column": "kind", "captions_required": False, "streaming": streaming}
    source = open_source(parquet(tmp_path, kind=stored), class_names=names, **settings)
    expected = [3, 0, 1] if kind in STORED_TEXTS else [[3], [0, 2], []]
    assert [source.label_of(record) for record in records(source)] == expected
    if not streaming:
        several = [[number in row for number in range(4)] for row in expected] if kind in STORED_LISTS else expected
        assert source.labels().tolist() == several
        assert set(open_source(tmp_path / "a.parquet", **settings).class_names) <= set(names)


@pytest.mark.parametrize(
    ("values", "captions", "labels"),
    [
        (pa.array([7]), "holds int64, not text", ""),
        (pa.array([0.5]), "holds double, not text", "holds double, not class numbers or names"),
        (pa.array([True]), "holds bool, not text", "holds bool, not class numbers or names"),
        (pa.array([b"red"]), "holds binary, not text", "holds binary, not class"),
        (pa.array([b"red"], pa.binary_view()), "holds binary_view, not text", "holds binary_view, not class"),
        (pa.array([{"en": "red"}]), "holds struct<en: string>, not text", "holds struct<en: string>, not class"),
        (pa.array([[["red"]]]), r"holds list<\w+: string>, not text", r"holds list<\w+: string>, not class"),
        (pa.array([7], pa.date32()), "holds date32", "holds date32"),
    ],
)
def test_other_kinds_are_refused_alike(values, captions, labels, tmp_path, streaming):
    with pytest.raises(InputError, match=rf"a.parquet: column 'caption' {captions}.*: mend it or set caption_column$"):
        open_source(parquet(tmp_path, caption=values), streaming=streaming)
    settings = {"label_column": "kind", "class_names": ["x", "y"], "streaming": streaming}
    if labels:
        with pytest.raises(InputError, match=rf"a.parquet: column 'kind' {labels}.*: set label_column$"):
            open_source(parquet(tmp_path, kind=values), **settings)


def test_a_caption_in_one_row_and_a_list_in_the_next(tmp_path, streaming):
    rows = [{"image": "0.png", "caption": caption} for caption in ["red", ["green", "a green one"], "blue"]]
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = open_source(file, streaming=streaming)
    assert [source.captions_of(record) for record in records(source)] == [["red"], ["green", "a green one"], ["blue"]]
    if not streaming:
        assert TrainingPairs(source, square_image_processor(8), Augmentation()).caption_lengths() == [3, 8, 4]
    file.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"image": "0.png", "caption": {"a": 1}}]))
    with pytest.raises(InputError, match=r"a.jsonl: row 4 has dict for a caption, not text: fix or remove it"):
        records(open_source(file, streaming=streaming))


# ---- dotted names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "column", "caption"),
    [
        ({"json": {"captions": {"en": "cat", "de": "Katze"}}}, "json.captions.en", "cat"),
        ({"json": {"captions.en": "cat"}}, "json.captions.en", "cat"),
        ({"json.captions": {"en": "cat"}}, "json.captions.en", "cat"),
        ({"json.captions.en": "cat"}, "json.captions.en", "cat"),
        ({"json": {"captions": {"en": "dog"}}, "json.captions.en": "cat"}, "json.captions.en", "cat"),
        ({"a": {"b": {"c": {"d": "cat"}}}}, "a.b.c.d", "cat"),
        ({"a": {"[b]": {".c": "cat"}}}, "a.[b]..c", "cat"),
    ],
)
@pytest.mark.parametrize("form", ["jsonl", "json", "parquet"])
def test_fields_at_any_depth(row, column, caption, form, tmp_path, streaming):
    rows = [{"image": "0.png", **row}] * 2
    file = tmp_path / f"a.{form}"
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), file)
    else:
        file.write_text(json.dumps(rows) if form == "json" else "".join(json.dumps(each) + "\n" for each in rows))
    source = open_source(file, caption_column=column, streaming=streaming)
    assert [source.captions_of(record) for record in records(source)] == [[caption]] * 2
    with pytest.raises(InputError, match=re.escape(f"no column '{column}x': set caption_column to one of image, ")):
        open_source(file, caption_column=f"{column}x", streaming=streaming)


# ---- text that no tokenizer takes ---------------------------------------------------------------------------------


def not_utf8(kind=None) -> pa.Array:
    """Three texts of which the second is no UTF-8, which neither Arrow nor parquet notices."""
    texts = pa.array([b"red", BAD, b"blue"]).view(pa.string())
    return texts.cast(kind) if kind else texts


STORED_BADLY = {
    "text": lambda: {"caption": not_utf8()},
    "large": lambda: {"caption": not_utf8(pa.large_string())},
    "list": lambda: {"caption": pa.ListArray.from_arrays([0, 1, 2, 3], not_utf8())},
    "field": lambda: {"json": pa.StructArray.from_arrays([not_utf8()], ["caption"])},
    "label": lambda: {"label": not_utf8()},
    "path": lambda: {"image": not_utf8(), "caption": TEXTS},
}


@pytest.mark.parametrize("place", STORED_BADLY)
@pytest.mark.parametrize("stretch", [1, 2, 100])
def test_bytes_that_are_no_text_are_refused_with_their_row(place, stretch, tmp_path, streaming, monkeypatch):
    monkeypatch.setattr(columns, "_BATCH", stretch)
    file = parquet(tmp_path, **STORED_BADLY[place]())
    settings = {"label_column": "label"} if place == "label" else {}
    with pytest.raises(InputError, match=r"a.parquet: row 2 has text that is not UTF-8 in column .*caf.xe9.*: fix or"):
        records(open_source(file, streaming=streaming, **settings))


def test_a_first_row_that_is_no_text(tmp_path, streaming):
    with pytest.raises(InputError, match=r"a.parquet: row 1 has text that is not UTF-8 in column 'caption'"):
        records(open_source(parquet(tmp_path, caption=not_utf8().slice(1)), streaming=streaming))


# ---- names of classes ---------------------------------------------------------------------------------------------


LABELS = ["cat", "cat\n", "\ufeffcat", " dog\u00a0", "dog"]


@pytest.mark.parametrize("names", [None, ["dog", "cat"], ["cat ", "dog"]])
def test_white_space_makes_no_other_class(names, tmp_path, streaming):
    rows = [{"image": "0.png", "label": label} for label in LABELS]
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = open_source(file, label_column="label", class_names=names, streaming=streaming)
    expected = ["cat"] * 3 + ["dog"] * 2
    assert [source.captions_of(record) for record in records(source)] == [[name] for name in expected]
    if not streaming:
        known = [name.strip() for name in names or ["cat", "dog"]]
        assert (source.class_names, source.labels().tolist()) == (known, [known.index(name) for name in expected])


def test_a_label_of_white_space_is_refused(tmp_path, streaming):
    file = parquet(tmp_path, label=pa.array(["cat", " \t", "dog"]), caption=TEXTS)
    with pytest.raises(InputError, match=r"a.parquet: row 2 has an empty label: fill or remove such rows"):
        records(open_source(file, label_column="label", streaming=streaming))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["cat", "cat"], r"classes 0 and 1 of class_names are both called 'cat': rename one"),
        (["cat", "dog", "cat\n"], r"classes 0 and 2 of class_names are both called 'cat': rename one"),
        (["cat", " "], r"class 1 of class_names has an empty name: fill it in"),
        (["cat", 7], r"class 1 of class_names has int for a name, not text: fix or remove it"),
        (["cat", "\ud83d"], r"class 1 of class_names has half of a surrogate pair \('.ud83d'\) in a name, which no"),
    ],
)
def test_names_that_name_no_class(given, message, tmp_path, streaming):
    file = parquet(tmp_path, label=pa.array(["cat"]))
    with pytest.raises(InputError, match=message):
        open_source(file, label_column="label", class_names=given, streaming=streaming)


def test_numbers_may_have_the_same_name(tmp_path, streaming):
    """Of ImageNet's classes two are missiles and two are cranes."""
    file = parquet(tmp_path, label=pa.array([0, 1]))
    names = ["crane", "crane"]
    assert open_source(file, label_column="label", class_names=names, streaming=streaming).class_names == names


def test_classes_of_the_data_that_white_space_tells_apart(tmp_path, streaming):
    features = datasets.Features(image=datasets.Value("string"), kind=datasets.ClassLabel(names=["cat", "cat "]))
    datasets.Dataset.from_dict({"image": ["0.png"], "kind": [1]}, features=features).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(
        InputError, match=r"classes 0 and 1 of 'kind' in .*a.parquet are both called 'cat': rename one"
    ):
        open_source(tmp_path / "a.parquet", label_column="kind", streaming=streaming)


# ---- pictures -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["binary", "large", "view", "paths", "dictionary of paths", "views of paths", "structure", "bytes alone"]
)
def test_pictures_in_every_form(kind, tmp_path, streaming):
    folder = write_pictures(tmp_path / "data", count=2)
    names = ["0.png", "1.png"]
    contents = [(folder / name).read_bytes() for name in names]
    stored = {
        "binary": pa.array(contents),
        "large": pa.array(contents, pa.large_binary()),
        "view": pa.array(contents, pa.binary_view()),
        "paths": pa.array(names),
        "dictionary of paths": pa.array(names).dictionary_encode(),
        "views of paths": pa.array(names, pa.string_view()),
        "structure": pa.StructArray.from_arrays([pa.array(names), pa.array(contents)], ["path", "bytes"]),
        "bytes alone": pa.StructArray.from_arrays([pa.array(contents, pa.binary_view())], ["bytes"]),
    }
    pq.write_table(pa.table({"image": stored[kind], "caption": ["x", "y"]}), folder / "a.parquet")
    source = open_source(folder / "a.parquet", streaming=streaming)
    assert [source.captions_of(record) for record in records(source)] == [["x"], ["y"]]
    if streaming:
        return
    pairs = TrainingPairs(source, square_image_processor(8), Augmentation())
    assert [item["skipped"] for item in pairs.__getitems__([0, 1])] == [[], []]
    # The same pictures, however they are stored.
    assert content_keys(source).tolist() == content_keys(open_source(folder)).tolist()
    assert len(data_facts(source)["fingerprint"]) == 32
