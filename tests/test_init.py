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
