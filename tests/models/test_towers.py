"""Towers by name."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from torchvision.models import resnet18, resnet50
from transformers import (
    AutoConfig,
    AutoModel,
    AutoProcessor,
    CLIPConfig,
    CLIPModel,
    GPT2Config,
    GPT2Model,
    SiglipConfig,
    SiglipModel,
    T5Config,
    T5Model,
    TimmWrapperConfig,
    TimmWrapperModel,
    ViTConfig,
    ViTModel,
)

from hf_clip import HFClipProcessor, create_model_and_processor
from hf_clip.core.errors import InputError
from hf_clip.models.image_processors import square_image_processor
from hf_clip.models.tower_sources.resnets import resnet_config
from hf_clip.models.tower_sources.torchvision_towers import torchvision_image_processor
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
        ours, theirs = AutoModel.from_config(resnet_config(name)), reference()
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


# ---- torchvision and timm -----------------------------------------------------------------------------------------


def randomised(reference):
    """torchvision's ResNet with no number left that a wrong key would not be noticed by."""
    torch.manual_seed(0)
    for module in reference.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for values, low, high in (
                (module.weight, 0.2, 0.8), (module.bias, -0.3, 0.3),
                (module.running_mean, -0.3, 0.3), (module.running_var, 0.5, 1.5),
            ):  # fmt: skip
                values.data.uniform_(low, high)
    return reference.eval()


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "resnet34",
        "resnet50",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("resnet101", "resnet152")),
    ],
)
def test_a_resnet_of_torchvision_computes_the_same(name, tmp_path, tower_folders):
    reference = randomised(torchvision.models.get_model(name))
    state = {f"module.{key}": value for key, value in reference.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "weights.pth")
    model, processor = create_model_and_processor(f"torchvision/{name}:{tmp_path}/weights.pth", tower_folders[1])
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        output = model.vision_model.eval()(pixels)
        body = torch.nn.Sequential(*list(reference.children())[:-2])(pixels)
    torch.testing.assert_close(output.last_hidden_state, body, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(output.pooler_output.flatten(1), body.mean((2, 3)), rtol=1e-5, atol=1e-5)
    assert processor.image_processor.crop_size["height"] == 224


def test_pictures_are_prepared_as_the_weights_of_torchvision_want():
    from torchvision.models import ResNet50_Weights

    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8))
    ours = torchvision_image_processor(ResNet50_Weights.IMAGENET1K_V2.transforms())(image, return_tensors="pt")
    theirs = ResNet50_Weights.IMAGENET1K_V2.transforms()(image)
    assert ours["pixel_values"][0].shape == theirs.shape
    assert (ours["pixel_values"][0] - theirs).abs().mean() < 0.02  # rounded to a byte after resizing, or not


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("layer2.0.bn1.weight"), "lacks 'layer2.0.bn1.weight'"),
        (lambda state: state.update(extra=torch.zeros(1)), "has an unknown 'extra'"),
        (lambda state: state.update({"conv1.weight": torch.zeros(1)}), "has another shape of 'conv1.weight'"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(change, message, tmp_path, tower_folders):
    state = resnet18().state_dict()
    change(state)
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(InputError, match=message):
        create_model_and_processor(f"torchvision/resnet18:{tmp_path}/weights.pth", tower_folders[1])


class Malicious:
    def __reduce__(self):
        return open, (os.environ["HF_CLIP_TRACE"], "w")


def test_no_code_of_a_pickle_is_run(tmp_path, tower_folders, monkeypatch):
    monkeypatch.setenv("HF_CLIP_TRACE", str(tmp_path / "trace"))
    torch.save({"conv1.weight": Malicious()}, tmp_path / "weights.pth")
    (tmp_path / "resnet" / "model.safetensors").unlink()
    torch.save({"embedder": Malicious()}, tmp_path / "resnet" / "pytorch_model.bin")
    for name in (f"torchvision/resnet18:{tmp_path}/weights.pth", tower_folders[0]):
        with pytest.raises(InputError, match="plain tensors") as caught:
            create_model_and_processor(name, tower_folders[1])
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "trace").exists()


def test_a_timm_tower_from_scratch_begins_as_timm_begins_it(tower_folders, tmp_path):
    torch.manual_seed(0)
    model, processor = create_model_and_processor("scratch/timm/resnet18", tower_folders[1])
    expected = timm.create_model("resnet18", num_classes=0)
    for name, weight in model.vision_model.timm_model.state_dict().items():
        if weight.ndim == 4:
            assert weight.std().item() == pytest.approx(expected.state_dict()[name].std().item(), rel=0.1), name
    processor.save_pretrained(tmp_path / "saved")
    # Smooth: where the margin is odd, timm crops one pixel further than transformers.
    slope = np.add.outer(np.linspace(0, 120, 300), np.linspace(0, 130, 400)).astype(np.uint8)
    image = Image.fromarray(np.stack([slope, slope[::-1], slope[:, ::-1]], 2))
    data = timm.data.resolve_data_config(timm.get_pretrained_cfg("resnet18").to_dict())
    theirs = timm.data.create_transform(**data, is_training=False)(image)
    ours = HFClipProcessor.from_pretrained(tmp_path / "saved").image_processor(image, return_tensors="pt")
    assert (ours["pixel_values"][0] - theirs).abs().mean() < 0.03


def test_a_folder_of_a_timm_tower(tower_folders, tmp_path):
    config = TimmWrapperConfig.from_dict(
        {"architecture": "test_vit", "pretrained_cfg": timm.get_pretrained_cfg("test_vit").to_dict(), "num_classes": 0}
    )
    tower = TimmWrapperModel(config)
    tower.save_pretrained(tmp_path / "timm")
    model, processor = create_model_and_processor(str(tmp_path / "timm"), tower_folders[1])
    for name, weight in tower.state_dict().items():
        assert torch.equal(weight, model.vision_model.state_dict()[name]), name
    assert type(processor.image_processor).__name__.startswith("CLIPImageProcessor")


# ---- whole checkpoints, texts, scratch ----------------------------------------------------------------------------


@pytest.fixture
def dual_folder(request, tmp_path, tokenizer):
    """A CLIP or a SigLIP with both towers."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 37}
    text = sizes | {"vocab_size": 99, "max_position_embeddings": 64, "eos_token_id": 3, "pad_token_id": 0}
    vision = sizes | {"image_size": 32, "patch_size": 8}
    config, model = {"clip": (CLIPConfig, CLIPModel), "siglip": (SiglipConfig, SiglipModel)}[request.param]
    torch.manual_seed(0)
    model(config(text_config=text, vision_config=vision)).save_pretrained(tmp_path / "dual")
    tokenizer.save_pretrained(tmp_path / "dual")
    square_image_processor(32).save_pretrained(tmp_path / "dual")
    return str(tmp_path / "dual")


@pytest.mark.parametrize("dual_folder", ["clip", "siglip"], indirect=True)
def test_each_tower_of_a_whole_checkpoint_is_taken_as_it_is(dual_folder, tower_folders):
    whole = AutoModel.from_pretrained(dual_folder).eval()
    model, processor = create_model_and_processor(dual_folder, dual_folder)
    model.eval()
    ids, pixels = torch.tensor([[5, 6, 3] + [0] * 61]), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        text, image = model.text_model(ids), model.vision_model(pixels)
        assert torch.equal(text.pooler_output, whole.text_model(ids).pooler_output)
        assert torch.equal(image.pooler_output, whole.vision_model(pixels).pooler_output)
    assert processor.image_processor.crop_size["height"] == 32
    fixed = whole.config.model_type == "siglip"
    assert (processor.text_padding, processor.max_text_length) == (("max_length", 64) if fixed else ("longest", 64))
    assert processor(text=["a"], return_tensors="pt")["input_ids"].shape[1] == (64 if fixed else 3)
    other = create_model_and_processor(dual_folder, dual_folder, text_padding="max_length", max_text_length=9)[1]
    assert (other.text_padding, other.max_text_length) == ("max_length", 9)
    fresh, _ = create_model_and_processor(f"scratch/{dual_folder}", f"scratch/{dual_folder}")
    for name, weight in fresh.vision_model.named_parameters():
        if "weight" in name and weight.ndim > 1:
            assert not torch.equal(weight, model.vision_model.state_dict()[name]), name


def test_a_tokenizer_without_padding_gets_some(tower_folders, tokenizer, tmp_path):
    text = GPT2Config(vocab_size=99, n_positions=64, n_embd=32, n_layer=2, n_head=4, eos_token_id=3, bos_token_id=3)
    GPT2Model(text).save_pretrained(tmp_path / "gpt2")
    tokenizer.pad_token, tokenizer.eos_token = None, "[SEP]"
    tokenizer.save_pretrained(tmp_path / "gpt2")
    model, processor = create_model_and_processor(tower_folders[0], str(tmp_path / "gpt2"))
    assert model.config.text_pooling == "last"
    assert processor.tokenizer.pad_token == "[SEP]"
    assert processor(text=["a", "a b c"], return_tensors="pt")["attention_mask"].sum(1).tolist()[0] < 5


SIZES = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 37,
}


def text_tower(folder, tokenizer, kind: str, told: int | None, **sizes) -> str:
    """A tower of a type, whose tokenizer says a limit or, as many do, none."""
    tokenizer.model_max_length = int(1e30) if told is None else told
    torch.manual_seed(0)
    AutoModel.from_config(AutoConfig.for_model(kind, **(SIZES | sizes))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(("kind", "sizes", "told", "length"), [
    ("bert", {"max_position_embeddings": 40}, None, 40),
    ("bert", {"max_position_embeddings": 40}, 512, 40),
    ("bert", {"max_position_embeddings": 40}, 30, 30),
    ("distilbert", {"max_position_embeddings": 40, "dim": 32, "n_layers": 1, "n_heads": 4, "hidden_dim": 9}, None, 40),
    # These count from behind the padding's number, 0 of this tokenizer.
    ("roberta", {"max_position_embeddings": 40, "pad_token_id": 1}, None, 38),
    ("xlm-roberta", {"max_position_embeddings": 40, "pad_token_id": 1}, None, 38),
    ("camembert", {"max_position_embeddings": 40, "pad_token_id": 1}, 512, 38),
    ("mpnet", {"max_position_embeddings": 40, "pad_token_id": 1}, 512, 38),
    ("gpt2", {"n_positions": 40, "n_embd": 32, "n_layer": 1, "n_head": 4}, None, 40),
    ("opt", {"max_position_embeddings": 40, "ffn_dim": 37, "word_embed_proj_dim": 32}, None, 40),
])  # fmt: skip
def test_no_text_is_longer_than_can_be_read(kind, sizes, told, length, tower_folders, tokenizer, tmp_path):
    tower = text_tower(tmp_path / "tower", tokenizer, kind, told, **sizes)
    model, processor = create_model_and_processor(tower_folders[0], tower)
    assert processor.max_text_length == processor.tokenizer.model_max_length == length
    tokens = processor(text=["a " * 600, "b"], return_tensors="pt")
    assert tokens["input_ids"].shape == (2, length)
    with torch.no_grad():
        assert model.eval()(**tokens).text_embeds.isfinite().all()
        if told != length:  # not one token more would go
            with pytest.raises((IndexError, RuntimeError)):
                model(**processor(text="a " * 600, max_length=length + 1, return_tensors="pt"))
    model.save_pretrained(tmp_path / "pair")
    processor.save_pretrained(tmp_path / "pair")
    again = AutoProcessor.from_pretrained(tmp_path / "pair")
    assert len(again(text="a " * 600)["input_ids"]) == length
    assert open_model_and_processor(str(tmp_path / "pair"))[1].max_text_length == length


def test_a_tower_that_counts_no_positions_takes_any_text(tower_folders, tokenizer, tmp_path):
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4}
    tower = text_tower(tmp_path / "t5", tokenizer, "t5", None, **sizes)
    _, processor = create_model_and_processor(tower_folders[0], tower)
    assert processor.max_text_length is None
    assert len(processor(text="a " * 600)["input_ids"]) == 602
    assert create_model_and_processor(tower_folders[0], tower, default_text_length=77)[1].max_text_length == 77
    asked = {"max_text_length": 9, "default_text_length": 77}
    assert create_model_and_processor(tower_folders[0], tower, **asked)[1].max_text_length == 9


def test_an_exchanged_tower_brings_its_limit(tower_folders, tokenizer, tmp_path):
    for part in create_model_and_processor(*tower_folders, max_text_length=60):
        part.save_pretrained(tmp_path / "pair")
    tower = text_tower(tmp_path / "tower", tokenizer, "roberta", None, max_position_embeddings=40, pad_token_id=1)
    _, processor = open_model_and_processor(str(tmp_path / "pair"), text_model=tower)
    assert processor.max_text_length == processor.tokenizer.model_max_length == 38
    assert open_model_and_processor(str(tmp_path / "pair"), vision_model=tower_folders[0])[1].max_text_length == 60


def test_an_encoder_decoder_gives_its_encoder(tower_folders, tokenizer, tmp_path):
    config = T5Config(vocab_size=99, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)
    whole = T5Model(config).eval()
    whole.save_pretrained(tmp_path / "t5")
    tokenizer.save_pretrained(tmp_path / "t5")
    model, _ = create_model_and_processor(tower_folders[0], str(tmp_path / "t5"))
    ids = torch.tensor([[5, 6, 3]])
    expected = whole.encoder(ids).last_hidden_state
    assert torch.equal(model.text_model.eval()(ids).last_hidden_state, expected)
    assert not any("decoder" in name for name in model.state_dict())


def test_both_formats_of_sentence_transformers_are_read(tower_folders, tmp_path):
    (tmp_path / "bert" / "1_Pooling").mkdir()
    (tmp_path / "bert" / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": "cls"}))
    (tmp_path / "bert" / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 21}))
    model, processor = create_model_and_processor(*tower_folders)
    assert model.config.text_pooling == "cls"
    assert processor.max_text_length == 21


def test_a_tower_that_needs_its_own_code_is_refused(tower_folders, tmp_path):
    config = {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config", "AutoModel": "mine.Model"}}
    (tmp_path / "bert" / "config.json").write_text(json.dumps(config))
    (tmp_path / "bert" / "mine.py").write_text("raise SystemExit('run')")
    with pytest.raises(InputError, match=r"needs code of its own \(mine.Model\), which a saved pair could not carry"):
        create_model_and_processor(*tower_folders)


def test_a_checkpoint_that_lacks_weights_is_refused(tower_folders):
    from safetensors.torch import load_file, save_file

    file = f"{tower_folders[0]}/model.safetensors"
    weights = load_file(file)
    del weights["encoder.stages.2.layers.0.layer.0.convolution.weight"]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lacks 1 of the tower's weights, 'encoder.stages.2"):
        create_model_and_processor(*tower_folders)


# ---- going on from a trained pair ---------------------------------------------------------------------------------


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


def test_a_trained_pair_opens_as_it_was_saved(tower_folders, tmp_path):
    model, processor = create_model_and_processor(*tower_folders, max_text_length=9)
    model.save_pretrained(tmp_path / "pair")
    processor.save_pretrained(tmp_path / "pair")
    again, policy = open_model_and_processor(str(tmp_path / "pair"), image_size=48)
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True)
    )
    assert (policy.max_text_length, policy.image_processor.crop_size["height"]) == (9, 48)
    with pytest.raises(
        InputError, match="cannot be opened: give the folder or Hub id of a model that hf_clip trained"
    ):
        open_model_and_processor(tower_folders[0])


def test_a_size_that_a_vit_refuses_is_refused_before_training(tower_folders, tmp_path):
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    ViTModel(ViTConfig(image_size=32, patch_size=8, **sizes)).save_pretrained(tmp_path / "vit")
    square_image_processor(32).save_pretrained(tmp_path / "vit")
    with pytest.raises(InputError, match=r"vision_model .*vit': Input image size \(48\*48\) doesn't match model"):
        create_model_and_processor(str(tmp_path / "vit"), tower_folders[1], image_size=48)
    create_model_and_processor(str(tmp_path / "vit"), tower_folders[1], image_size=32)


@pytest.mark.parametrize("text", ["[]", '"x"', "null", "3", "{"])
@pytest.mark.parametrize(
    ("side", "file"),
    [
        (0, "config.json"), (0, "preprocessor_config.json"), (1, "config.json"), (1, "tokenizer_config.json"),
        (1, "tokenizer.json"),
    ],
)  # fmt: skip
def test_a_file_of_another_shape_is_one_line(side, file, text, tower_folders):
    Path(tower_folders[side], file).write_text(text)
    with pytest.raises(InputError) as refused:
        create_model_and_processor(*tower_folders)
    assert "exchanged" not in str(refused.value)


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
