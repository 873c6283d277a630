"""The graphs give by onnxruntime what the model gives by torch, and the example needs neither torch nor us."""

import copy
import json
import math
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import LETTERS, VOCABULARY, tiny_inputs, tiny_model, write_pictures
from odd_images import ODD_FILES
from PIL import Image, ImageFilter
from tokenizers import Tokenizer
from training_runs import make_processor
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPVisionConfig,
    ConvNextImageProcessor,
    DistilBertConfig,
    EfficientNetImageProcessor,
    GPT2Config,
    SiglipTextConfig,
    SiglipVisionConfig,
    TimmWrapperConfig,
    ViTConfig,
    ViTImageProcessor,
)

from hf_clip import HFClipModel, HFClipProcessor
from hf_clip.cli.main import main
from hf_clip.core.errors import InputError
from hf_clip.data.pixels import processed_pixels
from hf_clip.data.sources import Source, open_source
from hf_clip.embeddings.encode import embed_source
from hf_clip.embeddings.options import EmbedOptions
from hf_clip.models import decoding_hf_clip
from hf_clip.publishing.onnx import export as onnx_export
from hf_clip.publishing.onnx import int8 as onnx_int8
from hf_clip.publishing.onnx.export import export_onnx, pixel_steps
from hf_clip.publishing.onnx.int8 import add_int8
from hf_clip.publishing.onnx.record import Calibration

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

TEXTS = ["a", "the quick brown fox", "zebra crossing", "jumps over it", "so", "five words are in here", "end"]
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 37}
VIT = {"image_size": 32, "patch_size": 8, **SMALL}
OF_TEXT = {"vocab_size": len(VOCABULARY), "max_position_embeddings": 64}
ENDS = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}  # [CLS] and [SEP] of the tests' tokenizer


def distilbert_and_timm():
    text = DistilBertConfig(dim=32, n_layers=2, n_heads=4, hidden_dim=37, **OF_TEXT)
    return text, TimmWrapperConfig.from_dict({"architecture": "resnet10t", "num_classes": 0})


# text tower × image tower, further settings of the model, and of the processor; whether pictures may have any size
PAIRS = {
    "gpt2-vit": (
        lambda: (
            GPT2Config(vocab_size=len(VOCABULARY), n_positions=64, n_embd=32, n_layer=2, n_head=4),
            ViTConfig(**VIT),
        ),
        {},
        {},
        False,
    ),
    "distilbert-timm": (distilbert_and_timm, {"projection": "mlp"}, {}, True),
    "clip": (lambda: (CLIPTextConfig(**SMALL, **OF_TEXT, **ENDS), CLIPVisionConfig(**VIT)), {}, {}, False),
    "siglip": (
        lambda: (SiglipTextConfig(**SMALL, **OF_TEXT), SiglipVisionConfig(**VIT)),
        {"loss": "sigmoid"},
        {"text_padding": "max_length", "max_text_length": 64},
        False,
    ),
}


def sharp_model(**config) -> HFClipModel:
    """Of probabilities that differ, and of BatchNorm statistics that are not those of the start."""
    model = tiny_model(logit_scale_init_value=math.log(10), **config)
    with torch.no_grad():
        for seed in range(8):
            model.train()(**tiny_inputs(seed=seed))
    return model.eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """(folder, its facts, model in fp32, processor) of a BERT × ResNet that was in bf16 and in training."""
    folder = tmp_path_factory.mktemp("exported")
    processor = make_processor(folder / "tokenizer")
    processor.image_processor = CLIPImageProcessor(size={"shortest_edge": 36}, crop_size=32, do_convert_rgb=True)
    model = sharp_model().to(torch.bfloat16).train()
    before = copy.deepcopy(model)
    (folder / "onnx").mkdir()
    facts = export_onnx(model, processor, folder / "onnx", name="tiny")
    assert_unchanged(model, before)
    return folder / "onnx", facts, model.float().eval(), processor


def assert_unchanged(model: HFClipModel, before: HFClipModel) -> None:
    assert all(module.training for module in model.modules())
    state = model.state_dict()
    for name, tensor in before.state_dict().items():
        assert (state[name].dtype, state[name].device) == (tensor.dtype, tensor.device), name
        assert torch.equal(state[name], tensor), name
    for (name, now), then in zip(model.named_parameters(), before.parameters(), strict=True):
        assert (now.requires_grad, now.grad) == (then.requires_grad, None), name


def run(folder: Path, tower: str, **inputs) -> np.ndarray:
    session = onnxruntime.InferenceSession(folder / f"{tower}_model.onnx")
    return session.run(None, {given.name: inputs[given.name].numpy() for given in session.get_inputs()})[0]


def assert_same_as_torch(folder: Path, model: HFClipModel, processor: HFClipProcessor, pixel_sizes) -> None:
    for side in ("right", "left"):
        tokens = processor(text=TEXTS, return_tensors="pt", padding_side=side)
        with torch.no_grad():
            expected = model(**tokens).text_embeds
        np.testing.assert_allclose(run(folder, "text", **tokens), expected, atol=1e-5, rtol=0)
    for shape in pixel_sizes:
        pixels = torch.randn(*shape, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            expected = model(pixel_values=pixels).image_embeds
        np.testing.assert_allclose(run(folder, "vision", pixel_values=pixels), expected, atol=1e-5, rtol=0)


def test_bert_and_resnet_at_any_size(exported):
    folder, facts, model, processor = exported
    assert_same_as_torch(folder, model, processor, [(7, 3, 32, 32), (1, 3, 224, 50), (2, 3, 41, 97)])
    assert facts.shapes == {
        "input_ids": ["texts", "tokens"],
        "attention_mask": ["texts", "tokens"],
        "text_embeds": ["texts", 16],
        "pixel_values": ["images", 3, "height", "width"],
        "image_embeds": ["images", 16],
    }
    for tower in ("text", "vision"):
        session = onnxruntime.InferenceSession(folder / f"{tower}_model.onnx")
        for tensor in (*session.get_inputs(), *session.get_outputs()):
            assert tensor.shape == facts.shapes[tensor.name]
    assert json.loads((folder / "export.json").read_text()) == facts.to_json()
    assert max(facts.largest_difference.text_embeds, facts.largest_difference.image_embeds) < 1e-5
    assert facts.exp_logit_scale == pytest.approx(model.logit_scale.exp().item()) == pytest.approx(10, rel=0.01)
    assert (facts.logit_bias, facts.loss, facts.probabilities) == (None, "infonce", "softmax")
    assert facts.notes == []
    assert (facts.max_text_length, facts.text_padding) == (64, "longest")


def test_nothing_tells_of_this_machine(exported):
    folder, *_ = exported
    home = str(Path(torch.__file__).parents[1]).encode()
    for file in folder.iterdir():
        content = file.read_bytes()
        assert home not in content, file
        assert b".py" not in content or file.name == "example.py", file


@pytest.mark.slow
@pytest.mark.parametrize("name", PAIRS)
def test_other_towers(name, tmp_path):
    make_configs, settings, policy, any_size = PAIRS[name]
    text_config, vision_config = make_configs()
    model = tiny_model(text_config=text_config, vision_config=vision_config, **settings).eval()
    plain = make_processor(tmp_path / "tokenizer")
    if name == "gpt2-vit":
        plain.tokenizer.padding_side = "left"
    processor = HFClipProcessor(image_processor=plain.image_processor, tokenizer=plain.tokenizer, **policy)
    facts = export_onnx(model, processor, tmp_path, name=name)
    sizes = [(7, 3, 32, 32), (1, 3, 32, 32)] + ([(2, 3, 61, 90)] if any_size else [])
    assert_same_as_torch(tmp_path, model, processor, sizes)
    size = ["height", "width"] if any_size else [32, 32]
    assert facts.shapes["pixel_values"] == ["images", 3, *size]
    assert facts.notes == ([] if any_size else ["pictures of 32 × 32 pixels only: the image tower is for no others"])
    assert facts.text_inputs == (["input_ids"] if name == "siglip" else ["input_ids", "attention_mask"])
    # The tokenizer alone pads and cuts as the processor does.
    texts = [*TEXTS, LETTERS * 9]
    found = Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode_batch(texts)
    expected = processor.tokenizer(
        texts, padding=policy.get("text_padding", "longest"), truncation=True, max_length=64
    )
    assert [text.ids for text in found] == expected["input_ids"]
    assert [text.attention_mask for text in found] == expected["attention_mask"]
    assert facts.logit_bias == (-10 if name == "siglip" else None)


# ---- the example --------------------------------------------------------------------------------------------------

ALONE = """
import importlib.abc, runpy, sys

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "transformers", "hf_clip", "onnx"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuse())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def answers(folder: Path, picture: Path, labels: list[str]) -> list[float]:
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(folder / "example.py"), str(picture), *labels],
        capture_output=True,
        text=True,
        cwd=folder.parent,
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split("  ", 1) for line in done.stdout.splitlines()]
    assert [label for _, label in lines] == labels
    return [float(probability) for probability, _ in lines]


def picture_of_blobs(size=(90, 61), seed=0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(noise).filter(ImageFilter.GaussianBlur(2))


def test_the_example_has_at_most_30_lines(exported):
    folder, *_ = exported
    assert len((folder / "example.py").read_text().splitlines()) <= 30


def test_the_example_gives_the_models_probabilities_without_torch(exported, tmp_path):
    folder, _, model, processor = exported
    picture = picture_of_blobs()
    picture.save(tmp_path / "blobs.png")
    labels = TEXTS[:4]
    with torch.no_grad():
        expected = model(**processor(images=picture, text=labels, return_tensors="pt")).logits_per_image.softmax(1)[0]
    assert expected.max() - expected.min() > 0.1
    assert answers(folder, tmp_path / "blobs.png", labels) == pytest.approx(expected.tolist(), abs=5e-4)


def test_the_example_puts_transparency_on_white_and_pictures_upright(exported, tmp_path):
    folder, _, model, processor = exported
    picture = picture_of_blobs()
    clear = Image.new("L", picture.size, 255)
    clear.paste(0, (0, 0, 45, 61))
    transparent = picture.convert("RGBA")
    transparent.putalpha(clear)
    turned = transparent.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    turned.save(tmp_path / "turned.png", exif=exif)
    picture.paste("white", (0, 0, 45, 61))
    with torch.no_grad():
        expected = model(**processor(images=picture, text=TEXTS[:3], return_tensors="pt")).logits_per_image.softmax(1)
    assert answers(folder, tmp_path / "turned.png", TEXTS[:3]) == pytest.approx(expected[0].tolist(), abs=5e-4)


def test_the_example_opens_odd_files_as_classify_does(exported, tmp_path, capsys, monkeypatch):
    folder, _, model, processor = exported
    assert (folder / "decoding_hf_clip.py").read_text() == Path(decoding_hf_clip.__file__).read_text()
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    for name, content in ODD_FILES.items():
        (tmp_path / name).write_bytes(content)
    files = [str(tmp_path / name) for name in ODD_FILES]
    assert main(["classify", *files, "--model", str(tmp_path / "model"), "--labels", "zebra, so", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    monkeypatch.setattr(sys, "path", [*sys.path])
    for file, result in zip(files, results, strict=True):
        monkeypatch.setattr(sys, "argv", ["example.py", file, "zebra", "so"])
        runpy.run_path(str(folder / "example.py"), run_name="__main__")
        found = [float(line.split()[0]) for line in capsys.readouterr().out.splitlines()]
        assert found == pytest.approx(list(result["scores"].values()), abs=1e-3), file
    assert len({round(result["scores"]["so"], 2) for result in results}) > 3


def test_the_example_of_the_sigmoid_loss_answers_for_each_label_alone(exported, tmp_path):
    folder, facts, model, processor = exported
    shutil.copytree(folder, tmp_path / "onnx")
    (tmp_path / "onnx" / "export.json").write_text(
        json.dumps(facts.to_json() | {"logit_bias": -3.0, "probabilities": "sigmoid"})
    )
    picture_of_blobs().save(tmp_path / "picture.png")
    with torch.no_grad():
        output = model(**processor(images=picture_of_blobs(), text=TEXTS[:3], return_tensors="pt"))
    expected = 1 / (1 + (3 - output.logit_scale.exp() * output.image_embeds @ output.text_embeds.T).exp())
    found = answers(tmp_path / "onnx", tmp_path / "picture.png", TEXTS[:3])
    assert found == pytest.approx(expected[0].tolist(), abs=5e-4)


PROCESSORS = {
    "clip": CLIPImageProcessor(size={"shortest_edge": 36}, crop_size=32),
    "clip, padded": CLIPImageProcessor(size={"shortest_edge": 30}, crop_size=32),
    "vit": ViTImageProcessor(size={"height": 32, "width": 48}),
    "convnext": ConvNextImageProcessor(size={"shortest_edge": 56}),
    "convnext, large": ConvNextImageProcessor(size={"shortest_edge": 384}),
    "without normalising": CLIPImageProcessor(size={"shortest_edge": 36}, crop_size=32, do_normalize=False),
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_pixels_are_those_of_the_image_processor(name):
    """To 4 of 255 grey levels, and on the average to 0.3: Pillow's filters and torchvision's round otherwise."""
    from hf_clip.publishing.onnx.example import prepare

    steps, grey_levels = pixel_steps(PROCESSORS[name])
    assert grey_levels <= 4
    std = np.array(steps.std)[:, None, None]
    for picture in (picture_of_blobs(), picture_of_blobs((50, 203)), picture_of_blobs((640, 480))):
        expected = PROCESSORS[name](images=picture, return_tensors="np")["pixel_values"]
        difference = np.abs(prepare(picture, vars(steps)) - expected) * std / steps.rescale_factor
        assert difference.max() < 4.01
        assert difference.mean() < 0.3


@pytest.mark.parametrize(
    "wrong",
    [
        {"mean": [0.5, 0.5, 0.5]},
        {"std": [0.5, 0.5, 0.5]},
        {"rescale_factor": 1 / 256},
        {"resample": 2},
        {"resample": 0},
        {"shortest_edge": 37},
        {"shortest_edge": None, "size": [36, 36]},
    ],
    ids=str,
)
def test_other_pixels_would_be_seen(wrong):
    """The tolerance of the test above lets none of these pass."""
    from hf_clip.publishing.onnx.example import prepare

    steps, _ = pixel_steps(PROCESSORS["clip"])
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (61, 90, 3), dtype=np.uint8))
    expected = PROCESSORS["clip"](images=picture, return_tensors="np")["pixel_values"]
    std = np.array(steps.std)[:, None, None]
    difference = np.abs(prepare(picture, vars(steps) | wrong) - expected) * std * 255
    assert difference.max() > 4.01 or difference.mean() > 0.3


@pytest.mark.parametrize(
    "own_way",
    [
        CLIPImageProcessor(size={"shortest_edge": 36}, do_center_crop=False),
        CLIPImageProcessor(size={"shortest_edge": 36}, crop_size=32, do_resize=False),
        EfficientNetImageProcessor(size={"height": 32, "width": 32}, do_center_crop=False, include_top=True),
    ],
    ids=lambda processor: type(processor).__name__,
)
def test_a_processor_with_a_way_of_its_own_is_known(own_way):
    assert pixel_steps(own_way) == (None, None)


def test_without_steps_there_is_no_example(processor, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "_export", lambda half, *_: onnx_export._Graph(20, {**half.inputs}, 0.0, []))
    processor.image_processor = CLIPImageProcessor(size={"shortest_edge": 36}, crop_size=32, do_resize=False)
    facts = export_onnx(tiny_model(), processor, tmp_path, name="tiny")
    assert facts.notes == ["without example.py: CLIPImageProcessor prepares pictures in a way of its own"]
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["export.json"]


# ---- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("off", "shown"), [(2e-4, "0.0002"), (float("nan"), "inf")])
def test_a_graph_that_differs_is_refused(off, shown, processor, tmp_path, monkeypatch):
    program = SimpleNamespace(save=lambda file: None)
    monkeypatch.setattr(onnx_export, "_to_onnx", lambda *_: program)
    monkeypatch.setattr(onnx_export, "open_session", lambda file: None)
    model = tiny_model().eval()
    calls = []

    def run_graph(session, inputs):
        calls.append(inputs)
        embeds = model(**inputs, token_type_ids=torch.zeros_like(inputs["input_ids"])).text_embeds
        return embeds + (off if len(calls) == 3 else 0)  # a difference counts in whichever case it is

    monkeypatch.setattr(onnx_export, "run_session", run_graph)
    with pytest.raises(InputError, match=rf"the text tower \(bert\) cannot be .* differ by {shown} from torch's"):
        export_onnx(model, processor, tmp_path, name="tiny")


def test_what_cannot_be_exported_is_refused_by_name(processor, tmp_path, capfd):
    model = tiny_model()
    forward = type(model.text_model).forward

    def looks_at_values(self, input_ids, **kwargs):
        if input_ids.sum() > 100:
            input_ids = input_ids.flip(0)
        return forward(self, input_ids=input_ids, **kwargs)

    model.text_model.__class__ = type("Peeking", (type(model.text_model),), {"forward": looks_at_values})
    with pytest.raises(InputError, match=r"^the text tower \(bert\) cannot be exported to ONNX: \S.*") as raised:
        export_onnx(model, processor, tmp_path, name="tiny")
    assert "\n" not in str(raised.value)
    assert "ata-dependent" in str(raised.value)
    assert capfd.readouterr() == ("", "")


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(onnx_export, "_PACKAGES", ("onnxruntime", "onnx_of_nowhere"))
    with pytest.raises(InputError, match=r'needs onnx_of_nowhere: pip install "hf_clip\[onnx\]"'):
        onnx_export.require_onnx()


def test_types_of_tokens_are_refused(processor, tmp_path, monkeypatch):
    tokenize = type(processor.tokenizer).__call__

    def with_types(self, *args, **kwargs):
        tokens = tokenize(self, *args, **kwargs)
        return tokens | {"token_type_ids": torch.full_like(tokens["input_ids"], 2)}

    monkeypatch.setattr(type(processor.tokenizer), "__call__", with_types)
    with pytest.raises(InputError, match="BertTokenizer gives token_type_ids other than 0"):
        export_onnx(tiny_model(), processor, tmp_path, name="tiny")


# ---- int8 ---------------------------------------------------------------------------------------------------------


def source_of_blobs(folder: Path) -> Source:
    """Of 24 pictures, for plain colours would tie."""
    write_pictures(folder, count=24)
    for i in range(24):
        picture_of_blobs((40, 36), seed=i).save(folder / f"{i}.png")
    return open_source(folder)


def test_int8_says_what_it_costs(exported, tmp_path):
    folder, facts, model, processor = exported
    shutil.copytree(folder, tmp_path / "onnx")
    source = source_of_blobs(tmp_path / "pictures")
    int8 = add_int8(tmp_path / "onnx", facts, model, processor, source, options=EmbedOptions(progress=False)).int8
    note = "the 8-bit image graph was calibrated on some of the pictures that it is measured on"
    assert json.loads((tmp_path / "onnx" / "export.json").read_text()) == facts.to_json() | {
        "int8": int8.to_json(),
        "notes": [note],
    }
    assert int8.calibration == Calibration(24, measured_too=True)
    assert int8.methods == {"text": "dynamic", "vision": "static"}
    assert (int8.k, int8.data.name, int8.data.images) == ([1, 5, 10], "pictures", 24)
    images = [Image.open(tmp_path / "pictures" / f"{i}.png") for i in range(24)]
    captions = [source.captions(i)[0] for i in range(24)]
    inputs = processor(images=images, text=captions, return_tensors="pt")
    for precision, suffix in (("fp32", ""), ("int8", "_int8")):
        text, image = (
            onnxruntime.InferenceSession(tmp_path / "onnx" / f"{tower}_model{suffix}.onnx")
            for tower in ("text", "vision")
        )
        tokens = {name: inputs[name].numpy() for name in ("input_ids", "attention_mask")}
        scores = text.run(None, tokens)[0] @ image.run(None, {"pixel_values": inputs["pixel_values"].numpy()})[0].T
        ranks = (scores > scores.diagonal()[:, None]).sum(1)
        for k in int8.k:
            found = int8.recall[f"image_retrieval_recall@{k}"]
            assert getattr(found, precision) == pytest.approx((ranks < k).mean())
            assert found.chance == pytest.approx(k / 24)
    assert any(found.fp32 != found.int8 for found in int8.recall.values()), "or they would prove nothing"
    operators = {tower: kinds(tmp_path / "onnx" / f"{tower}_model_int8.onnx") for tower in ("text", "vision")}
    assert "DynamicQuantizeLinear" in operators["text"]
    assert "MatMulInteger" in operators["text"]
    assert {"QuantizeLinear", "DequantizeLinear"} <= operators["vision"]
    assert not {"DynamicQuantizeLinear", "ConvInteger"} & operators["vision"]


@pytest.mark.parametrize(("count", "apart"), [(11, True), (12, False)])
def test_int8_is_measured_on_other_pictures_where_there_are_enough(count, apart, exported, tmp_path, monkeypatch):
    folder, facts, model, processor = exported
    source = source_of_blobs(tmp_path / "pictures")
    calibrated, measured = [], []

    def quantize_static(folder, pictures):
        calibrated.extend(picture[0].tobytes() for picture in pictures)

    def embed(graphs, processor, source, options=None):
        measured.append([source.row_number(row) for row in range(len(source))])
        return embed_source(graphs, processor, source, options=EmbedOptions(progress=False))

    shutil.copytree(folder, tmp_path / "onnx")
    for graph in onnx_export.GRAPHS.values():
        shutil.copyfile(folder / graph, tmp_path / "onnx" / graph.replace(".onnx", "_int8.onnx"))
    monkeypatch.setattr(onnx_int8, "_CALIBRATED_ON", count)
    monkeypatch.setattr(onnx_int8, "_quantize_static", quantize_static)
    monkeypatch.setattr(onnx_int8, "_quantize_dynamic", lambda *_: None)
    monkeypatch.setattr(onnx_int8, "embed_source", embed)
    result = add_int8(tmp_path / "onnx", facts, model, processor, source)
    int8 = result.int8
    rows = measured[0]
    assert measured == [rows, rows], "both precisions on the same"
    assert len(set(calibrated)) == count
    seen = [processed_pixels(processor.image_processor, open_picture(tmp_path, row)).numpy().tobytes() for row in rows]
    assert set(calibrated).isdisjoint(seen) == apart
    assert int8.data.images == len(rows) == (24 - count if apart else 24)
    assert int8.recall["image_retrieval_recall@1"].chance == pytest.approx(1 / len(rows))
    assert int8.calibration == Calibration(count, measured_too=not apart)
    assert len(result.notes) == (0 if apart else 1)


def open_picture(folder: Path, row: int) -> Image.Image:
    return Image.open(folder / "pictures" / f"{row}.png")


def kinds(file: Path) -> set[str]:
    import onnx

    return {node.op_type for node in onnx.load(file).graph.node}
