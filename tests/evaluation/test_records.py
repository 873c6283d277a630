"""What an evaluation found is what was written, of this version and of the one without; anything else is one line."""

import json

import pytest
from cards import DIFFERENCE, RETRIEVAL, ZERO_SHOT, changed, results

from hf_clip.core.records import InvalidRecord
from hf_clip.evaluation.records import Figure, ModelFacts, Results


def test_a_file_of_before_there_were_versions_is_read(tmp_path):
    written = results(RETRIEVAL + ZERO_SHOT, differences=[DIFFERENCE], skipped=[[3, "a.png", "empty"]])
    written["pictures"] = ["recall_retrieval.png", "worst.png"]
    (tmp_path / "results.json").write_text(json.dumps(written))
    read = Results.read(tmp_path / "results.json")
    assert read.models == [ModelFacts("m", None, "w" * 8, "float32")]
    assert (read.differences[0].from_, read.differences[0].real) == ("m", True)
    assert read.skipped == [(3, "a.png", "empty")]
    assert read.figures[0].counts == {"images": 200, "captions": 400}
    assert read.figures[2].interval == (0.5, 0.6)
    assert read.figures[3].interval is None
    again = json.loads(json.dumps(read.to_json()))
    assert (again.pop("format_version"), again.pop("tasks"), again.pop("examples")) == (1, {}, ["worst.png"])
    assert {figure.pop("label") for figure in again["figures"]} == {""}
    assert again == written


WRONG = {
    "a text for a number": (("figures", 1, "value"), "0.5", r"figures\[1\]: Field 'value'"),
    "no number": (("figures", 0, "value"), float("nan"), r"figures\[0\].value: nan where a number"),
    "an endless number": (("figures", 0, "low"), float("inf"), r"figures\[0\].low: inf where"),
    "no number in a protocol": (("figures", 0, "protocol"), {"a": [float("nan")]}, r"protocol.a\[0\]: nan"),
    "a list for a mapping": (("figures", 2, "protocol"), ["ties"], r"figures\[2\]: Field 'protocol'"),
    "a list for data": (("data",), ["unseen"], "data: list where a mapping belongs"),
    "a text for a list": (("figures",), "many", "Field 'figures'"),
    "half a number": (("figures", 0, "images"), 1.5, r"figures\[0\]: Field 'images'"),
    "a mapping for a task": (("figures", 0, "task"), {}, r"figures\[0\]: Field 'task'"),
    "nothing for a digest": (("models", 0, "digest"), None, r"models\[0\]: Field 'digest'"),
    "no models": (("models",), [], "no models"),
    "no figures": (("figures",), [], "no figures"),
    "a figure of nobody": (("figures", 0, "model"), "n", "a figure of 'n', which is none of the models"),
    "a text for notes": (("notes",), {"m / retrieval": "one"}, "in dict 'notes'"),
    "two of three": (("skipped",), [[3, "a.png"]], "index 0 in list 'skipped'"),
    "others' results": (("all_results",), {"accuracy": 1}, "unknown field 'all_results'"),
    "a text for a difference": (("differences", 0, "p_value"), "small", r"differences\[0\]: Field 'p_value'"),
    "later than this": (("format_version",), 2, "newer hf_clip"),
}


@pytest.mark.parametrize(("path", "value", "said"), WRONG.values(), ids=WRONG.keys())
def test_what_is_none_is_one_line(path, value, said, tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(changed(path, value)))
    with pytest.raises(InvalidRecord, match=said) as refusal:
        Results.read(tmp_path / "results.json")
    assert str(refusal.value).startswith(str(tmp_path / "results.json"))
    assert "\n" not in str(refusal.value)


def test_of_one_of_several_models_what_is_its_own():
    models = [{"name": name, "revision": None, "digest": name, "precision": "float32"} for name in ("m", "m / x")]
    both = [entry | {"model": name} for name in ("m", "m / x") for entry in RETRIEVAL]
    notes = {"m / retrieval": ["first"], "m / x / retrieval": ["second"]}
    read = Results.from_json(results(both, models=models, notes=notes, differences=[DIFFERENCE]))
    own = read.of_model(read.models[1], "user/name")
    assert [model.name for model in own.models] == ["user/name"]
    assert len(own.figures) == len(RETRIEVAL)
    assert {figure.model for figure in own.figures} == {"user/name"}
    assert (own.notes, own.differences) == ({"user/name / retrieval": ["second"]}, [])
    assert {figure.model for figure in read.figures} == {"m", "m / x"}


def test_the_language_of_a_figure():
    assert Figure.from_json(RETRIEVAL[0]).language == ""
    assert Figure.from_json(RETRIEVAL[0] | {"task": "retrieval/zh/Hans"}).language == "zh/Hans"
