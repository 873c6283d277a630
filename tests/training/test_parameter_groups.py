"""Rates and decay by part and by floor."""

import pytest
from conftest import tiny_model
from transformers import TimmWrapperConfig

from hf_clip import HFClipTrainingArguments
from hf_clip.training.parameter_groups import parameter_groups


def rates(model, **args):
    groups = parameter_groups(model, HFClipTrainingArguments(output_dir="unused", use_cpu=True, **args))
    by_parameter = {id(p): group["lr"] for group in groups for p in group["params"]}
    return {name: by_parameter[id(p)] for name, p in model.named_parameters() if p.requires_grad}


def test_rates_fall_by_layer_from_the_top_of_each_tower():
    """Two BERT layers and five ResNet blocks: by hand, 8 is the roof's rate and each floor has half of it."""
    found = rates(tiny_model(), learning_rate=8.0, layer_decay=0.5)
    expected = {
        "logit_scale": 8,
        "visual_projection.weight": 8,
        "text_projection.weight": 8,
        "text_model.encoder.layer.1.output.dense.weight": 4,
        "text_model.encoder.layer.0.attention.self.query.bias": 2,
        "text_model.embeddings.word_embeddings.weight": 1,
        "vision_model.encoder.stages.3.layers.0.layer.0.convolution.weight": 4,
        "vision_model.encoder.stages.2.layers.1.layer.1.convolution.weight": 2,
        "vision_model.encoder.stages.2.layers.0.layer.1.convolution.weight": 1,
        "vision_model.encoder.stages.1.layers.0.layer.1.convolution.weight": 0.5,
        "vision_model.encoder.stages.0.layers.0.layer.1.normalization.bias": 0.25,
        "vision_model.embedder.embedder.convolution.weight": 0.125,
    }
    assert {name: found[name] for name in expected} == expected


def test_layer_decay_starts_from_the_tower_s_own_rate_and_leaves_the_frozen_out():
    model = tiny_model()
    model.vision_model.requires_grad_(False)
    found = rates(model, learning_rate=8.0, text_learning_rate=4.0, layer_decay=0.5)
    assert found["text_model.encoder.layer.1.output.dense.weight"] == 2
    assert found["logit_scale"] == 8
    assert not any(name.startswith("vision_model") for name in found)


def test_timm_towers_by_timm_s_own_floors():
    model = tiny_model(vision_config=TimmWrapperConfig(architecture="resnet10t"))
    found = rates(model, learning_rate=1.0, layer_decay=0.5)
    names = ("conv1.0.weight", "layer1.0.conv1.weight", "layer4.0.conv1.weight")
    floors = [found[f"vision_model.timm_model.{name}"] for name in names]
    assert floors[0] < floors[1] < floors[2] <= 1


@pytest.mark.parametrize("value", [0, 1.5])
@pytest.mark.parametrize("name", ["layer_decay", "ema_decay"])
def test_shares_that_are_none_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must be more than 0 and at most 1"):
        HFClipTrainingArguments(output_dir="unused", use_cpu=True, **{name: value})


def test_every_trainable_parameter_is_in_one_group():
    model = tiny_model(loss="sigmoid")
    args = HFClipTrainingArguments(output_dir="unused", use_cpu=True, layer_decay=0.7)
    groups = parameter_groups(model, args)
    members = [p for group in groups for p in group["params"]]
    assert len(members) == len(set(map(id, members))) == len(list(model.parameters()))
    undecayed = {id(p) for group in groups if group["weight_decay"] == 0 for p in group["params"]}
    assert {id(model.logit_scale), id(model.logit_bias)} <= undecayed
