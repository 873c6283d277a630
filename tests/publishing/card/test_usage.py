"""The examples of a card are run in a process that knows no hf_clip and no token."""

import importlib.util
import json

import pytest
from PIL import Image

from hf_clip.core.errors import InputError
from hf_clip.publishing.card.facts import CardDetails, Example
from hf_clip.publishing.card.usage import run_examples
from hf_clip.publishing.clip.examples import examples
from hf_clip.publishing.saved_model import SavedModel

RED = Image.new("RGB", (224, 224), "red")
NAME = "someone/tiny-clip"
LABELS = ["red", "a b c d", "blue"]


PROBE = """
import os, sys, warnings
from huggingface_hub import constants, get_token
import huggingface_hub

warnings.warn("not for the card")
print("noise", file=sys.stderr)
print(any("planted" in value for value in os.environ.values()), get_token(), constants.HF_HUB_OFFLINE)
try:
    __import__("hf_clip")
except ModuleNotFoundError as error:
    print(error)
print(os.listdir("."), sorted(os.listdir("someone/tiny-clip")))
print(os.path.realpath("someone/tiny-clip"))
"""


def test_an_example_runs_without_token_network_or_hf_clip(tmp_path, monkeypatch):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "token").write_text("hf_planted")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "MY_SECRET"):
        monkeypatch.setenv(name, "hf_planted")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    (done,) = run_examples(SavedModel(tmp_path / "model"), NAME, [Example("probe", PROBE)])
    assert done.output.splitlines() == [
        "False None True",
        "No module named 'hf_clip'",
        "['someone'] ['config.json']",
        NAME,  # the folder's path is nobody's business
    ]


def test_a_failing_example_is_named_in_one_line(tmp_path):
    working = Example("first", "print(1)")
    failing = Example("second", "raise ValueError('one\\ntwo')")
    with pytest.raises(InputError, match=r"example 'second' fails \(two\): mend") as raised:
        run_examples(SavedModel(tmp_path), NAME, [working, failing])
    assert "\n" not in str(raised.value)
    with pytest.raises(InputError, match=r"example 'killed' fails \(exit code 3\)"):
        run_examples(SavedModel(tmp_path), NAME, [Example("killed", "import os; os._exit(3)")])


def test_what_cannot_run_here_is_shown_without_output(tmp_path, monkeypatch):
    find, absent = importlib.util.find_spec, "sentence_transformers"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == absent else find(name))
    there, missing = Example("a", "print(1)"), Example("b", "from sentence_transformers import losses")
    assert [done.output for done in run_examples(SavedModel(tmp_path), NAME, [missing, there])] == [None, "1"]


def test_an_adapter_whose_base_is_not_here_is_shown_without_output(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "someone/base"}))
    found = examples(SavedModel(tmp_path), CardDetails(NAME))
    assert [example.title for example in found] == ["transformers", "The pipeline of transformers", "PEFT"]
    assert 'AutoModel.from_pretrained("someone/base", trust_remote_code=True)' in found[2].code
    assert run_examples(SavedModel(tmp_path), NAME, found) == found
