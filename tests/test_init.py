"""The public names, and what importing them costs."""

import subprocess
import sys

import pytest

import hf_clip

HEAVY = ["datasets", "torchvision", "matplotlib", "sklearn", "accelerate", "transformers.trainer", "evaluate", "timm"]


def test_import_loads_what_registration_needs_and_no_more():
    """Compared with importing from transformers the classes that hf_clip extends: nothing heavy comes on top."""
    code = f"""
import sys
from transformers import AutoModel, AutoProcessor, CLIPModel, PreTrainedModel, ProcessorMixin
theirs = set(sys.modules)
import hf_clip
print([name for name in {HEAVY} if name in sys.modules and name not in theirs])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", hf_clip.__all__)
def test_every_public_name_is_there_and_documented(name):
    assert getattr(hf_clip, name).__doc__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'HFClipModell'"):
        _ = hf_clip.HFClipModell


def test_no_module_hides_a_public_name():
    """Importing a module makes an attribute of its package: one of ours, or Hugging Face's `evaluate`, could go."""
    code = """
import importlib, pkgutil, sys
import hf_clip
for module in pkgutil.walk_packages(hf_clip.__path__, "hf_clip."):
    if not module.name.endswith((".__main__", ".onnx.example")):
        importlib.import_module(module.name)
for name in ("embed", "evaluate", "analyze", "classify", "publish", "export", "convert_model", "open_source"):
    function = getattr(hf_clip, name)
    assert callable(function) and function.__name__ == name, name
import evaluate
assert "hf_clip" not in evaluate.__file__, evaluate.__file__
from hf_clip.evaluation import hf_metrics
assert hf_metrics.evaluate is evaluate
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
