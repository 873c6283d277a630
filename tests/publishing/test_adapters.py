"""A published adapter in peft, transformers, sentence-transformers and hf_clip: the logits that it was trained to."""

import json
from pathlib import Path

import pytest
import torch
from conftest import tiny_inputs, tiny_model
from PIL import Image
from strangers import run_stranger
from transformers import AutoImageProcessor, AutoModel, AutoProcessor, AutoTokenizer, Dinov2Config, pipeline

from hf_clip import HFClipModel, HFClipProcessor
from hf_clip.core.errors import InputError
from hf_clip.models.towers import open_model_and_processor
from hf_clip.publishing.adapters import stage_adapter
from hf_clip.publishing.saved_model import SavedModel

peft = pytest.importorskip("peft")

BASE = "user/base"  # a folder where the tests run, as it would be a Hub id elsewhere
LAYERS = {
    "text": r"text_model\..*\.(query|value)",
    "vision": r"vision_model\..*\.convolution",
    "both": r"text_model\..*\.(query|value)|vision_model\..*\.convolution",
}


def trained_adapter(folder, processor, side="both", base=BASE):
    """Saves an adapter that a few steps have trained; gives its logits for `tiny_inputs()`."""
    model = HFClipModel.from_pretrained(base) if base else tiny_model()
    torch.manual_seed(1)
    heads = ["text_projection", "visual_projection"]
    model = peft.get_peft_model(
        model, peft.LoraConfig(r=4, lora_alpha=8, target_modules=LAYERS[side], modules_to_save=heads)
    ).eval()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        model(**tiny_inputs(), return_loss=True).loss.backward()
        optimizer.step()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return logits(model)


@torch.no_grad()
def logits(model):
    return model.eval()(**tiny_inputs()).logits_per_image


@pytest.fixture
def base(tmp_path, monkeypatch, processor):
    monkeypatch.chdir(tmp_path)
    model = tiny_model()
    model.save_pretrained(BASE)
    processor.save_pretrained(BASE)
    return model


@pytest.fixture
def adapter(base, processor):
    """(published folder, the logits of the model that was trained)"""
    expected = trained_adapter("run", processor)
    assert stage_adapter(SavedModel("run"), Path("published"), BASE) == BASE
    assert (expected - logits(base)).abs().max() > 0.1
    return "published", expected


def settings_of(folder):
    return json.loads(Path(folder, "adapter_config.json").read_text())


@pytest.mark.parametrize("side", LAYERS)
def test_opens_in_peft_and_transformers_with_the_same_bits(side, base, processor):
    expected = trained_adapter("run", processor, side)
    stage_adapter(SavedModel("run"), Path("published"), BASE)
    for model in (
        peft.PeftModel.from_pretrained(HFClipModel.from_pretrained(BASE), "published"),
        peft.AutoPeftModel.from_pretrained("published", trust_remote_code=True),
        AutoModel.from_pretrained("published", trust_remote_code=True),
        HFClipModel.from_pretrained("published"),
    ):
        assert torch.equal(logits(model), expected)


def test_hf_clip_opens_it_merged_and_saves_a_whole_model(adapter):
    folder, expected = adapter
    model, processor = open_model_and_processor(folder)
    assert type(model) is HFClipModel
    torch.testing.assert_close(logits(model), expected, rtol=1e-5, atol=1e-5)
    model.save_pretrained("merged")
    processor.save_pretrained("merged")
    assert not SavedModel("merged").is_adapter
    assert torch.equal(logits(AutoModel.from_pretrained("merged")), logits(model))
    second = peft.get_peft_model(model, peft.LoraConfig(target_modules=LAYERS["text"]))
    assert not second.peft_config["default"].base_model_name_or_path  # its base is merged: not what BASE holds


def test_merged_it_trains_as_its_base_does(base, processor):
    tower = Dinov2Config(hidden_size=32, num_hidden_layers=1, num_attention_heads=4, image_size=32, patch_size=8)
    tiny_model(vision_config=tower).save_pretrained(BASE)
    trained_adapter("run", processor, "text")
    model, _ = open_model_and_processor("run")
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == ["vision_model.embeddings.mask_token"]


def test_its_processor_and_pipelines(adapter):
    folder, _ = adapter
    assert type(AutoProcessor.from_pretrained(folder)) is HFClipProcessor
    assert AutoTokenizer.from_pretrained(folder)("a b")["input_ids"] == [2, 5, 6, 3]
    assert AutoImageProcessor.from_pretrained(folder).crop_size["height"] == 32
    picture, labels = Image.new("RGB", (40, 40), "red"), ["a b", "c"]
    inputs = AutoProcessor.from_pretrained(folder)(images=picture, text=labels, return_tensors="pt")
    with torch.no_grad():
        expected = HFClipModel.from_pretrained(folder)(**inputs).logits_per_image.softmax(1)[0]
    classify = pipeline("zero-shot-image-classification", model=folder, trust_remote_code=True)
    scores = classify(picture, candidate_labels=labels, hypothesis_template="{}")
    assert {each["label"]: each["score"] for each in scores} == dict(zip(labels, expected.tolist(), strict=True))


def test_opens_in_sentence_transformers(adapter):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    folder, _ = adapter
    encoder = sentence_transformers.SentenceTransformer(folder, trust_remote_code=True)
    inputs = AutoProcessor.from_pretrained(folder)(text=["a b"], return_tensors="pt")
    with torch.no_grad():
        expected = HFClipModel.from_pretrained(folder)(**inputs).text_embeds[0]
    torch.testing.assert_close(torch.from_numpy(encoder.encode("a b")), expected, rtol=0, atol=1e-6)


STRANGER = """
import sys
import torch
from transformers import AutoModel, AutoProcessor

folder, inputs, result = sys.argv[1:]
model = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
assert type(model).__module__.startswith("transformers_modules")
assert AutoProcessor.from_pretrained(folder, trust_remote_code=True)(text=["a"])["input_ids"] == [[2, 5, 3]]
with torch.no_grad():
    torch.save(model(**torch.load(inputs)).logits_per_image, result)
"""


def test_opens_where_hf_clip_is_not_installed(adapter, tmp_path, one_thread):
    folder, expected = adapter
    torch.save(tiny_inputs(), "inputs.pt")
    run_stranger(STRANGER, folder, "inputs.pt", "result.pt", folder=Path.cwd())
    torch.testing.assert_close(torch.load("result.pt"), expected, rtol=0, atol=1e-6)


def test_what_is_published_says_nothing_of_the_machine(adapter, tmp_path):
    folder, _ = adapter
    assert settings_of("run")["auto_mapping"]["parent_library"] == "hf_clip.models.modeling_hf_clip"
    settings = settings_of(folder)
    assert settings["base_model_name_or_path"] == BASE
    assert settings["auto_mapping"] == {"base_model_class": "AutoModel", "parent_library": "transformers"}
    unchanged = {"base_model_name_or_path": None, "auto_mapping": None}
    assert settings | unchanged == settings_of("run") | unchanged
    files = {file.name: file for file in Path(folder).iterdir()}
    assert not {"config.json", "README.md"} & set(files)  # peft's card is a form to fill in
    assert {"adapter_model.safetensors", "processor_config.json", "processing_hf_clip.py"} <= set(files)
    assert not [name for name, file in files.items() if str(tmp_path).encode() in file.read_bytes()]


def test_the_adapters_own_base_is_taken_where_it_is_on_the_hub(base, processor):
    trained_adapter("run", processor)
    Path("user").rename("elsewhere")  # no folder any more: a Hub id
    settings = settings_of("run") | {"revision": "abc"}
    Path("run/adapter_config.json").write_text(json.dumps(settings))
    assert stage_adapter(SavedModel("run"), Path("published")) == BASE
    assert settings_of("published")["revision"] == "abc"
    stage_adapter(SavedModel("run"), Path("other"), "user/other")
    assert (settings_of("other")["base_model_name_or_path"], settings_of("other")["revision"]) == ("user/other", None)


@pytest.mark.parametrize("over", [None, BASE, "absolute"])
def test_a_base_that_nobody_else_has_is_refused(over, base, processor, tmp_path):
    trained_adapter("run", processor, "text", base=str(tmp_path / BASE) if over == "absolute" else over)
    with pytest.raises(InputError, match=r"base_model user/name, or merge the adapter \(model.merge_and_unload"):
        stage_adapter(SavedModel("run"), Path("published"))
    assert not Path("published").exists()


@pytest.mark.parametrize("name", ["/abs/olute", "./base", "one", "a/b/c", "", "user/na me", "scratch/x"])
def test_a_base_of_no_such_name_is_refused(name, base, processor):
    trained_adapter("run", processor, "text")
    with pytest.raises(InputError, match="is no Hub id: give user/name"):
        stage_adapter(SavedModel("run"), Path("published"), name)


@pytest.mark.parametrize(
    ("file", "message"),
    [("adapter_model.safetensors", "save the adapter"), ("processor_config.json", "processor.save_pretrained")],
)
def test_an_adapter_that_lacks_a_part_is_refused(file, message, base, processor):
    trained_adapter("run", processor, "text")
    Path("run", file).unlink()
    with pytest.raises(InputError, match=message):
        stage_adapter(SavedModel("run"), Path("published"), BASE)


def test_an_adapter_in_one_folder_with_a_model_is_refused(base, processor):
    trained_adapter("run", processor, "text")
    base.save_pretrained("run")
    with pytest.raises(InputError, match="leave one of them"):
        stage_adapter(SavedModel("run"), Path("published"), BASE)


def test_hf_clip_says_what_an_adapter_needs(adapter, monkeypatch):
    folder, _ = adapter
    monkeypatch.setattr("hf_clip.models.trained_pairs.is_peft_available", lambda: False)
    with pytest.raises(InputError, match=r'it is a PEFT adapter: pip install "hf_clip\[peft\]"'):
        open_model_and_processor(folder)
