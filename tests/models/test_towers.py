"""Two towers paired, and a trained pair with another tower."""

import dataclasses

import pytest
import torch
from PIL import Image
from toy_loss import TOY
from transformers import (
    AutoModel,
    ViTConfig,
    ViTModel,
)

from hf_clip import create_model_and_processor
from hf_clip.core.errors import InputError
from hf_clip.models.image_processors import square_image_processor
from hf_clip.models.towers import open_model_and_processor


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


@pytest.mark.parametrize(
    ("vision", "text", "settings", "message"),
    [
        ("scratch/resnet-7", None, {}, "unknown tower 'scratch/resnet-7': choose one of scratch/resnet-10, .*-152"),
        ("no/such-tower", None, {}, "vision_model 'no/such-tower' cannot be opened: give a Hub id, a folder"),
        (None, "no/such-text", {}, "text_model 'no/such-text' cannot be opened"),
        (None, None, {"text_pooling": "sum"}, "unknown text_pooling 'sum': choose one of cls, mean, last, pooler"),
        (None, None, {"projection": "deep"}, "unknown projection 'deep': choose one of linear, mlp, none"),
        (None, None, {"projection_dims": 3}, "unknown setting 'projection_dims': choose among image_size, .*loss"),
        (None, None, {"dtype": "x"}, "unknown setting 'dtype'"),
        (None, None, {"logit_scale_max": "none"}, "logit_scale_max is 'none': give a number, or None for no cap"),
        (
            None,
            None,
            {"loss": dict},
            "loss is <class 'dict'>: give a name .* HFClipTrainer also takes a plain function",
        ),
        (None, None, {"projection": "none"}, r"text tower 32, image tower 40\): set projection='linear'"),
        ("torchvision/vgg16", None, {}, "choose one of torchvision/resnet18, .* torchvision/resnet152"),
        ("torchvision/resnet18", None, {}, "cannot be downloaded .* torchvision/resnet18:path/to/file.pth"),
        ("torchvision/resnet18:none.pth", None, {}, "neither a file nor one of torchvision's weights: IMAGENET1K_V1"),
        ("timm/resnet18", None, {}, "vision_model 'timm/resnet18' cannot be opened"),
        ("timm/no_such", None, {}, "timm has no 'no_such'"),
    ],
)
def test_what_cannot_be_opened_is_named_with_the_choices(vision, text, settings, message, tower_folders):
    with pytest.raises(InputError, match=message) as caught:
        create_model_and_processor(vision or tower_folders[0], text or tower_folders[1], **settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("side", ["vision", "text"])
def test_another_tower_for_a_side_leaves_the_other_as_it_was_trained(side, tower_folders, tmp_path):
    model, processor = create_model_and_processor(*tower_folders, projection_dim=24, loss="sigmoid")
    with torch.no_grad():
        model.logit_scale.fill_(1.5)
        model.logit_bias.fill_(-3.0)
    model.save_pretrained(tmp_path / "pair")
    processor.save_pretrained(tmp_path / "pair")
    tower = {"vision": "scratch/resnet-10", "text": f"scratch/{tower_folders[1]}"}[side]
    other, new_processor = open_model_and_processor(str(tmp_path / "pair"), **{f"{side}_model": tower})
    fresh = {"vision": ("vision_model.", "visual_projection."), "text": ("text_model.", "text_projection.")}[side]
    for name, weight in model.state_dict().items():
        if not name.startswith(fresh):
            assert torch.equal(weight, other.state_dict()[name]), name
    projection = fresh[1] + "weight"
    assert not torch.equal(
        model.state_dict()[projection], other.state_dict()[projection][:, : 32 if side == "text" else 40]
    )
    assert new_processor.image_processor.crop_size["height"] == (224 if side == "vision" else 32)
    assert other.config.loss == "sigmoid"
    assert other.config.projection_dim == 24
    with pytest.raises(InputError, match=r"projection_dim=7 contradicts the trained model .* which has 24"):
        open_model_and_processor(str(tmp_path / "pair"), projection_dim=7)


def test_a_loss_of_one_s_own_is_the_pair_s_from_the_start(tower_folders, tmp_path):
    model, processor = create_model_and_processor(*tower_folders, projection_dim=24, loss=TOY)
    assert {name: getattr(model.config, name) for name in TOY.settings()} == TOY.settings()
    assert (model.logit_scale.item(), model.logit_bias.item()) == (1.0, -0.5)
    inputs = processor(images=Image.new("RGB", (32, 32)), text=["a"], return_tensors="pt")
    assert model(**inputs, return_loss=True).loss > 0
    for part in (model, processor):
        part.save_pretrained(tmp_path / "pair")
    lower, _ = create_model_and_processor(*tower_folders, loss=TOY, logit_scale_max=None, logit_bias_init_value=-2.0)
    assert (lower.config.logit_scale_max, lower.logit_bias.item(), lower.own_loss.logit_scale_max) == (
        None,
        -2.0,
        None,
    )
    opened, _ = open_model_and_processor(str(tmp_path / "pair"), loss=TOY)
    assert opened.own_loss is TOY
    exchanged, _ = open_model_and_processor(str(tmp_path / "pair"), vision_model=tower_folders[0], loss=TOY)
    assert (exchanged.own_loss, exchanged.config.loss, exchanged.logit_bias.item()) == (TOY, "toy_hinge", -0.5)
    without, _ = open_model_and_processor(str(tmp_path / "pair"), vision_model=tower_folders[0])
    assert (without.config.probabilities, without.logit_bias.item()) == ("sigmoid", -0.5)
    with pytest.raises(InputError, match="loss='infonce' contradicts the trained model"):
        open_model_and_processor(str(tmp_path / "pair"), loss="infonce")
    with pytest.raises(InputError, match="'sigmoid' is a loss of hf_clip's: give yours another name"):
        create_model_and_processor(*tower_folders, loss=dataclasses.replace(TOY, name="sigmoid"))
    with pytest.raises(InputError, match=r"unknown loss 'sgmoid': choose one of .*infonce"):
        create_model_and_processor(*tower_folders, loss="sgmoid")


def test_a_size_that_a_vit_refuses_is_refused_before_training(tower_folders, tmp_path):
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    ViTModel(ViTConfig(image_size=32, patch_size=8, **sizes)).save_pretrained(tmp_path / "vit")
    square_image_processor(32).save_pretrained(tmp_path / "vit")
    with pytest.raises(InputError, match=r"vision_model .*vit': Input image size \(48\*48\) doesn't match model"):
        create_model_and_processor(str(tmp_path / "vit"), tower_folders[1], image_size=48)
    create_model_and_processor(str(tmp_path / "vit"), tower_folders[1], image_size=32)


@pytest.mark.parametrize(
    "inner",
    [
        "models.tower_sources.hub.load_tower",
        "models.tower_sources.hub._sentence_transformers_pooling",
        "models.towers_hf_clip.drop_pooler",
    ],
)
def test_a_fault_of_our_own_is_not_called_the_user_s(inner, tower_folders, monkeypatch):
    def broken(*args, **settings):
        raise AttributeError("a fault of our own")

    monkeypatch.setattr(f"hf_clip.{inner}", broken)
    with pytest.raises(AttributeError, match="a fault of our own"):
        create_model_and_processor(*tower_folders)
