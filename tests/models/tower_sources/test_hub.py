"""Towers of a folder, as the Hub has them."""

import json
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModel,
    CLIPConfig,
    CLIPModel,
    SiglipConfig,
    SiglipModel,
    T5Config,
    T5Model,
)

from hf_clip import create_model_and_processor
from hf_clip.core.errors import InputError
from hf_clip.models.image_processors import square_image_processor


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


def test_both_formats_of_sentence_transformers_are_read(tower_folders, tmp_path):
    (tmp_path / "bert" / "1_Pooling").mkdir()
    (tmp_path / "bert" / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": "cls"}))
    (tmp_path / "bert" / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 21}))
    model, processor = create_model_and_processor(*tower_folders)
    assert model.config.text_pooling == "cls"
    assert processor.max_text_length == 21


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
