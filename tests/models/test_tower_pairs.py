"""Towers of every kind, each with a plain partner: they train, are checkpointed, saved, and opened by a stranger."""

import copy

import pytest
import torch
import transformers as t
from conftest import tiny_inputs, tiny_text_config, tiny_vision_config
from model_checks import bytes_saved_for_backward, check_export
from strangers import run_stranger
from torch.nn.modules.batchnorm import _BatchNorm

from hf_clip import HFClipConfig, HFClipModel
from hf_clip.models.configuration_hf_clip import POOLINGS

SIZE = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
WORDS = {"vocab_size": 99, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
PATCHES = SIZE | {"image_size": 32, "patch_size": 8}
STAGES = {"hidden_sizes": [8, 16, 24, 32], "depths": [2, 2, 2, 2]}

# name → (configuration, the pooling it is to get)
TEXT = {
    "bert": lambda: (tiny_text_config(), "mean"),
    "roberta": lambda: (t.RobertaConfig(**SIZE, **STILL, **WORDS), "mean"),
    "xlm-roberta": lambda: (t.XLMRobertaConfig(**SIZE, **STILL, **WORDS), "mean"),
    "distilbert": lambda: (
        t.DistilBertConfig(vocab_size=99, dim=32, hidden_dim=64, n_layers=3, n_heads=4, dropout=0),
        "mean",
    ),
    "mpnet": lambda: (t.MPNetConfig(**SIZE, **STILL, **WORDS), "mean"),
    "electra": lambda: (t.ElectraConfig(embedding_size=16, **SIZE, **STILL, **WORDS), "mean"),
    "deberta-v2": lambda: (
        t.DebertaV2Config(
            relative_attention=True, position_buckets=8, pos_att_type=["p2c", "c2p"], **SIZE, **STILL, **WORDS
        ),
        "mean",
    ),
    "modernbert": lambda: (
        t.ModernBertConfig(**SIZE, **WORDS, sep_token_id=2, cls_token_id=1, local_attention=8),
        "mean",
    ),
    "gpt2": lambda: (
        t.GPT2Config(
            vocab_size=99, n_positions=64, n_embd=32, n_layer=3, n_head=4, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0,
            bos_token_id=1, eos_token_id=2,
        ),
        "last",
    ),
    "t5": lambda: (
        t.T5Config(vocab_size=99, d_model=32, d_kv=8, d_ff=64, num_layers=3, num_heads=4, dropout_rate=0.0),
        "mean",
    ),
    "bart": lambda: (
        t.BartConfig(
            d_model=32, encoder_layers=3, decoder_layers=1, encoder_attention_heads=4, decoder_attention_heads=4,
            encoder_ffn_dim=64, decoder_ffn_dim=64, dropout=0.0, **WORDS,
        ),
        "mean",
    ),
    "clip": lambda: (t.CLIPTextConfig(**SIZE, **WORDS), "pooler"),
    "siglip": lambda: (t.SiglipTextConfig(**SIZE, **WORDS), "pooler"),
}  # fmt: skip


def timm_config(architecture: str, **arguments) -> t.TimmWrapperConfig:
    return t.TimmWrapperConfig(
        architecture=architecture, model_args=arguments, pretrained_cfg={"input_size": [3, 32, 32]}
    )


VISION = {
    "resnet": lambda: (tiny_vision_config("bottleneck", depths=[2, 2, 2, 2]), "pooler"),
    "regnet": lambda: (t.RegNetConfig(embedding_size=8, groups_width=8, **STAGES), "pooler"),
    "convnext": lambda: (t.ConvNextConfig(**STAGES), "pooler"),
    "efficientnet": lambda: (
        t.EfficientNetConfig(
            width_coefficient=0.5, hidden_dim=640, drop_connect_rate=0.0, in_channels=[32, 16, 24],
            out_channels=[16, 24, 40], kernel_sizes=[3, 3, 5], strides=[1, 2, 2], num_block_repeats=[1, 2, 2],
            expand_ratios=[1, 6, 6],
        ),
        "pooler",
    ),
    "mobilenet_v2": lambda: (t.MobileNetV2Config(depth_multiplier=0.35), "pooler"),
    "poolformer": lambda: (
        t.PoolFormerConfig(
            **STAGES, strides=[2, 2, 2, 2], drop_path_rate=0.0, layer_scale_init_value=0.1
        ),
        "mean",
    ),
    "vit": lambda: (t.ViTConfig(**PATCHES, **STILL), "cls"),
    "dinov2": lambda: (t.Dinov2Config(**PATCHES, drop_path_rate=0.0), "cls"),
    "swin": lambda: (
        t.SwinConfig(
            image_size=32, patch_size=2, embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4,
            drop_path_rate=0.0, **STILL,
        ),
        "pooler",
    ),
    "vit_mae": lambda: (t.ViTMAEConfig(**PATCHES, **STILL), "cls"),
    "clip": lambda: (t.CLIPVisionConfig(**PATCHES), "pooler"),
    "siglip": lambda: (t.SiglipVisionConfig(**PATCHES), "pooler"),
    "timm-resnet": lambda: (timm_config("resnet18"), "pooler"),
    "timm-vit": lambda: (timm_config("test_vit", img_size=32, patch_size=8, depth=4), "pooler"),
}  # fmt: skip
TOWERS = [f"{side} {name}" for side, towers in (("text", TEXT), ("vision", VISION)) for name in towers]


def pair(name: str, **settings) -> HFClipModel:
    """A model of the tower beside a plain one of the other side."""
    side, name = name.split()
    towers = {"text_config": tiny_text_config(), "vision_config": tiny_vision_config()}
    towers[f"{side}_config"] = {"text": TEXT, "vision": VISION}[side][name]()[0]
    torch.manual_seed(0)
    return HFClipModel(HFClipConfig(**towers, projection_dim=16, **settings))


def inputs_for(pairs: int = 6) -> dict[str, torch.Tensor]:
    """No token is one of the special ones, but for the end of each text."""
    inputs = tiny_inputs(pairs)
    ends = inputs["attention_mask"].sum(1) - 1
    inputs["input_ids"][torch.arange(pairs), ends] = 2
    return inputs


@pytest.mark.parametrize("name", TOWERS)
def test_pooling_is_what_the_tower_was_trained_with(name):
    side, tower = name.split()
    config, pooling = {"text": TEXT, "vision": VISION}[side][tower]()
    assert getattr(HFClipConfig(**{f"{side}_config": config}), f"{side}_pooling") == pooling


@pytest.mark.parametrize("name", TOWERS)
def test_a_step_changes_every_parameter_that_is_to_learn(name):
    model = pair(name).train()
    before = {key: p.clone() for key, p in model.named_parameters()}
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=1e-2, eps=1e-30, weight_decay=0.0
    )
    model(**inputs_for(), return_loss=True).loss.backward()
    optimizer.step()
    for key, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, key
        assert torch.equal(parameter, before[key]) != parameter.requires_grad, key
    assert sum(not p.requires_grad for p in model.parameters()) <= 3


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("name", TOWERS)
def test_checkpointing_saves_memory_and_changes_nothing_else(name, use_reentrant):
    plain = pair(name).train()
    checkpointed = copy.deepcopy(plain)
    checkpointed.activation_checkpointing_enable({"use_reentrant": use_reentrant})
    inputs = inputs_for()
    modalities = {"text": ["input_ids", "attention_mask"], "vision": ["pixel_values"]}[name.split()[0]]
    only = {key: inputs[key] for key in modalities}
    side = f"{name.split()[0]}_model"
    assert bytes_of(checkpointed, only) < 0.8 * bytes_of(plain, only)
    for model in (plain, checkpointed):
        model.zero_grad()
        model.load_state_dict(pair(name).state_dict())
        assert bytes_saved_for_backward(model, inputs) > 0
    for (key, parameter), other in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        torch.testing.assert_close(other.grad, parameter.grad, rtol=1e-4, atol=1e-5, msg=key)
    for (key, buffer), other in zip(plain.named_buffers(), checkpointed.buffers(), strict=True):
        assert torch.equal(buffer, other), key
    norms = [m for m in getattr(checkpointed, side).modules() if isinstance(m, _BatchNorm)]
    assert {int(norm.num_batches_tracked) for norm in norms} <= {1}


# Of those whose own output knows no pooler, that keep a cache, that pool the last token, or look at values.
EXPORTED = [
    "text distilbert",
    "text gpt2",
    "text t5",
    "text clip",
    "vision vit",
    "vision siglip",
    "vision timm-resnet",
]


@pytest.mark.parametrize(
    "name", [*EXPORTED, *(pytest.param(n, marks=pytest.mark.slow) for n in TOWERS if n not in EXPORTED)]
)
def test_exports_with_a_dynamic_batch(name):
    names = ["input_ids", "attention_mask"] if name.startswith("text") else ["pixel_values"]
    check_export(pair(name).eval(), names)


def bytes_of(model: HFClipModel, inputs: dict) -> int:
    saved = {}
    weights = {p.untyped_storage().data_ptr() for p in [*model.parameters(), *model.buffers()]}

    def note(tensor):
        saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = model(**inputs)
    kept = [tensor.untyped_storage().nbytes() for pointer, tensor in saved.items() if pointer not in weights]
    (output.image_embeds if "pixel_values" in inputs else output.text_embeds).sum().backward()
    return sum(kept)


STRANGER = """
import pathlib
import torch
from transformers import AutoModel

inputs = torch.load("inputs.pt")
for folder in sorted(path for path in pathlib.Path("models").iterdir()):
    model = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
    assert type(model).__module__.startswith("transformers_modules")
    with torch.no_grad():
        output = model(**inputs)
        features = [model.get_text_features(inputs["input_ids"], inputs["attention_mask"]).pooler_output,
                    model.get_image_features(inputs["pixel_values"]).pooler_output]
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    torch.save([output.text_embeds, output.image_embeds, *features, frozen], folder / "result.pt")
"""


def test_a_stranger_s_embeddings_are_the_same_to_the_bit(tmp_path, monkeypatch):
    """And he, or who has hf_clip, opens them without an example that has to tell which parameters are used."""
    models, inputs = {name: pair(name).eval() for name in TOWERS}, inputs_for()
    for name, model in models.items():
        model.save_pretrained(tmp_path / "models" / name.replace(" ", "_"))
    torch.save(inputs, tmp_path / "inputs.pt")
    run_stranger(STRANGER, folder=tmp_path)
    monkeypatch.setattr("hf_clip.models.towers_hf_clip._run_example", None)
    for name in models:
        folder = tmp_path / "models" / name.replace(" ", "_")
        *found, frozen = torch.load(folder / "result.pt")
        model = HFClipModel.from_pretrained(folder).eval()  # where weights of a file lie, some CPUs round by
        with torch.no_grad():
            output = model(**inputs)
            expected = [
                output.text_embeds,
                output.image_embeds,
                model.get_text_features(inputs["input_ids"], inputs["attention_mask"]).pooler_output,
                model.get_image_features(inputs["pixel_values"]).pooler_output,
            ]
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True)), name
        for each in (model, models[name]):
            assert frozen == [key for key, p in each.named_parameters() if not p.requires_grad], name


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("name", ["vision vit", "vision dinov2", "vision clip", "text clip", "text roberta"])
def test_no_pooling_leaves_a_parameter_waiting_for_a_gradient(name, pooling):
    model = pair(name, **{f"{name.split()[0]}_pooling": pooling}).train()
    model(**inputs_for(), return_loss=True).loss.backward()
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_last_token_is_found_on_either_side_of_the_padding(side):
    model, ids = pair("text gpt2").eval(), torch.tensor([[5, 9, 7]])
    alone = model(input_ids=ids, attention_mask=torch.ones_like(ids)).text_embeds
    around = (4, 0) if side == "left" else (0, 4)
    padded = [torch.nn.functional.pad(part, around) for part in (ids, torch.ones_like(ids))]
    torch.testing.assert_close(model(input_ids=padded[0], attention_mask=padded[1]).text_embeds, alone)


def test_the_mean_over_a_picture_counts_patches_alone():
    for name in ("vision vit", "vision timm-vit", "vision dinov2"):
        model, pixels = pair(name, vision_pooling="mean").eval(), inputs_for()["pixel_values"]
        patches = model.vision_model(pixels).last_hidden_state[:, 1:].mean(1)
        expected = torch.nn.functional.normalize(model.visual_projection(patches), dim=1)
        torch.testing.assert_close(model(pixel_values=pixels).image_embeds, expected)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_vit_mae_sees_the_whole_image_and_always_the_same(pooling, tmp_path):
    model, pixels = pair("vision vit_mae", vision_pooling=pooling).eval(), inputs_for()["pixel_values"]
    with torch.no_grad():
        first, again = (model(pixel_values=pixels).image_embeds for _ in range(2))
        pixels[:, :, -1] += 1  # a row of pixels of the last patches
        assert torch.equal(first, again)
        assert (model(pixel_values=pixels).image_embeds - first).abs().amax(1).min() > 1e-5
    model.save_pretrained(tmp_path)
    assert HFClipConfig.from_pretrained(tmp_path).vision_config.mask_ratio == 0


def test_cvt_is_pooled_by_its_class_token_trains_and_is_checkpointed():
    torch.manual_seed(0)
    config = t.CvtConfig(embed_dim=[8, 16, 24], num_heads=[1, 2, 3], depth=[1, 2, 3], drop_path_rate=[0.0] * 3)
    model = HFClipModel(HFClipConfig(text_config=tiny_text_config(), vision_config=config, projection_dim=16)).eval()
    pixels = inputs_for()["pixel_values"]
    token = model.vision_model(pixels).cls_token_value[:, 0]
    torch.testing.assert_close(model.get_image_features(pixels).pooler_output, model.visual_projection(token))
    plain = bytes_saved_for_backward(model.train(), inputs_for())
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())
    model.activation_checkpointing_enable()
    assert bytes_saved_for_backward(model, inputs_for()) < 0.9 * plain


def test_hgnet_is_pooled_over_the_last_of_its_maps():
    torch.manual_seed(0)
    config = t.HGNetV2Config(
        embedding_size=8, hidden_sizes=[8, 16, 16, 24], stem_channels=[3, 8, 8], stage_in_channels=[8, 8, 16, 16],
        stage_mid_channels=[8, 8, 8, 8], stage_out_channels=[8, 16, 16, 24], stage_num_blocks=[1, 1, 1, 1],
        depths=[1, 1, 1, 1],
    )  # fmt: skip
    model = HFClipModel(HFClipConfig(text_config=tiny_text_config(), vision_config=config, projection_dim=16)).eval()
    pixels = inputs_for()["pixel_values"]
    pooled = model.vision_model(pixels).feature_maps[-1].mean((2, 3))
    torch.testing.assert_close(model.pool_image(pixels), pooled)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (lambda: t.Siglip2VisionConfig(**SIZE), "NaFlex"),
        (lambda: t.VideoMAEConfig(**PATCHES, num_frames=4), "reads videos, of 4 frames"),
        (lambda: t.ImageGPTConfig(n_embd=32, n_layer=1, n_head=4), "reads input_ids, and an image tower pixel_values"),
        (lambda: t.Wav2Vec2Config(), "reads input_values"),
        (lambda: TEXT["gpt2"]()[0], "no image tower but a text tower: were they exchanged"),
    ],
    ids=["siglip2", "videomae", "imagegpt", "wav2vec2", "gpt2"],
)
def test_a_tower_that_reads_something_else_is_refused_with_the_reason(config, reason):
    with pytest.raises(ValueError, match=reason):
        HFClipModel(HFClipConfig(text_config=tiny_text_config(), vision_config=config()))


def test_a_fault_of_our_own_is_not_called_the_tower_s(monkeypatch):
    def broken(*_):
        raise AttributeError("a fault of our own")

    monkeypatch.setattr("hf_clip.models.towers_hf_clip.pool", broken)
    with pytest.raises(AttributeError, match="a fault of our own"):
        pair("vision vit")


def test_a_siglip_text_tower_reads_its_padding():
    model, inputs = pair("text siglip").eval(), inputs_for()
    tower = model.text_model(input_ids=inputs["input_ids"]).pooler_output
    features = model.get_text_features(inputs["input_ids"], inputs["attention_mask"]).pooler_output
    torch.testing.assert_close(features, model.text_projection(tower))
