"""What a saved folder carries, and that it opens where hf_clip is not installed."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import CODE, tiny_inputs, tiny_model
from PIL import Image
from strangers import run_stranger
from toy_loss import TOY
from transformers import PreTrainedConfig
from transformers.dynamic_module_utils import get_relative_import_files

from hf_clip import HFClipConfig, HFClipModel, HFClipTextModelWithProjection, HFClipVisionModelWithProjection
from hf_clip.models import remote_code_hf_clip

HALVES = {"text": HFClipTextModelWithProjection, "vision": HFClipVisionModelWithProjection}


def code_in(folder: Path) -> set[str]:
    return {file.name for file in folder.glob("*.py")}


def auto_map_in(folder: Path) -> dict[str, str]:
    return json.loads((folder / "config.json").read_text())["auto_map"]


def needed_by(references) -> set[str]:
    """By transformers itself, which does not count a file among those that it needs."""
    home = Path(remote_code_hf_clip.__file__).parent
    files = {home / f"{reference.split('.')[0]}.py" for reference in references}
    return {Path(needed).name for file in files for needed in (file, *get_relative_import_files(file))}


def test_a_configuration_alone_carries_what_its_map_names_and_what_that_imports(tmp_path):
    HFClipConfig().save_pretrained(tmp_path)
    assert auto_map_in(tmp_path) == {
        "AutoConfig": "configuration_hf_clip.HFClipConfig",
        "AutoModel": "modeling_hf_clip.HFClipModel",
        "AutoModelForZeroShotImageClassification": "modeling_hf_clip.HFClipModel",
        "AutoProcessor": "processing_hf_clip.HFClipProcessor",
    }
    assert code_in(tmp_path) == needed_by(auto_map_in(tmp_path).values()) == CODE


@pytest.mark.parametrize("side", HALVES)
def test_each_class_names_itself_also_when_its_configuration_is_saved_again(side, tmp_path):
    config = tiny_model().config
    half = HALVES[side](config)
    half.save_pretrained(tmp_path / "half")
    HFClipConfig.from_pretrained(tmp_path / "half").save_pretrained(tmp_path / "again")
    for folder in (tmp_path / "half", tmp_path / "again"):
        assert auto_map_in(folder) == {
            "AutoConfig": "configuration_hf_clip.HFClipConfig",
            "AutoModel": f"modeling_hf_clip.{type(half).__name__}",
            "AutoProcessor": "processing_hf_clip.HFClipProcessor",
        }
        assert code_in(folder) == CODE
    HFClipModel(config).save_pretrained(tmp_path / "whole")
    HFClipConfig().save_pretrained(tmp_path / "new")
    assert auto_map_in(tmp_path / "whole") == auto_map_in(tmp_path / "new")


def test_a_processor_carries_what_it_needs_itself(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    assert code_in(tmp_path) == needed_by(["processing_hf_clip.HFClipProcessor"]) < CODE


@pytest.fixture
def with_a_captioner(tmp_path, monkeypatch) -> Path:
    """The code's home with files of another family in it."""
    home = tmp_path / "home"
    shutil.copytree(Path(remote_code_hf_clip.__file__).parent, home)
    (home / "captioning_hf_clip.py").write_text("from .prefix_hf_clip import x\nfrom .loss_hf_clip import score\n")
    (home / "prefix_hf_clip.py").write_text("from .requirements_hf_clip import TRANSFORMERS\n")
    monkeypatch.setattr(remote_code_hf_clip, "_HERE", home)
    return home


def test_the_code_of_another_family_stays_at_home(with_a_captioner, processor, tmp_path):
    tiny_model().save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    assert code_in(tmp_path / "model") == CODE


def test_another_family_carries_its_own_code_alone(with_a_captioner, tmp_path):
    config = PreTrainedConfig()
    remote_code_hf_clip.name_classes(config, {"AutoModel": "captioning_hf_clip.Captioner"})
    remote_code_hf_clip.copy_code(tmp_path, config)
    files = {"captioning_hf_clip.py", "prefix_hf_clip.py", "loss_hf_clip.py", "requirements_hf_clip.py"}
    assert code_in(tmp_path) == files
    config = PreTrainedConfig(custom_pipelines={"image-to-text": {"impl": "prefix_hf_clip.Pipeline", "pt": ["X"]}})
    (tmp_path / "pipeline").mkdir()
    remote_code_hf_clip.copy_code(tmp_path / "pipeline", config)
    assert code_in(tmp_path / "pipeline") == {"prefix_hf_clip.py", "requirements_hf_clip.py"}


def test_an_unregistered_subclass_is_opened_as_what_it_is_made_of(tmp_path):
    HFClipConfig(architectures=["HFClipWithHead"]).save_pretrained(tmp_path)
    assert auto_map_in(tmp_path)["AutoModel"] == "modeling_hf_clip.HFClipModel"


def test_a_registered_subclass_keeps_its_own_entry(tmp_path):
    config = HFClipConfig(architectures=["Mine"])
    config.auto_map = {
        "AutoModel": "my_hf_clip.Mine",
        "AutoConfig": "someone/repo--configuration_hf_clip.HFClipConfig",
        "AutoModelForZeroShotImageClassification": "someone/repo--modeling_hf_clip.HFClipModel",
    }
    config.save_pretrained(tmp_path)
    assert auto_map_in(tmp_path) == {
        "AutoModel": "my_hf_clip.Mine",
        "AutoConfig": "configuration_hf_clip.HFClipConfig",
        "AutoModelForZeroShotImageClassification": "modeling_hf_clip.HFClipModel",
        "AutoProcessor": "processing_hf_clip.HFClipProcessor",
    }
    assert code_in(tmp_path) == CODE


class Registered(HFClipModel):
    """What a user registers for `AutoModel`."""


def test_a_model_that_registered_itself_is_opened_by_its_own_class(monkeypatch, tmp_path):
    monkeypatch.setattr(Registered, "_auto_class", "AutoModel")
    Registered(tiny_model().config).save_pretrained(tmp_path)
    assert auto_map_in(tmp_path)["AutoModel"] == "test_remote_code_hf_clip.Registered"
    assert code_in(tmp_path) == CODE | {Path(__file__).name}


STRANGER = """
import torch
from transformers import AutoConfig, AutoModel, AutoProcessor, pipeline

trusted = {"trust_remote_code": True}
inputs, found = torch.load("inputs.pt"), {}
pixels = {"pixel_values": inputs.pop("pixel_values")}

def embed(folder):
    model = AutoModel.from_pretrained(folder, **trusted).eval()
    assert type(model).__module__.startswith("transformers_modules")
    given = {"model": inputs | pixels, "text": inputs, "vision": pixels}[folder.split("_")[0]]
    with torch.no_grad():
        return model, model(**given).to_tuple()[0]

toy = AutoModel.from_pretrained("toy", **trusted).eval()
with torch.no_grad():
    logits = toy(**inputs, **pixels).logits_per_image
found["toy"] = logits, toy.probabilities(logits)
try:
    toy(**inputs, **pixels, return_loss=True)
except ValueError as error:
    found["missing"] = str(error)
for folder in ("model", "text", "vision"):
    model, found[folder] = embed(folder)
    model.save_pretrained(f"{folder}_again")
    found[f"{folder}_again"] = embed(f"{folder}_again")[1]
AutoProcessor.from_pretrained("model", **trusted).save_pretrained("model_again")
classify = pipeline("zero-shot-image-classification", model="model_again", **trusted)
found["scores"] = classify("image.png", candidate_labels=["a b", "c"], hypothesis_template="{}")
config = AutoConfig.from_pretrained("config", **trusted)
config.save_pretrained("config_again")
config = AutoConfig.from_pretrained("config_again", **trusted)
found["config"] = type(AutoModel.from_config(config, **trusted)).__name__
model.config.save_pretrained("config_of_model")
torch.save(found, "found.pt")
"""


@torch.no_grad()
def test_a_stranger_opens_each_class_and_saves_what_others_open(processor, tmp_path):
    model, inputs = tiny_model().eval(), tiny_inputs()
    for part in (model, processor):
        part.save_pretrained(tmp_path / "model")
    for side, half in HALVES.items():
        half.from_pretrained(tmp_path / "model").save_pretrained(tmp_path / side)
    model.config.save_pretrained(tmp_path / "config")
    toy = tiny_model().eval()
    toy.use_loss(TOY)
    toy.save_pretrained(tmp_path / "toy")
    torch.save(inputs, tmp_path / "inputs.pt")
    image = Image.linear_gradient("L").convert("RGB")
    image.save(tmp_path / "image.png")
    run_stranger(STRANGER, folder=tmp_path)
    found, expected = torch.load(tmp_path / "found.pt"), model(**inputs)
    embeds = {"model": expected.logits_per_image, "text": expected.text_embeds, "vision": expected.image_embeds}
    for folder, value in embeds.items():
        torch.testing.assert_close(found[folder], value)
        assert torch.equal(found[f"{folder}_again"], found[folder])
    logits = model(**processor(images=image, text=["a b", "c"], return_tensors="pt")).logits_per_image
    said = {entry["label"]: entry["score"] for entry in found["scores"]}
    assert [said["a b"], said["c"]] == pytest.approx(logits.softmax(1)[0].tolist(), abs=1e-5)
    assert found["config"] == "HFClipModel"
    logits = toy(**inputs).logits_per_image
    torch.testing.assert_close(found["toy"], (logits, logits.sigmoid()))
    assert "the loss 'toy_hinge', which is not here: give it with model.use_loss(…)" in found["missing"]
    for folder in ("model_again", "text_again", "config_again", "config_of_model"):
        assert code_in(tmp_path / folder) == CODE, folder
