"""The registry of families: what is there, what is refused, and that nothing is imported before it is asked for."""

import subprocess
import sys
from dataclasses import replace

import pytest

from hf_clip import HFClipConfig, HFClipProcessor
from hf_clip.core import families
from hf_clip.core.errors import InputError
from hf_clip.core.families import Family, family_of, load, model_types, register_family
from hf_clip.models.towers import open_model_and_processor
from hf_clip.publishing.clip.training_record import PairTrainingRecord

OTHER = Family("other", config=HFClipConfig, processor=HFClipProcessor, open_model=open_model_and_processor, card=None)


@pytest.fixture(autouse=True)
def none_from_outside(monkeypatch):
    monkeypatch.setattr(families, "_FROM_OUTSIDE", {})


def test_clip_is_one_and_its_parts_lie_where_it_says():
    clip = family_of("hf_clip")
    assert clip.model_type == HFClipConfig.model_type
    parts = [load(place) for place in (clip.config, clip.processor, clip.open_model)]
    assert parts == [HFClipConfig, HFClipProcessor, open_model_and_processor]
    assert callable(load(clip.write_files))
    assert load(clip.card).facts.training_kind() is PairTrainingRecord


def test_one_call_makes_a_family_known():
    assert model_types() == ["hf_clip"]
    register_family(OTHER)
    register_family(replace(OTHER))  # the same once more, as where a file is imported twice
    assert model_types() == ["hf_clip", "other"]
    assert family_of("other") is not None
    assert load(family_of("other").config) is HFClipConfig


def test_a_model_type_belongs_to_one_family():
    register_family(OTHER)
    for taken in (replace(OTHER, tags=("another",)), replace(OTHER, model_type="hf_clip")):
        with pytest.raises(InputError, match=r"model type '\w+' has a family already"):
            register_family(taken)


@pytest.mark.parametrize("model_type", ["bert", None, "", ["hf_clip"]])
def test_a_model_type_without_a_family_is_refused_by_naming_those_there_are(model_type):
    register_family(OTHER)
    with pytest.raises(InputError, match=r"has no family: there are hf_clip, other; make another known") as caught:
        family_of(model_type)
    assert "\n" not in str(caught.value)


def test_a_family_is_asked_by_name_alone():
    """What asks for CLIP's entry gets no card, no model and no torch along."""
    program = (
        "import importlib, sys, types\n"
        "for name in ('hf_clip', 'hf_clip.publishing'):\n"
        "    sys.modules[name] = types.ModuleType(name)\n"
        f"    sys.modules[name].__path__ = [{families.__file__!r}.rpartition('core')[0] + name[8:]]\n"
        "found = importlib.import_module('hf_clip.core.families').family_of('hf_clip')\n"
        "assert found.task == 'zero-shot-image-classification'\n"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
