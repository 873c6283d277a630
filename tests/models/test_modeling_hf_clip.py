"""The model against transformers' own dual encoder and CLIP, and what is promised of any dtype, device and mode."""

import dataclasses
import math

import pytest
import torch
from conftest import tiny_inputs, tiny_model, tiny_text_config, tiny_vision_config
from model_checks import batch_of, check_export
from torch import nn
from torch._dynamo.testing import CompileCounter
from toy_loss import TOY
from transformers import (
    AutoModel,
    BertModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    ConvNextConfig,
    DistilBertConfig,
    GPT2Config,
    RegNetConfig,
    ResNetModel,
    VisionTextDualEncoderConfig,
    VisionTextDualEncoderModel,
    ViTConfig,
)
from transformers.utils import logging

from hf_clip import HFClipConfig, HFClipModel, HFClipTextModelWithProjection, HFClipVisionModelWithProjection
from hf_clip.models.losses_hf_clip import LOSSES

VIT = ViTConfig(
    hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=37, image_size=32, patch_size=8
)


def test_vit_bert_gives_the_logits_of_vision_text_dual_encoder():
    torch.manual_seed(0)
    config = VisionTextDualEncoderConfig.from_vision_text_configs(VIT, tiny_text_config(), projection_dim=16)
    theirs = VisionTextDualEncoderModel(config).eval()
    ours = HFClipModel(
        HFClipConfig.from_vision_text_configs(
            VIT, tiny_text_config(), projection_dim=16, text_pooling="pooler", vision_pooling="pooler"
        )
    ).eval()
    weights = theirs.state_dict()
    ours.load_state_dict(weights | {"logit_scale": weights["logit_scale"].reshape(1)})  # strict: the same names
    inputs = tiny_inputs()
    expected = theirs(**inputs, return_loss=True)
    output = ours(**inputs, return_loss=True)
    for name in ("loss", "logits_per_image", "logits_per_text", "image_embeds", "text_embeds"):
        torch.testing.assert_close(output[name], expected[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layer_type", ["basic", "bottleneck"])
def test_forward_of_bert_and_resnet(layer_type):
    model = tiny_model(vision_config=tiny_vision_config(layer_type)).eval()
    output = model(**tiny_inputs())
    assert output.image_embeds.shape == output.text_embeds.shape == (4, 16)
    torch.testing.assert_close(output.image_embeds.norm(dim=1), torch.ones(4))
    torch.testing.assert_close(output.text_embeds.norm(dim=1), torch.ones(4))
    torch.testing.assert_close(output.logits_per_image, output.image_embeds @ output.text_embeds.T / 0.07)
    torch.testing.assert_close(output.logits_per_text, output.logits_per_image.T)
    assert output.logit_scale.grad_fn is not None  # a loss outside `forward` trains the temperature


def test_one_modality_alone_and_without_logits():
    model, inputs = tiny_model().eval(), tiny_inputs()
    whole = model(**inputs, return_logits=False)
    assert whole.logits_per_image is None
    pixel_values = inputs.pop("pixel_values")
    torch.testing.assert_close(model(pixel_values=pixel_values).image_embeds, whole.image_embeds)
    torch.testing.assert_close(model(**inputs).text_embeds, whole.text_embeds)
    assert model(**inputs).image_embeds is None
    with pytest.raises(ValueError, match="give input_ids, pixel_values or both"):
        model()


def test_features_are_the_projections_before_they_are_normalised():
    model, inputs = tiny_model().eval(), tiny_inputs()
    output = model(**inputs)
    features = model.get_image_features(inputs["pixel_values"]).pooler_output
    pooled = model.vision_model(inputs["pixel_values"]).pooler_output.flatten(1)
    torch.testing.assert_close(features, pooled @ model.visual_projection.weight.T)
    torch.testing.assert_close(nn.functional.normalize(features, dim=1), output.image_embeds)
    text = model.get_text_features(inputs["input_ids"], inputs["attention_mask"]).pooler_output
    torch.testing.assert_close(nn.functional.normalize(text, dim=1), output.text_embeds)


@pytest.mark.parametrize(
    ("text", "vision"),
    [
        (DistilBertConfig(vocab_size=99, dim=32, hidden_dim=37, n_layers=2, n_heads=4), tiny_vision_config()),
        (GPT2Config(vocab_size=99, n_embd=32, n_layer=2, n_head=4), VIT),
        (
            CLIPTextConfig(
                vocab_size=99, hidden_size=32, intermediate_size=37, num_hidden_layers=2, num_attention_heads=4,
                eos_token_id=2,
            ),
            CLIPVisionConfig(
                hidden_size=32, intermediate_size=37, num_hidden_layers=2, num_attention_heads=4, image_size=32,
                patch_size=8,
            ),
        ),
        (
            tiny_text_config(),
            ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], num_stages=4),
        ),
        (
            tiny_text_config(),
            RegNetConfig(embedding_size=8, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], groups_width=8),
        ),
    ],
    ids=["distilbert-resnet", "gpt2-vit", "clip-clip", "bert-convnext", "bert-regnet"],
)  # fmt: skip
def test_other_towers_train_save_and_load(text, vision, tmp_path):
    torch.manual_seed(0)
    model = HFClipModel(HFClipConfig(text_config=text, vision_config=vision, projection_dim=16)).train()
    inputs = tiny_inputs()
    model(**inputs, return_loss=True).loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    model.eval().save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(loaded(**inputs).logits_per_image, model(**inputs).logits_per_image)


def test_projections():
    model = tiny_model(projection="mlp").eval()
    assert [type(part) for part in model.text_projection] == [nn.Linear, nn.GELU, nn.Linear]
    assert model(**tiny_inputs()).image_embeds.shape == (4, 16)
    none = tiny_model(
        text_config=tiny_text_config(hidden_size=40), projection="none", projection_dim=40, text_pooling="cls"
    ).eval()
    inputs = tiny_inputs()
    tower = none.text_model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
    features = none.get_text_features(inputs["input_ids"], inputs["attention_mask"]).pooler_output
    torch.testing.assert_close(features, tower.last_hidden_state[:, 0])
    with pytest.raises(ValueError, match="32 is not 16"):
        tiny_model(projection="none")


def test_a_pooling_that_the_tower_has_not_says_which_to_take():
    text = DistilBertConfig(vocab_size=99, dim=32, hidden_dim=37, n_layers=1, n_heads=4)
    with pytest.raises(ValueError, match="set its pooling to 'mean'"):
        tiny_model(text_config=text, text_pooling="pooler")


# ---- loading ------------------------------------------------------------------------------------------------------


def test_built_towers_and_named_towers_become_the_same_model(tower_folders):
    vision, text = tower_folders
    towers = {"vision_model": ResNetModel.from_pretrained(vision), "text_model": BertModel.from_pretrained(text)}
    torch.manual_seed(0)
    built = HFClipModel.from_vision_text_pretrained(**towers, projection_dim=16)
    torch.manual_seed(0)
    named = HFClipModel.from_vision_text_pretrained(vision, text, projection_dim=16)
    for (name, weight), other in zip(built.state_dict().items(), named.state_dict().values(), strict=True):
        if "projection" not in name:
            assert torch.equal(weight, other), name
    assert torch.equal(
        named.text_model.embeddings.word_embeddings.weight, towers["text_model"].embeddings.word_embeddings.weight
    )
    assert not any(name.startswith("text_model.pooler") for name in named.state_dict())
    assert named.config.text_width == 32
    assert named.config.vision_width == 40


def test_settings_reach_the_config_or_the_tower_or_are_refused(tower_folders):
    model = HFClipModel.from_vision_text_pretrained(
        *tower_folders, text_pooling="cls", text_attn_implementation="eager"
    )
    assert model.config.text_pooling == "cls"
    assert model.text_model.config._attn_implementation == "eager"
    with pytest.raises(TypeError, match="unknown setting 'projection_dims'"):
        HFClipModel.from_vision_text_pretrained(*tower_folders, projection_dims=3)
    with pytest.raises(ValueError, match="no text tower"):
        HFClipModel.from_vision_text_pretrained(tower_folders[0])


def test_single_towers_load_from_the_whole_folder_and_hold_only_their_half(tmp_path):
    model, inputs = tiny_model().eval(), tiny_inputs()
    model.save_pretrained(tmp_path)
    expected = model(**inputs)
    text, text_report = HFClipTextModelWithProjection.from_pretrained(tmp_path, output_loading_info=True)
    vision, vision_report = HFClipVisionModelWithProjection.from_pretrained(tmp_path, output_loading_info=True)
    for report in (text_report, vision_report):
        assert not report["missing_keys"]
        assert not report["unexpected_keys"]
    pixel_values = inputs.pop("pixel_values")
    assert torch.equal(text.eval()(**inputs).text_embeds, expected.text_embeds)
    assert torch.equal(vision.eval()(pixel_values).image_embeds, expected.image_embeds)
    assert {name.split(".")[0] for name in text.state_dict()} == {"text_model", "text_projection"}
    assert {name.split(".")[0] for name in vision.state_dict()} == {"vision_model", "visual_projection"}
    text.save_pretrained(tmp_path / "text")
    again = AutoModel.from_pretrained(tmp_path / "text")
    assert type(again) is HFClipTextModelWithProjection
    assert torch.equal(again.eval()(**inputs).text_embeds, expected.text_embeds)


def test_a_missing_temperature_is_set_to_its_start_not_to_garbage(tmp_path):
    model = tiny_model()
    weights = model.state_dict()
    del weights["logit_scale"]
    model.save_pretrained(tmp_path, state_dict=weights)
    assert HFClipModel.from_pretrained(tmp_path).logit_scale.item() == pytest.approx(math.log(1 / 0.07))


class Subclass(HFClipModel):
    """What a user may write."""

    def __init__(self, config, **towers):
        super().__init__(config, **towers)
        self.extra = nn.Linear(16, 3)
        self.post_init()


def test_a_user_s_subclass_saves_and_loads(tmp_path):
    model = Subclass(tiny_model().config).eval()
    model.save_pretrained(tmp_path)
    loaded = Subclass.from_pretrained(tmp_path).eval()
    assert torch.equal(loaded.extra.weight, model.extra.weight)
    inputs = tiny_inputs()
    assert torch.equal(loaded(**inputs).logits_per_image, model(**inputs).logits_per_image)


# ---- dtypes, devices, attention -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_logits_and_temperature_are_fp32_under_any_dtype(dtype, tmp_path):
    tiny_model().save_pretrained(tmp_path)
    model = HFClipModel.from_pretrained(tmp_path, dtype=dtype).eval()
    assert model.vision_model.dtype == model.text_projection.weight.dtype == dtype
    assert model.logit_scale.dtype == torch.float32
    output = model(**tiny_inputs())
    assert output.logits_per_image.dtype == output.logits_per_text.dtype == torch.float32
    assert output.image_embeds.dtype == dtype


def test_logits_are_fp32_under_autocast():
    model = tiny_model().eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(**tiny_inputs(), return_loss=True)
    assert output.logits_per_image.dtype == output.loss.dtype == torch.float32
    expected = math.exp(model.logit_scale.item()) * output.image_embeds.float() @ output.text_embeds.float().T
    torch.testing.assert_close(output.logits_per_image, expected)


def test_device_map(tmp_path):
    model, inputs = tiny_model().eval(), tiny_inputs()
    model.save_pretrained(tmp_path)
    loaded = HFClipModel.from_pretrained(tmp_path, device_map="auto").eval()
    assert torch.equal(loaded(**inputs).logits_per_image, model(**inputs).logits_per_image)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_attention_is_chosen_for_the_tower_that_has_it(attention, tmp_path):
    model, inputs = tiny_model().eval(), tiny_inputs()
    model.save_pretrained(tmp_path)
    loaded = HFClipModel.from_pretrained(tmp_path, attn_implementation=attention).eval()
    assert loaded.text_model.config._attn_implementation == attention
    assert loaded.vision_model.config._attn_implementation == "eager"
    torch.testing.assert_close(loaded(**inputs).logits_per_image, model(**inputs).logits_per_image)


def test_compiles_without_a_graph_break():
    model, inputs = tiny_model().eval(), tiny_inputs()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(**inputs).logits_per_image, model(**inputs).logits_per_image)
    model.train()
    loss = torch.compile(model, fullgraph=True, backend="aot_eager")(**inputs, return_loss=True).loss
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(("dim", "strict"), [(None, False), (torch.export.Dim.DYNAMIC, True)])
def test_exports_with_a_dynamic_batch(dim, strict):
    check_export(tiny_model().eval(), ["input_ids", "attention_mask", "pixel_values"], dim, strict)


def test_exports_without_a_mask_and_with_half_of_the_inputs():
    model = tiny_model(loss="sigmoid", projection="mlp").eval()
    for names in (["input_ids", "pixel_values"], ["input_ids"], ["pixel_values"]):
        check_export(model, names, torch.export.Dim.AUTO)


def test_each_half_exports_with_a_dynamic_batch():
    config = tiny_model().config
    check_export(HFClipTextModelWithProjection(config).eval(), ["input_ids", "attention_mask"])
    check_export(HFClipVisionModelWithProjection(config).eval(), ["pixel_values"])


class Features(nn.Module):
    def __init__(self, model: HFClipModel):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask, pixel_values):
        return {
            "texts": self.model.get_text_features(input_ids, attention_mask).pooler_output,
            "images": self.model.get_image_features(pixel_values).pooler_output,
        }


def test_features_export_with_a_dynamic_batch():
    check_export(Features(tiny_model().eval()), ["input_ids", "attention_mask", "pixel_values"])


@pytest.mark.parametrize("loss", ["infonce", "sigmoid"])
def test_the_loss_exports_with_a_dynamic_batch(loss):
    model, pairs = tiny_model(loss=loss).eval(), torch.export.Dim("pairs", min=2)  # beyond a tile of logits, too
    shapes = {name: {0: pairs} for name in tiny_inputs()} | {"return_loss": None}
    program = torch.export.export(model, (), tiny_inputs(3) | {"return_loss": True}, dynamic_shapes=shapes).module()
    for number in (2, 5, 1030):
        inputs = tiny_inputs(number)
        with torch.no_grad():
            expected = model(**inputs, return_loss=True).loss
            torch.testing.assert_close(program(**inputs, return_loss=True).loss, expected)


def test_a_compiled_model_takes_batches_of_any_size():
    torch.compiler.reset()
    model, graphs = tiny_model(text_pooling="last").eval(), CompileCounter()
    compiled = torch.compile(model, dynamic=True, fullgraph=True, backend=graphs)
    for sizes in ((6, 4, 7), (4, 5, 7), (5, 2, 9), (7, 6, 8)):
        inputs = batch_of(*sizes)
        with torch.no_grad():
            assert torch.equal(compiled(**inputs).logits_per_image, model(**inputs).logits_per_image)
    assert graphs.frame_count == 1


# ---- sigmoid ------------------------------------------------------------------------------------------------------


def test_a_sigmoid_model_adds_its_bias_and_keeps_it(tmp_path):
    model = tiny_model(loss="sigmoid").eval()
    output = model(**tiny_inputs(), return_loss=True)
    logits = 10 * output.image_embeds @ output.text_embeds.T - 10  # exp(ln 10) and SigLIP's first bias
    torch.testing.assert_close(output.logits_per_image, logits, rtol=1e-5, atol=1e-5)
    signs = 2 * torch.eye(4) - 1
    torch.testing.assert_close(output.loss, -torch.nn.functional.logsigmoid(signs * logits).sum() / 4)
    torch.nn.init.constant_(model.logit_bias, -3.25)
    model.save_pretrained(tmp_path)
    loaded = HFClipModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert loaded.logit_bias.dtype == torch.float32
    assert loaded.logit_bias.item() == -3.25
    assert HFClipModel(tiny_model().config).logit_bias is None


def test_a_sigmoid_loss_trains_its_bias():
    model = tiny_model(loss="sigmoid")
    model(**tiny_inputs(), return_loss=True).loss.backward()
    assert model.logit_bias.grad.abs() > 0
    assert model.logit_scale.grad.abs() > 0


# ---- batches without rows -----------------------------------------------------------------------------------------


def test_no_rows_give_no_embeddings_zero_gradients_and_leave_the_statistics():
    model = tiny_model().train()
    before = {name: value.clone() for name, value in model.named_buffers()}
    output = model(
        input_ids=torch.zeros(0, 1, dtype=torch.long),
        attention_mask=torch.zeros(0, 1, dtype=torch.long),
        pixel_values=torch.zeros(0, 3, 1, 1),
    )
    assert output.image_embeds.shape == output.text_embeds.shape == (0, 16)
    assert output.logits_per_image.shape == (0, 0)
    (output.image_embeds.sum() + output.text_embeds.sum() + 0 * output.logit_scale.sum()).backward()
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())
    for name, value in model.named_buffers():
        assert torch.equal(value, before[name]), name


# ---- a loss from outside ------------------------------------------------------------------------------------------


def test_a_model_that_was_never_trained_begins_where_its_loss_says():
    model = tiny_model()
    model.use_loss(TOY)
    assert (model.logit_scale.item(), model.logit_bias.item()) == (1.0, -0.5)
    assert {name: getattr(model.config, name) for name in TOY.settings()} == TOY.settings()
    assert model.logit_bias.requires_grad
    output = model(**tiny_inputs(), return_loss=True)
    expected = TOY(output.image_embeds, output.text_embeds, model.logit_scale, model.logit_bias) / 4
    torch.testing.assert_close(output.loss, expected)
    model.use_loss("infonce")
    assert (model.config.loss, model.logit_bias, model.config.logit_bias_init_value) == ("infonce", None, None)
    assert model.logit_scale.item() == pytest.approx(math.log(1 / 0.07))
    assert "logit_bias" not in model.state_dict()


def test_a_temperature_that_was_trained_stays():
    model = tiny_model()
    with torch.no_grad():
        model.logit_scale.fill_(3.0)
    model.use_loss(TOY)
    assert (model.logit_scale.item(), model.logit_bias.item(), model.config.logit_scale_max) == (3.0, -0.5, 1.01)


def test_a_bias_that_was_never_trained_begins_where_the_loss_says_and_a_trained_one_stays():
    untrained, trained = tiny_model(loss="sigmoid"), tiny_model(loss="sigmoid")
    with torch.no_grad():
        trained.logit_bias.fill_(-4.0)
    for model in (untrained, trained):
        model.use_loss(TOY)
    assert (untrained.logit_bias.item(), trained.logit_bias.item()) == (-0.5, -4.0)
    assert untrained.logit_scale.item() == trained.logit_scale.item() == 1.0


def test_settings_stay_with_a_loss_of_the_same_name_and_a_warning_says_which(caplog, monkeypatch):
    monkeypatch.setattr(logging.get_logger("hf_clip"), "propagate", True)
    model = tiny_model(**(TOY.settings() | {"logit_scale_max": None, "logit_scale_init_value": 2.0}))
    model.use_loss(TOY)
    assert (model.config.logit_scale_max, model.logit_scale.item()) == (None, 2.0)
    assert "which stay: logit_scale_init_value=2.0, logit_scale_max=None: set them in model.config" in caplog.text


def test_opened_with_another_loss_it_is_a_model_of_that_one(tmp_path):
    for loss, other in (("infonce", "sigmoid"), ("sigmoid", "infonce")):
        tiny_model(loss=loss).save_pretrained(tmp_path / loss)
        for opened in (HFClipModel.from_pretrained, AutoModel.from_pretrained):
            model = opened(tmp_path / loss, loss=other)
            assert {name: getattr(model.config, name) for name in LOSSES[other].settings()} == LOSSES[other].settings()
            assert (model.logit_bias is not None) == (other == "sigmoid")
            assert model(**tiny_inputs(), return_loss=True).loss.isfinite()
        model.save_pretrained(tmp_path / other)
        assert HFClipModel.from_pretrained(tmp_path / other).config.loss == other


def test_images_and_texts_that_are_no_pairs_have_no_loss():
    model, inputs = tiny_model(), tiny_inputs(4)
    model.use_loss(TOY)
    fewer = {name: inputs[name][:3] for name in ("input_ids", "attention_mask")}
    with pytest.raises(ValueError, match="4 images and 3 captions are no pairs"):
        model(**(inputs | fewer), return_loss=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probabilities": "softmax"}, "its probabilities were 'sigmoid', not 'softmax'"),
        ({"logit_bias_init_value": None}, "it had a logit_bias: give this one another name"),
        ({"name": "infonce"}, "'infonce' is a loss of hf_clip's: give yours another name"),
    ],
)
def test_another_loss_of_a_name_that_is_taken_is_refused(change, message):
    model = tiny_model(**TOY.settings())
    with pytest.raises(ValueError, match=message):
        model.use_loss(dataclasses.replace(TOY, **change))
    assert model.own_loss is None


@torch.no_grad()
def test_opened_without_its_loss_it_embeds_and_has_its_probabilities_and_says_what_is_missing(tmp_path):
    model = tiny_model().eval()
    model.use_loss(TOY)
    model.save_pretrained(tmp_path)
    opened = HFClipModel.from_pretrained(tmp_path)
    found, expected = opened(**tiny_inputs()), model(**tiny_inputs())
    assert torch.equal(found.logits_per_image, expected.logits_per_image)
    assert torch.equal(opened.probabilities(found.logits_per_image), expected.logits_per_image.sigmoid())
    assert {name: getattr(opened.config, name) for name in TOY.settings()} == TOY.settings()
    with pytest.raises(
        ValueError,
        match=r"made for the loss 'toy_hinge', which is not here: give it with model\.use_loss\(…\) or HFClipTrainer",
    ):
        opened(**tiny_inputs(), return_loss=True)
    opened.use_loss(TOY)
    assert torch.equal(opened(**tiny_inputs(), return_loss=True).loss, model(**tiny_inputs(), return_loss=True).loss)


def test_probabilities_are_as_the_loss_has_them():
    logits = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    softmax, sigmoid, sure = tiny_model(), tiny_model(loss="sigmoid"), 1 / (1 + math.exp(-1))
    assert softmax.probabilities(logits).tolist() == [pytest.approx([1 - sure, sure]), [0.5, 0.5]]
    assert sigmoid.probabilities(logits).tolist() == [pytest.approx([sure, 1 / (1 + math.exp(-2))]), [0.5, 0.5]]
