"""Checkpoints of transformers carried over: their own classes say what the logits, losses and gradients have to be."""

import copy
import json
import math
import pickle
from pathlib import Path

import pytest
import torch
import training_runs
import transformers as t
from conftest import tiny_model, write_pictures
from safetensors.torch import load_file, save_file
from source_models import (
    CAPTIONS,
    SOURCES,
    WORDS,
    assert_same,
    clip,
    dual,
    make_processor,
    make_tokenizer,
    pictures,
    save,
    siglip,
    their_inputs,
    vit,
)
from training_runs import make_trainer
from transformers import AutoModel, AutoProcessor, pipeline

from hf_clip.core.errors import InputError
from hf_clip.models.conversion import (
    convert_model,
    convert_model_and_processor,
    example_logits,
    open_checkpoint,
    relative_difference,
)


@pytest.mark.parametrize("name", SOURCES)
def test_logits_are_the_sources_here_and_once_saved(name, tmp_path):
    source = SOURCES[name]()
    folder = save(tmp_path / "source", source)
    model, processor = convert_model_and_processor(folder)
    inputs = their_inputs(folder)
    ours = processor(images=pictures(), text=CAPTIONS, return_tensors="pt")
    for key, value in inputs.items():
        assert torch.equal(ours[key], value), key
    with torch.no_grad():
        expected = source(**inputs)
        assert_same(model(**ours), expected)
        model.save_pretrained(tmp_path / "ours")
        processor.save_pretrained(tmp_path / "ours")
        again = AutoModel.from_pretrained(tmp_path / "ours", trust_remote_code=True)
        reader = AutoProcessor.from_pretrained(tmp_path / "ours", trust_remote_code=True)
        assert_same(again(**reader(images=pictures(), text=CAPTIONS, return_tensors="pt")), expected)
    assert str(tmp_path) not in "".join(file.read_text() for file in (tmp_path / "ours").glob("*.json"))


@pytest.mark.parametrize("name", SOURCES)
def test_nothing_is_added(name):
    source, model = SOURCES[name](), convert_model(SOURCES[name]())
    theirs, ours = source.state_dict(), model.state_dict()
    assert theirs.keys() == ours.keys()  # a SigLIP has no projections
    for key, weight in theirs.items():
        assert torch.equal(ours[key], weight.reshape(ours[key].shape)), key
    assert model.config.logit_scale_max is None
    assert not model.training


def test_it_lies_where_the_source_does():
    """A device that every machine has stands for a GPU."""
    for name in ("clip", "siglip"):
        model = convert_model(SOURCES[name]().to("meta"))
        assert {each.device.type for each in model.state_dict().values()} == {"meta"}


def test_the_source_stays_as_it_is():
    source = SOURCES["bert × vit"]()
    before = copy.deepcopy(source.state_dict())
    model = convert_model(source)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert all(torch.equal(weight, before[key]) for key, weight in source.state_dict().items())
    assert all(parameter.requires_grad for parameter in source.parameters())


@pytest.mark.parametrize("name", SOURCES)
def test_loss_and_gradients_are_the_sources(name, tmp_path):
    source = SOURCES[name]()
    model = convert_model(source)
    inputs = their_inputs(save(tmp_path, source))
    expected, found = source(**inputs, return_loss=True).loss, model(**inputs, return_loss=True).loss
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    expected.backward()
    found.backward()
    theirs = {key: p.grad for key, p in source.named_parameters() if p.grad is not None}
    ours = {key: p.grad for key, p in model.named_parameters() if p.grad is not None}
    assert theirs.keys() == ours.keys()
    least = 1e-3 * max(float(gradient.abs().max()) for gradient in theirs.values())
    for key, gradient in theirs.items():  # a bias of the keys has none but rounding: no loss depends on it
        scale = max(float(gradient.abs().max()), least)
        found = ours[key].reshape(gradient.shape)
        torch.testing.assert_close(found / scale, gradient / scale, rtol=0, atol=1e-4, msg=key)
    assert ours["logit_scale"].abs() > 0


@pytest.mark.parametrize("name", ["clip", "siglip", "bert × vit"])
def test_it_can_be_trained_on_without_a_cap(name, tmp_path):
    model, processor = convert_model_and_processor(save(tmp_path / "source", SOURCES[name]()))
    before = {key: parameter.detach().clone() for key, parameter in model.named_parameters()}
    data = write_pictures(tmp_path / "pictures")
    words = training_runs.make_processor(tmp_path / "words")
    words.text_padding, words.max_text_length = processor.text_padding, 16
    settings = {"max_steps": 2, "weight_decay": 0.1, "trainer": {"processing_class": words}}
    trainer = make_trainer(tmp_path / "run", data, model=model, **settings)
    trainer.train()
    unmoved = [key for key, p in model.named_parameters() if p.requires_grad and torch.equal(p.detach(), before[key])]
    # A key's bias adds the same to every logit of an attention: no loss depends on it. Some words were not said.
    assert all("k_proj.bias" in key or "key.bias" in key for key in unmoved), unmoved
    assert "logit_scale" not in unmoved
    assert model.logit_scale.item() == pytest.approx(math.log(150), abs=0.01)


def test_the_zero_shot_pipeline_answers_as_before(tmp_path):
    folder = save(tmp_path / "source", clip())
    model, processor = convert_model_and_processor(folder)
    model.save_pretrained(tmp_path / "ours")
    processor.save_pretrained(tmp_path / "ours")
    asked = {"image": pictures(3), "candidate_labels": ["cat", "a dog", "the sea and a boat"]}
    before, after = (
        pipeline("zero-shot-image-classification", model=str(name))(**asked) for name in (folder, tmp_path / "ours")
    )
    assert [[entry["label"] for entry in row] for row in after] == [[e["label"] for e in row] for row in before]
    for row, expected in zip(after, before, strict=True):
        assert [e["score"] for e in row] == pytest.approx([e["score"] for e in expected], abs=1e-5)
    assert len({row[0]["label"] for row in after}) > 1 or after[0][0]["score"] != after[1][0]["score"]


@pytest.mark.parametrize(
    ("source", "told", "padding", "length"),
    [
        (clip, 20, "longest", 20),
        (clip, 77, "longest", 24),
        (clip, None, "longest", 24),
        (siglip, None, "max_length", 64),
        (siglip, 16, "max_length", 16),
        (lambda: siglip(positions=48), None, "max_length", 48),
        (lambda: siglip(positions=128), None, "max_length", 64),
        (lambda: siglip(positions=128), 100, "max_length", 100),
        (SOURCES["bert × vit"], 512, "longest", 40),
    ],
)
def test_texts_are_padded_and_cut_as_the_source_was_trained(source, told, padding, length, tmp_path):
    _, processor = open_checkpoint(save(tmp_path, source(), length=told))
    assert (processor.text_padding, processor.max_text_length) == (padding, length)
    tokens = processor(text=["a", "a b"])["input_ids"]
    assert [len(ids) for ids in tokens] == ([4, 4] if padding == "longest" else [length, length])
    assert len(processor(text="a " * 200)["input_ids"]) == length


def test_a_siglip_reads_its_padding_where_its_tokenizer_gives_a_mask_too(tmp_path):
    source = siglip()
    folder = save(tmp_path, source)
    expected = their_inputs(folder)
    make_tokenizer(20).save_pretrained(folder)
    model, processor = convert_model_and_processor(folder)
    inputs = processor(images=pictures(), text=CAPTIONS, return_tensors="pt")
    assert inputs["attention_mask"].min() == 0
    with torch.no_grad():
        assert_same(model(**inputs), source(**expected))


@pytest.mark.parametrize("name", ["clip", "siglip", "bert × vit"])
def test_half_precision_becomes_fp32_from_a_folder_and_stays_in_memory(name, tmp_path):
    source = SOURCES[name]().to(torch.bfloat16)
    folder = save(tmp_path / "source", source)
    model, _ = convert_model_and_processor(folder)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    in_memory = convert_model(source)
    temperature = {"logit_scale", "logit_bias"}
    dtypes = {parameter.dtype for key, parameter in in_memory.named_parameters() if key not in temperature}
    assert dtypes == {torch.bfloat16}
    assert in_memory.logit_scale.dtype == torch.float32
    inputs = their_inputs(folder)
    with torch.no_grad():
        expected = source(**inputs | {"pixel_values": inputs["pixel_values"].bfloat16()}).text_embeds
        torch.testing.assert_close(in_memory(**inputs).text_embeds, expected, atol=0.02, rtol=0)


def test_old_files(tmp_path):
    """`pytorch_model.bin` with the positions that were once saved, and the image processor in a file of its own."""
    source = clip()
    folder = Path(save(tmp_path / "source", source))
    (folder / "processor_config.json").unlink()
    make_processor(source).image_processor.save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weights["text_model.embeddings.position_ids"] = torch.arange(24)[None]
    torch.save(weights, folder / "pytorch_model.bin")
    model, processor = convert_model_and_processor(str(folder))
    inputs = make_processor(source)(images=pictures(), text=CAPTIONS, padding=True, return_tensors="pt")
    ours = processor(images=pictures(), text=CAPTIONS, return_tensors="pt")
    assert torch.equal(ours["pixel_values"], inputs["pixel_values"])
    with torch.no_grad():
        assert_same(model(**ours), source(**inputs))


class Code:
    def __reduce__(self):
        return (Path.touch, (Path("code_was_run"),))


def test_code_in_weights_is_not_run(tmp_path, monkeypatch):
    folder = Path(save(tmp_path / "source", clip()))
    (folder / "model.safetensors").unlink()
    torch.save({"logit_scale": Code()}, folder / "pytorch_model.bin")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="code that they may hold is not run: save it again as safetensors"):
        convert_model_and_processor(str(folder))
    assert not (tmp_path / "code_was_run").exists()
    with (folder / "pytorch_model.bin").open("rb") as file, pytest.raises(pickle.UnpicklingError):
        torch.load(file, weights_only=True)


PAIR = {"text_config": {}, "vision_config": {}}
REFUSED = {
    "chinese_clip": PAIR,
    "altclip": PAIR,
    "blip": PAIR,
    "align": PAIR,
    "clipseg": PAIR,
    "xclip": PAIR,
    "flava": {"text_config": {}, "image_config": {}},
    "owlvit": PAIR,
    "groupvit": PAIR,
    "metaclip_2": PAIR,
    "unheard_of": PAIR,
}


@pytest.mark.parametrize("kind", REFUSED)
def test_other_pairs_are_refused_by_name(kind, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(REFUSED[kind] | {"model_type": kind}))
    message = f"is of the type {kind}, which computes its logits in its own way: only CLIPModel, SiglipModel "
    with pytest.raises(InputError, match=message):
        convert_model_and_processor(str(tmp_path))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "siglip2"} | PAIR, r"is of the type siglip2, which reads .* of any shape \(NaFlex;"),
        (
            {"model_type": "clip_vision_model"},
            "is of the type clip_vision_model, which is no pair .*as --vision_model or --text",
        ),
        ({"model_type": "bert"}, "is of the type bert, which is no pair"),
        ({"model_type": "hf_clip"}, "is an HFClip model already: hf-clip train --model"),
        ({"model_type": "clip", "auto_map": {"AutoModel": "my_clip.MyCLIP"}}, r"needs code of its own \(my_clip.My"),
        (
            {"model_type": "vision-text-dual-encoder", "text_config": {"auto_map": {"AutoModel": "a--b.C"}}},
            r"needs code of its own \(a--b.C\)",
        ),
        (
            {"model_type": "jina_clip", "auto_map": {"AutoModel": "my_clip.MyCLIP"}},
            "is of the type jina_clip, which needs code of its own",
        ),
        (
            {"model_type": "vision-text-dual-encoder", "text_config": {"model_type": "unheard_of"}},
            "has a tower of the type unheard_of, which transformers does not know",
        ),
        ({"model_type": "clip", "quantization_config": {}}, "has quantized weights"),
        ({"text_config": {}}, "has no config.json with a model_type: give a checkpoint of CLIPModel"),
        (None, "has no config.json with a model_type"),
    ],
)
def test_what_is_no_checkpoint_of_the_three_is_refused(config, message, tmp_path):
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=message):
        convert_model_and_processor(str(tmp_path))


def test_foreign_folders_are_named(tmp_path):
    (tmp_path / "open_clip").mkdir()
    (tmp_path / "open_clip" / "open_clip_config.json").write_text('{"model_cfg": {}}')
    with pytest.raises(InputError, match="is an open_clip model, which is not in transformers' format"):
        convert_model_and_processor(str(tmp_path / "open_clip"))
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(InputError, match="is a PEFT adapter: merge it into its model"):
        convert_model_and_processor(str(tmp_path / "adapter"))
    with pytest.raises(InputError, match="'no/such' cannot be carried over"):
        convert_model_and_processor("no/such")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda w: w.pop("logit_scale"), r"lacks 'logit_scale' \(1 in all\)"),
        (lambda w: [w.pop(k) for k in list(w) if "text" in k], r"lacks 'text_model.*' \(\d\d in all\)"),
        (lambda w: w.update({"gate.weight": torch.ones(2)}), r"holds what has no place in it: 'gate.weight'"),
        (lambda w: w.update({"text_projection.weight": torch.ones(16, 31)}), "has another shape of 'text_projection"),
    ],
)
def test_checkpoints_of_other_weights_are_refused(change, fault, tmp_path):
    folder = save(tmp_path, clip())
    weights = load_file(tmp_path / "model.safetensors")
    change(weights)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=f"is no whole CLIPModel: it {fault}"):
        convert_model_and_processor(folder)


@pytest.mark.parametrize(
    ("missing", "message"),
    [("tokenizer", "has no tokenizer: save its processor"), ("processor_config", r"\(Can't load image processor")],
)
def test_half_a_processor_is_refused(missing, message, tmp_path):
    folder = save(tmp_path, clip())
    for file in tmp_path.glob(f"{missing}*"):
        file.unlink()
    with pytest.raises(InputError, match=message):
        convert_model_and_processor(folder)


def test_a_pair_that_transformers_cannot_run_is_refused(tmp_path):
    """A DistilBERT has no pooler: such a checkpoint can be saved and opened, and fails on its first text."""
    text = t.DistilBertConfig(vocab_size=WORDS["vocab_size"], dim=32, hidden_dim=64, n_layers=1, n_heads=4)
    folder = save(tmp_path, dual(vit(), text))
    with pytest.raises(InputError, match="the VisionTextDualEncoderModel of vit and distilbert does not run"):
        convert_model_and_processor(folder)


def test_built_models_of_other_classes_are_refused():
    with pytest.raises(InputError, match="a HFClipModel cannot be carried over: only CLIPModel"):
        convert_model(tiny_model())
    with pytest.raises(
        InputError, match="'user/clip' is a name: open and convert it with convert_model_and_processor"
    ):
        convert_model("user/clip")
    source = clip()
    source._hf_peft_config_loaded = True  # what its `add_adapter` notes
    with pytest.raises(InputError, match="a CLIPModel with an adapter cannot be carried over: merge it first"):
        convert_model(source)


def test_a_difference_is_measured_and_refused(processor):
    model = tiny_model().eval()
    logits = example_logits(model, processor)
    assert logits.shape == (4, 4)
    assert relative_difference(logits, logits) == 0
    other = logits.clone()
    other[1, 2] += 4e-6 * logits.abs().max()
    assert relative_difference(other, logits) == pytest.approx(4e-6, rel=0.1)
    other[1, 2] += 2e-5 * logits.abs().max()
    with pytest.raises(InputError, match=r"the logits differ by 2\.4e-05 of the largest, where 1e-05 is allowed"):
        relative_difference(other, logits)
    torch.nn.init.constant_(model.visual_projection.weight, float("nan"))
    with pytest.raises(InputError, match="the logits of the HFClipModel of resnet and bert are not finite"):
        example_logits(model, processor)
