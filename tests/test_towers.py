"""Towers by name."""

import json

import pytest
import torch
from torchvision.models import resnet18, resnet50
from transformers import AutoModel

from hf_clip import create_model_and_processor
from hf_clip.errors import InputError
from hf_clip.towers import _resnet_config, square_image_processor


def test_two_folders_become_a_model_and_its_processor(tower_folders):
    model, processor = create_model_and_processor(*tower_folders, projection_dim=24, text_pooling="cls")
    assert model.config.projection_dim == 24
    assert model.config.text_pooling == "cls"
    tower = AutoModel.from_pretrained(tower_folders[0])
    for name, weight in tower.state_dict().items():
        assert torch.equal(weight, model.vision_model.state_dict()[name]), name
    assert processor.image_processor.crop_size["height"] == 32


def test_another_picture_size_keeps_the_tower_s_statistics(tower_folders):
    own = square_image_processor(32)
    own.image_mean = [0.1, 0.2, 0.3]
    own.save_pretrained(tower_folders[0])
    _, processor = create_model_and_processor(*tower_folders, image_size=48)
    assert processor.image_processor.crop_size["height"] == 48
    assert list(processor.image_processor.image_mean) == [0.1, 0.2, 0.3]


def test_a_half_precision_tower_is_trained_in_full(tower_folders):
    AutoModel.from_pretrained(tower_folders[0]).bfloat16().save_pretrained(tower_folders[0])
    model, _ = create_model_and_processor(*tower_folders)
    assert model.vision_model.dtype == model.text_model.dtype == torch.float32


def test_a_sentence_transformers_folder_brings_its_pooling(tower_folders, tmp_path):
    (tmp_path / "bert" / "1_Pooling").mkdir()
    modes = {"word_embedding_dimension": 32, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (tmp_path / "bert" / "1_Pooling" / "config.json").write_text(json.dumps(modes))
    assert create_model_and_processor(*tower_folders)[0].config.text_pooling == "cls"
    assert create_model_and_processor(*tower_folders, text_pooling="mean")[0].config.text_pooling == "mean"


@pytest.mark.parametrize(("name", "reference"), [("resnet-18", resnet18), ("resnet-50", resnet50)])
def test_resnets_from_scratch_are_the_published_ones(name, reference):
    """As many parameters as torchvision's without its classifier."""
    with torch.device("meta"):
        ours, theirs = AutoModel.from_config(_resnet_config(name)), reference()
    count = sum(p.numel() for p in theirs.parameters()) - sum(p.numel() for p in theirs.fc.parameters())
    assert sum(p.numel() for p in ours.parameters()) == count


@pytest.mark.parametrize(
    ("vision", "text", "settings", "message"),
    [
        ("scratch/resnet-7", None, {}, "unknown tower 'scratch/resnet-7': choose one of scratch/resnet-10, .*-152"),
        ("no/such-tower", None, {}, "vision_model 'no/such-tower' cannot be opened: give a Hub id, a folder"),
        (None, "no/such-text", {}, "text_model 'no/such-text' cannot be opened"),
        (None, None, {"text_pooling": "sum"}, "unknown text_pooling 'sum': choose one of cls, mean, last, pooler"),
        (None, None, {"projection": "deep"}, "unknown projection 'deep': choose one of linear, mlp, none"),
        (None, None, {"projection_dims": 3}, "unknown setting 'projection_dims'"),
    ],
)
def test_what_cannot_be_opened_is_named_with_the_choices(vision, text, settings, message, tower_folders):
    with pytest.raises(InputError, match=message) as caught:
        create_model_and_processor(vision or tower_folders[0], text or tower_folders[1], **settings)
    assert "\n" not in str(caught.value)
