"""The configuration: defaults, choices, and what it writes."""

import math
from pathlib import Path

import pytest
from conftest import CODE, tiny_text_config, tiny_vision_config
from toy_loss import TOY
from transformers import AutoConfig, CLIPTextConfig, GPT2Config, ViTConfig
from transformers.dynamic_module_utils import get_imports, get_relative_imports

import hf_clip
from hf_clip import HFClipConfig
from hf_clip.models.sigmoid_hf_clip import SIGMOID


def test_defaults_are_clip_s():
    config = HFClipConfig()
    assert (config.text_config.model_type, config.vision_config.model_type) == ("bert", "resnet")
    assert math.exp(config.logit_scale_init_value) == pytest.approx(1 / 0.07)
    assert math.exp(config.logit_scale_max) == pytest.approx(100)


@pytest.mark.parametrize(
    ("text", "vision", "poolings"),
    [
        (tiny_text_config(), tiny_vision_config(), ("mean", "pooler")),
        (CLIPTextConfig(), ViTConfig(), ("pooler", "cls")),
        (GPT2Config(), tiny_vision_config(), ("last", "pooler")),
    ],
)
def test_pooling_suits_the_tower(text, vision, poolings):
    config = HFClipConfig.from_vision_text_configs(vision, text)
    assert (config.text_pooling, config.vision_pooling) == poolings


@pytest.mark.parametrize("field", ["text_pooling", "vision_pooling", "projection"])
def test_an_unknown_choice_names_the_choices(field):
    with pytest.raises(ValueError, match=f"unknown {field} 'sum': choose one of .*(cls|linear)"):
        HFClipConfig(**{field: "sum"})


def test_saves_and_loads_with_its_towers(tmp_path):
    config = HFClipConfig(text_config=tiny_text_config(hidden_size=64), projection_dim=7, logit_scale_max=None)
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(loaded, HFClipConfig)
    assert (loaded.projection_dim, loaded.logit_scale_max, loaded.text_config.hidden_size) == (7, None, 64)


@pytest.mark.parametrize("name", sorted(CODE))
def test_travelling_code_imports_only_its_siblings_and_what_transformers_users_have(name):
    """As transformers itself reads the imports of remote code."""
    file = Path(hf_clip.__file__).parent / "models" / name
    assert {f"{sibling}.py" for sibling in get_relative_imports(file)} <= CODE
    standard = {"collections", "contextlib", "copy", "dataclasses", "functools", "inspect", "math", "pathlib"}
    standard |= {"hashlib", "json"}
    standard |= {"base64", "importlib", "io", "logging", "os", "re", "shutil", "struct", "typing", "warnings", "zlib"}
    standard |= {"PIL", "numpy"} if "decoding" in name or "pipelines" in name else set()
    assert set(get_imports(file)) <= standard | {"torch", "transformers", "huggingface_hub"}


def test_each_loss_brings_its_own_temperature():
    infonce, sigmoid = HFClipConfig(), HFClipConfig(loss="sigmoid")
    assert (infonce.logit_scale_init_value, infonce.logit_scale_max) == (math.log(1 / 0.07), math.log(100))
    assert (sigmoid.logit_scale_init_value, sigmoid.logit_scale_max) == (math.log(10), None)
    assert sigmoid.logit_bias_init_value == -10


def test_no_cap_stays_no_cap_when_saved(tmp_path):
    HFClipConfig(logit_scale_max=None).save_pretrained(tmp_path)
    assert HFClipConfig.from_pretrained(tmp_path).logit_scale_max is None
    HFClipConfig(loss="sigmoid", logit_scale_max=3.0, logit_scale_init_value=0.0).save_pretrained(tmp_path)
    loaded = HFClipConfig.from_pretrained(tmp_path)
    assert (loaded.loss, loaded.logit_scale_max, loaded.logit_scale_init_value) == ("sigmoid", 3.0, 0.0)


def test_probabilities_are_those_of_the_loss():
    assert (HFClipConfig().probabilities, HFClipConfig(loss="sigmoid").probabilities) == ("softmax", "sigmoid")
    with pytest.raises(ValueError, match="probabilities 'sigmoid' contradict the loss infonce, whose are 'softmax'"):
        HFClipConfig(probabilities="sigmoid")
    with pytest.raises(ValueError, match="unknown probabilities 'softmin': choose one of softmax, sigmoid"):
        HFClipConfig(loss="mine", probabilities="softmin")


def test_opened_with_another_loss_it_has_the_settings_of_that_one(tmp_path):
    HFClipConfig(logit_scale_max=3.0, projection_dim=7).save_pretrained(tmp_path)
    for opened in (HFClipConfig.from_pretrained, AutoConfig.from_pretrained):
        other = opened(tmp_path, loss="sigmoid")
        assert {name: getattr(other, name) for name in SIGMOID.settings()} == SIGMOID.settings()
        assert other.projection_dim == 7
    assert HFClipConfig.from_pretrained(tmp_path, loss="sigmoid", logit_scale_max=2.0).logit_scale_max == 2
    assert HFClipConfig.from_pretrained(tmp_path, loss="infonce").logit_scale_max == 3


def test_what_could_not_be_opened_again_is_not_saved(tmp_path):
    config = HFClipConfig()
    config.loss = "sigmoid"
    with pytest.raises(
        ValueError, match=r"probabilities 'softmax' contradict the loss sigmoid.*to a model with use_loss"
    ):
        config.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_cap_is_a_number_or_none():
    with pytest.raises(ValueError, match="logit_scale_max is 'none': give a number, or None for no cap"):
        HFClipConfig(logit_scale_max="none")


def test_an_unknown_loss_is_one_of_somebody_s_own_only_if_it_says_what_its_scores_mean(tmp_path):
    with pytest.raises(ValueError, match=r"unknown loss 'sgmoid': choose one of .*infonce"):
        HFClipConfig(loss="sgmoid")
    HFClipConfig(**TOY.settings()).save_pretrained(tmp_path)
    opened = HFClipConfig.from_pretrained(tmp_path)
    assert {name: getattr(opened, name) for name in TOY.settings()} == TOY.settings()
    capless = HFClipConfig(loss="mine", probabilities="softmax", logit_scale_max=None)
    capless.save_pretrained(tmp_path)
    opened = HFClipConfig.from_pretrained(tmp_path)
    assert (opened.logit_scale_max, opened.logit_bias_init_value) == (None, None)


def test_a_bias_that_infonce_was_saved_with_is_none():
    """Before losses said whether they have one, every configuration had a value for it."""
    assert HFClipConfig(logit_bias_init_value=-10.0).logit_bias_init_value is None
