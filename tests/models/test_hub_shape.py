"""The saved folder where hf_clip cannot be imported, and a folder of the first version."""

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from conftest import tiny_inputs, tiny_model
from PIL import Image
from strangers import run_stranger
from transformers import AutoModel, AutoProcessor, pipeline

from hf_clip import HFClipModel, HFClipProcessor

FIRST_VERSION = Path(__file__).parents[1] / "fixtures" / "saved_by_0.1"

STRANGER = """
import sys

try:
    import hf_clip
except ModuleNotFoundError:
    pass
else:
    raise AssertionError("hf_clip must not be importable here")

import torch
from PIL import Image
from transformers import AutoConfig, AutoModel, AutoProcessor, pipeline

folder, inputs, picture, result = sys.argv[1:]
assert AutoConfig.from_pretrained(folder, trust_remote_code=True).model_type == "hf_clip"
model = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
assert type(model).__name__ == "HFClipModel" and type(model).__module__.startswith("transformers_modules")
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
with torch.no_grad():
    output = model(**torch.load(inputs))
    processed = model(**processor(images=Image.open(picture), text=["a b", "c"], return_tensors="pt"))
classify = pipeline("zero-shot-image-classification", model=folder, trust_remote_code=True)
scores = classify(picture, candidate_labels=["a b", "c"], hypothesis_template="{}")
torch.save({"output": {k: output[k] for k in ("image_embeds", "text_embeds", "logits_per_image")},
            "processed": processed.logits_per_image, "scores": scores}, result)
model.save_pretrained(folder + "/again"); processor.save_pretrained(folder + "/again")
"""


def test_opens_where_hf_clip_is_not_installed(processor, tmp_path):
    model, inputs = tiny_model().eval(), tiny_inputs()
    folder, picture = tmp_path / "model", tmp_path / "picture.png"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(picture)
    torch.save(inputs, tmp_path / "inputs.pt")
    arguments = [folder, tmp_path / "inputs.pt", picture, tmp_path / "result.pt"]
    printed = run_stranger(STRANGER, *arguments, folder=tmp_path, absent=("timm",))
    assert "not supported" not in printed
    result = torch.load(tmp_path / "result.pt")
    model = HFClipModel.from_pretrained(folder).eval()  # weights of a file lie otherwise, and some CPUs round by that
    with torch.no_grad():
        expected = model(**inputs)
        processed = model(**processor(images=Image.open(picture), text=["a b", "c"], return_tensors="pt"))
    for name, value in result["output"].items():
        assert torch.equal(value, expected[name]), name
    assert torch.equal(result["processed"], processed.logits_per_image)
    probabilities = dict(zip(["a b", "c"], processed.logits_per_image.softmax(1)[0].tolist(), strict=True))
    assert {entry["label"]: entry["score"] for entry in result["scores"]} == probabilities
    # Saved again by a stranger, the folder still carries its code and opens here.
    again = HFClipModel.from_pretrained(folder / "again").eval()
    assert torch.equal(again(**inputs).logits_per_image, expected.logits_per_image)
    assert sorted(p.name for p in (folder / "again").glob("*.py")) == sorted(p.name for p in folder.glob("*.py"))


def test_needs_no_trust_where_hf_clip_is_imported(processor, tmp_path):
    model = tiny_model().eval()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert type(AutoModel.from_pretrained(tmp_path)) is HFClipModel
    assert type(AutoProcessor.from_pretrained(tmp_path)) is HFClipProcessor
    classify = pipeline("zero-shot-image-classification", model=str(tmp_path))
    scores = classify(Image.new("RGB", (40, 40), "red"), candidate_labels=["red", "blue"])
    assert {entry["label"] for entry in scores} == {"red", "blue"}


def test_a_folder_saved_by_the_first_version_still_opens(tmp_path):
    """The fixture is never written again: every later version must open it, with the logits that it had."""
    folder = tmp_path / "model"
    shutil.copytree(FIRST_VERSION, folder)
    expected = json.loads((folder / "expected.json").read_text())
    model = AutoModel.from_pretrained(folder).eval()
    processor = AutoProcessor.from_pretrained(folder)
    batch = processor(images=Image.open(folder / "picture.png"), text=expected["captions"], return_tensors="pt")
    torch.testing.assert_close(
        model(**batch).logits_per_image, torch.tensor(expected["logits_per_image"]), rtol=1e-4, atol=1e-4
    )
