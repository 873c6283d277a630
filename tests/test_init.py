"""The public names, and what importing them costs."""

import importlib
import pkgutil
import subprocess
import sys

import pytest

import hf_clip
from hf_clip.evaluation import hf_metrics

HEAVY = ["datasets", "torchvision", "matplotlib", "sklearn", "accelerate", "transformers.trainer", "evaluate", "timm"]


def test_import_loads_what_registration_needs_and_no_more():
    """Compared with importing from transformers the classes that hf_clip extends: nothing heavy comes on top, nor for
    the list of all commands."""
    code = f"""
import sys
from transformers import AutoModel, AutoProcessor, CLIPModel, PreTrainedModel, ProcessorMixin
theirs = set(sys.modules)
import hf_clip
print([name for name in {HEAVY} if name in sys.modules and name not in theirs])
from hf_clip.cli.main import main
assert main(["--help"]) == 0
print([name for name in {HEAVY} if name in sys.modules and name not in theirs])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, *_, last = done.stdout.splitlines()
    assert (first, last) == ("[]", "[]")


@pytest.mark.parametrize("name", hf_clip.__all__)
def test_every_public_name_is_there_and_documented(name):
    assert getattr(hf_clip, name).__doc__


def test_completion_shows_every_public_name():
    assert set(hf_clip.__all__) <= set(dir(hf_clip))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'HFClipModell'"):
        _ = hf_clip.HFClipModell


def test_no_module_hides_a_public_name():
    """Importing a module makes an attribute of its package: one of ours, or Hugging Face's `evaluate`, could go."""
    for module in pkgutil.walk_packages(hf_clip.__path__, "hf_clip."):
        if not module.name.endswith((".__main__", ".onnx.example")):
            importlib.import_module(module.name)
    for name in hf_clip.__all__:
        assert getattr(hf_clip, name).__name__ == name
    assert hf_metrics.evaluate is importlib.import_module("evaluate")
    assert "hf_clip" not in hf_metrics.evaluate.__file__
