"""What a configuration remembers of its towers is taken for those towers, and for no others."""

import json

import pytest
import transformers as t
from conftest import tiny_model, tiny_text_config, tiny_vision_config

from hf_clip import HFClipConfig, HFClipModel, HFClipTextModelWithProjection, HFClipVisionModelWithProjection
from hf_clip.models import towers_hf_clip

PATCHES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 37}
PATCHES |= {"image_size": 32, "patch_size": 8}


def of_clip(**settings) -> HFClipModel:
    return tiny_model(vision_config=t.CLIPVisionConfig(**PATCHES), **settings)


def frozen(model) -> set[str]:
    return {name for name, parameter in model.named_parameters() if not parameter.requires_grad}


@pytest.fixture
def examples(monkeypatch) -> list[str]:
    """The model types of the towers that were run on an example."""
    run, ran = towers_hf_clip._run_example, []

    def noted(config, pooling):
        ran.append(config.model_type)
        return run(config, pooling)

    monkeypatch.setattr(towers_hf_clip, "_run_example", noted)
    return ran


def test_a_tower_is_run_once_when_a_pair_is_made_and_never_when_it_is_opened(examples, tmp_path):
    model = of_clip()
    assert sorted(examples) == ["bert", "clip_vision_model"]
    # CLIP's last norm is applied to the token that the pooler takes: with it, every parameter is used.
    assert model.config.vision_unused["names"] == []
    model.save_pretrained(tmp_path)
    examples.clear()
    for kind in (HFClipModel, HFClipTextModelWithProjection, HFClipVisionModelWithProjection):
        kind.from_pretrained(tmp_path)
    assert examples == []


def test_a_folder_of_an_older_version_is_measured_as_it_is_opened(examples, tmp_path):
    model = of_clip(vision_pooling="cls")
    assert frozen(model) == {"vision_model.post_layernorm.weight", "vision_model.post_layernorm.bias"}
    model.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    for side in ("text", "vision"):
        del settings[f"{side}_unused"]
    (tmp_path / "config.json").write_text(json.dumps(settings))
    examples.clear()
    assert frozen(HFClipModel.from_pretrained(tmp_path)) == frozen(model)
    assert sorted(examples) == ["bert", "clip_vision_model"]


def test_another_pooling_is_measured_anew(examples, tmp_path):
    of_clip().save_pretrained(tmp_path)
    examples.clear()
    model = HFClipModel.from_pretrained(tmp_path, vision_pooling="cls")
    assert frozen(model) == {"vision_model.post_layernorm.weight", "vision_model.post_layernorm.bias"}
    assert examples == ["clip_vision_model"]
    again = HFClipModel.from_pretrained(tmp_path, config=model.config)
    assert (frozen(again), examples) == (frozen(model), ["clip_vision_model"])


def test_a_tower_that_was_edited_is_measured_anew(examples):
    """By hand, or by a release of transformers that names its parameters otherwise."""
    config = tiny_model(vision_config=t.ViTMAEConfig(**PATCHES)).config
    assert config.vision_unused["names"] == ["embeddings.position_embeddings"]
    examples.clear()
    config.vision_config.num_hidden_layers += 1
    HFClipModel(config)
    assert examples == ["vit_mae"]
    config.vision_config = t.ViTConfig(**PATCHES)
    assert frozen(HFClipModel(config)) == set()


@pytest.mark.parametrize("names", [["pooler.dense.weight"], None])
def test_names_that_were_edited_are_measured_anew(names, examples):
    config = tiny_model().config
    config.text_unused["names"] = names
    examples.clear()
    assert frozen(HFClipModel(config)) == set()
    assert (examples, config.text_unused["names"]) == (["bert"], [])


def test_a_setting_that_uses_other_parameters_of_the_same_names_is_noticed():
    stages = {"hidden_sizes": [8, 16, 16, 24], "stem_channels": [3, 8, 8], "stage_in_channels": [8, 8, 16, 16]}
    stages |= {"stage_mid_channels": [8] * 4, "stage_out_channels": [8, 16, 16, 24], "stage_num_blocks": [1] * 4}
    config = HFClipConfig(
        text_config=tiny_text_config(),
        vision_config=t.HGNetV2Config(embedding_size=8, depths=[1] * 4, **stages),
        projection_dim=16,
    )
    assert frozen(HFClipModel(config)) == set()
    config.vision_config.set_output_features_output_indices(out_features=["stage3"], out_indices=None)
    model = HFClipModel(config)
    assert {name.split(".")[3] for name in frozen(model)} == {"3"}
    assert config.vision_width == model.visual_projection.in_features == 16


def test_settings_of_no_consequence_are_no_other_tower(examples, tmp_path):
    tiny_model().save_pretrained(tmp_path)
    examples.clear()
    HFClipModel.from_pretrained(tmp_path, attn_implementation="eager", dtype="bfloat16", output_attentions=True)
    assert examples == []


def test_parameters_of_other_names_are_another_tower():
    tower = t.ResNetModel(tiny_vision_config())
    before = towers_hf_clip._digest(tower, "pooler", [])
    tower.renamed = tower.encoder
    del tower.encoder
    assert towers_hf_clip._digest(tower, "pooler", []) != before


def test_a_default_that_a_later_transformers_adds_is_no_other_tower(monkeypatch):
    tower = t.ResNetModel(tiny_vision_config())
    before = towers_hf_clip._digest(tower, "pooler", [])
    usual = towers_hf_clip._default_fields(t.ResNetConfig) | {"added": 3}
    monkeypatch.setattr(towers_hf_clip, "_default_fields", lambda kind: usual)
    tower.config.added = 3
    assert towers_hf_clip._digest(tower, "pooler", []) == before
    tower.config.added = 4
    assert towers_hf_clip._digest(tower, "pooler", []) != before
