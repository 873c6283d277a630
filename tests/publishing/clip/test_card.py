"""The card of a CLIP: its towers, their weights, its loss, its graphs and what it cites."""

import json
import re

import pytest
import torch
from cards import EXPORT, NAME, TRAINING, bare_folder, card, metadata, put, rows, section, tidy
from conftest import tiny_model
from safetensors.torch import save_file
from toy_loss import TOY

from hf_clip.publishing.card.facts import CardDetails
from hf_clip.publishing.clip.card import Tower, TowerFacts, citations
from hf_clip.publishing.clip.loss_words import LossWords


@pytest.fixture
def folder(tmp_path, processor):
    return bare_folder(tmp_path / "model", processor)


@pytest.mark.parametrize(
    ("vision", "text", "expected"),
    [
        ("scratch/resnet-10", "sentence-transformers/all-MiniLM-L6-v2", ["sentence-transformers/all-MiniLM-L6-v2"]),
        ("torchvision/resnet50:/home/me/weights.pth", "/home/me/bert", None),
        ("scratch/timm/resnet18", "./bert", None),
        ("timm/resnet18.a1_in1k", "timm/resnet18.a1_in1k", ["timm/resnet18.a1_in1k"]),
    ],
)
def test_base_models_are_those_that_the_hub_has(folder, vision, text, expected):
    made = card(folder, training={"vision_model": vision, "text_model": text})
    assert metadata(made).get("base_model") == expected
    assert "me/" not in made
    own = card(folder, CardDetails(NAME, base_model=["org/base"]))
    assert metadata(own)["base_model"] == ["org/base"]


def test_timm_weights_are_named_by_their_repository(folder):
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"] |= {"architecture": "resnet18", "pretrained_cfg": {"tag": "a1_in1k"}}
    put(folder, "config.json", config)
    for name, expected in (("timm/resnet18", ["timm/resnet18.a1_in1k"]), ("scratch/timm/resnet18", None)):
        assert metadata(card(folder, training={"vision_model": name})).get("base_model") == expected


def test_a_timm_tower_is_called_by_its_architecture(folder):
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"] |= {"architecture": "resnet18", "model_type": "timm_wrapper"}
    put(folder, "config.json", config)
    text = card(folder)
    assert dict(rows(text.split("## Use")[0]))["Image tower"] == "timm resnet18"
    assert "timm resnet18 reads the pictures, BERT the texts" in text
    assert "─ timm resnet18, pooled" in text
    base = 'pip install "transformers>=5.23,<6" torch torchvision accelerate pillow'
    assert f"```sh\n{base} timm\n```" in section(text, "transformers")
    assert f"```sh\n{base} timm\n```" in section(text, "The pipeline of transformers")


def test_parameters_and_temperature_are_those_of_the_weights(folder):
    model = tiny_model()
    with torch.no_grad():
        model.logit_scale.fill_(3.0)
    save_file(model.state_dict(), folder / "model.safetensors")
    text = card(folder, training=TRAINING)
    sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    total = sum(p.numel() for p in model.parameters())
    table = dict(rows(text.split("## Use")[0]))
    assert f"{sizes['vision_model'] / 1000:.3g} k parameters" in table["Image tower"]
    assert f"{sizes['text_model'] / 1000:.3g} k parameters" in table["Text tower"]
    assert table["Parameters"] == f"{total / 1000:.3g} k, 5.3 M of them trained"
    assert "cosine / 0.04979 ── InfoNCE" in text  # e⁻³


def test_the_drawing_joins_both_towers(folder):
    (first, middle, last) = re.search(r"```text\n(picture.*?)\n```", card(folder), flags=re.DOTALL)[1].splitlines()
    assert re.match("picture 32×32 ─+ ResNet, pooled: its own pooler ─+ 40 ─+ linear ─+┐", first)
    assert re.match("text ─+ BERT, pooled: mean ─+ 32 ─+ linear ─+┘", last)
    assert first.index("┐") == middle.index("├") == last.index("┘")
    assert "├─ 16, unit length" in middle


def test_what_int8_costs(folder):
    recall = {"image_retrieval_recall@1": {"fp32": 0.5, "int8": 0.48, "chance": 0.01}}
    data = {"name": "unseen", "split": "all rows", "fingerprint": "d" * 8, "images": 1430, "captions": 2000}
    sizes = {
        "text_model.onnx": 8_000_000,
        "vision_model.onnx": 2_000_000,
        "text_model_int8.onnx": 2_000_000,
        "vision_model_int8.onnx": 1_000_000,
    }
    int8 = {
        "data": data | {"skipped_images": 0},
        "methods": {"text": "dynamic", "vision": "static"},
        "calibration": {"images": 64, "measured_too": False},
        "bytes": sizes,
        "k": [1],
        "recall": recall,
    }
    text = card(folder, onnx=EXPORT | {"int8": int8})
    said = section(text, "ONNX")
    assert "differ from torch's by 3e-07 at the most. Pictures of one size only." in said
    assert "they take 3 MB in place of 10 MB. Measured on unseen, all rows, 1,430 pictures:" in said
    assert rows(said)[1:] == [["text → image, recall@1", "0.500", "0.480", "0.010"]]
    assert "onnx" in metadata(text)["tags"]
    tidy(text)
    tidy(card(folder, onnx=EXPORT | {"notes": []}))


def test_the_sigmoid_loss_and_a_fixed_length_are_explained(tmp_path, processor):
    tiny_model(loss="sigmoid").config.save_pretrained(tmp_path)
    processor.text_padding, processor.max_text_length = "max_length", 12
    processor.save_pretrained(tmp_path)
    text = card(tmp_path)
    tidy(text)
    assert "texts padded to 12 tokens" in text
    assert "shares out a probability of 1 among the labels" in text
    assert "softmax" not in text
    assert "sigmoid loss of every pair" in text
    assert "2303.15343" in text
    assert "1807.03748" not in text


def test_a_loss_from_outside_is_in_the_card_as_the_run_has_said(tmp_path):
    tiny_model(**TOY.settings()).config.save_pretrained(tmp_path)
    said = LossWords.of(TOY).to_json()
    text = card(tmp_path, training={"loss": said | {"sentence": "A toy.", "citations": ["@misc{a, url={/a/b}}"]}})
    tidy(text)
    assert "plus bias: squared hinge of every pair" in text
    assert "\nA toy: the sigmoid of a logit says of a label by itself whether it fits" in text
    assert "@misc{a, url={" in text
    for training in ({}, {"loss": said | {"name": "another"}}):
        text = card(tmp_path, training=training)
        assert "The model was trained with the loss toy_hinge, which is not part of hf_clip: the sigmoid" in text
    alone = {"probabilities": "softmax", "logit_bias_init_value": None}
    tiny_model(**(TOY.settings() | alone)).config.save_pretrained(tmp_path)
    text = card(tmp_path, training={"loss": said})
    assert "\nThe model was trained with a toy of a loss, of every pair.\n" in text
    assert "softmax(dim=1)[0]" in text
    assert "plus bias" not in text


def tower(kind: str, name: str | None) -> Tower:
    facts = TowerFacts(type=kind, architecture=None, tag=None, pooling="mean", width=8, parameters=None)
    return Tower(facts, name, repository=None, frozen=False)


def test_citations_are_of_what_was_used():
    towers = [
        tower("resnet", "scratch/resnet-10"),
        tower("bert", "sentence-transformers/all-MiniLM-L6-v2"),
        tower("timm_wrapper", "timm/x"),
        tower("unheard-of", None),
    ]
    text = citations(towers, ["infonce"], image_tower_frozen=False)
    keys = re.findall(r"^@misc\{(.+),$", text, flags=re.MULTILINE)
    assert keys == ["clip", "infonce", "resnet", "bert", "minilm", "sentence-bert", "timm"]
    assert text.count("{") == text.count("}")
    locked = citations([tower("siglip_vision_model", None)], ["siglip"], image_tower_frozen=True)
    assert re.findall(r"@misc\{(\w+)", locked) == ["clip", "siglip", "lit"]
