"""A published folder seen from outside: pipelines of one modality, parts opened alone, dtypes and device maps."""

import base64
import io
import json
import re
from pathlib import Path

import accelerate
import pytest
import torch
from conftest import tiny_inputs, tiny_model, tiny_vision_config
from odd_images import ODD_FILES
from packaging.version import Version
from PIL import Image
from strangers import run_stranger
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoTokenizer,
    ConvNextConfig,
    RegNetConfig,
    ViTConfig,
    pipeline,
)

from hf_clip import (
    HFClipConfig,
    HFClipModel,
    HFClipProcessor,
    HFClipTextModelWithProjection,
    HFClipVisionModelWithProjection,
    create_model_and_processor,
)
from hf_clip.cli.main import main
from hf_clip.data import Augmentation, CaptionedImages, TrainingPairs, open_source
from hf_clip.data.pixels import PixelNormalization
from hf_clip.embeddings.encode import embed_images, embed_source
from hf_clip.embeddings.options import EmbedOptions

VIT = ViTConfig(
    hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=37, image_size=32, patch_size=8
)
TEXTS = ["a b", "c d e f"]

# Before, accelerate refuses a model of which nothing stays in memory, as one of a few kilobytes soon is.
ALL_ON_DISK = Version(accelerate.__version__) >= Version("1.15")


@pytest.fixture
def picture():
    return Image.linear_gradient("L").rotate(30).convert("RGB")


@torch.no_grad()
def run(model):
    return model(**tiny_inputs())


def embeddings(folder, processor, picture):
    with torch.no_grad():
        output = HFClipModel.from_pretrained(folder)(**processor(images=picture, text=TEXTS, return_tensors="pt"))
    return output.text_embeds, output.image_embeds


def test_features_of_texts_alone(model_folder, processor, picture):
    extract = pipeline("feature-extraction", model=str(model_folder))
    expected, _ = embeddings(model_folder, processor, picture)
    for batch_size in (1, 2):
        features = torch.tensor(extract(TEXTS, batch_size=batch_size))
        torch.testing.assert_close(features, expected[:, None], atol=1e-6, rtol=0)


def test_features_of_a_text_of_fixed_length(model_folder, processor, picture):
    """The pipeline knows the tokenizer alone: it must be told how texts are padded."""
    processor.text_padding, processor.max_text_length = "max_length", 9
    extract = pipeline("feature-extraction", model=str(model_folder))
    settings = {"padding": "max_length", "max_length": 9, "truncation": True}
    features = extract("a b c d e f g h i j k", tokenize_kwargs=settings, return_tensors=True)
    with torch.no_grad():
        batch = processor(text=["a b c d e f g h i j k"], return_tensors="pt")
        expected = HFClipModel.from_pretrained(model_folder)(**batch).text_embeds[0]
    torch.testing.assert_close(features[0], expected, atol=1e-6, rtol=0)


def test_a_pipeline_that_truncates_ends_where_the_tower_does(tower_folders, picture, tmp_path):
    """The tokenizer of the folder says no limit: the pair's tokenizer must say the tower's."""
    file = Path(tower_folders[1], "tokenizer_config.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_max_length": int(1e30)}))
    model, processor = create_model_and_processor(*tower_folders)
    for part in (model, processor):
        part.save_pretrained(tmp_path / "pair")
    extract = pipeline("feature-extraction", model=str(tmp_path / "pair"), tokenize_kwargs={"truncation": True})
    with torch.no_grad():
        expected = model.eval()(**processor(text=["a " * 600], return_tensors="pt")).text_embeds
    torch.testing.assert_close(extract("a " * 600, return_tensors=True), expected, atol=1e-6, rtol=0)


def test_features_of_pictures_alone(model_folder, processor, picture):
    extract = pipeline("image-feature-extraction", model=str(model_folder))
    _, expected = embeddings(model_folder, processor, picture)
    for batch_size in (1, 2):
        features = torch.tensor(extract([picture.convert("L"), picture], batch_size=batch_size))
        assert features.shape == (2, 1, 16)
        torch.testing.assert_close(features[1], expected, atol=1e-6, rtol=0)


def test_parts_open_alone(model_folder, processor):
    assert type(AutoConfig.from_pretrained(model_folder)) is HFClipConfig
    assert AutoTokenizer.from_pretrained(model_folder)("a b")["input_ids"] == [2, 5, 6, 3]
    assert AutoImageProcessor.from_pretrained(model_folder).to_dict() == processor.image_processor.to_dict()


STRANGER = """
import json, sys
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer, pipeline

folder, picture, result = sys.argv[1:]
trusted = {"trust_remote_code": True}
texts = pipeline("feature-extraction", model=folder, **trusted)(["a b", "c d e f"])
images = pipeline("image-feature-extraction", model=folder, **trusted)(picture)
tokens = AutoTokenizer.from_pretrained(folder, **trusted)("a b")["input_ids"]
size = AutoImageProcessor.from_pretrained(folder, **trusted).crop_size["height"]
model = AutoModel.from_pretrained(folder, dtype="bfloat16", device_map="auto", **trusted)
dtypes = [str(model.logit_scale.dtype), str(model.dtype), str(model.text_model.dtype)]
json.dump([texts, images, tokens, size, dtypes], open(result, "w"))
"""


def test_all_that_where_hf_clip_is_not_installed(model_folder, processor, picture, tmp_path):
    picture.save(tmp_path / "picture.png")
    run_stranger(STRANGER, model_folder, tmp_path / "picture.png", tmp_path / "result.json", folder=tmp_path)
    texts, images, tokens, size, dtypes = json.loads((tmp_path / "result.json").read_text())
    text_embeds, image_embeds = embeddings(model_folder, processor, picture)
    torch.testing.assert_close(torch.tensor(texts)[:, 0], text_embeds, atol=1e-6, rtol=0)
    torch.testing.assert_close(torch.tensor(images), image_embeds, atol=1e-6, rtol=0)
    assert (tokens, size) == ([2, 5, 6, 3], 32)
    assert dtypes[0] == "torch.float32"
    assert dtypes[2] == "torch.bfloat16"


@pytest.mark.filterwarnings("ignore:The following device_map keys do not match any submodules")  # bare parameters
@pytest.mark.parametrize("loss", ["infonce", "sigmoid"])
@pytest.mark.parametrize("vision", [tiny_vision_config(), VIT], ids=["resnet", "vit"])
def test_dtypes_and_device_maps(loss, vision, tmp_path):
    model = tiny_model(loss=loss, vision_config=vision).eval()
    model.save_pretrained(tmp_path)
    expected = run(model).logits_per_image
    weights = sum(parameter.nbytes for parameter in model.parameters())
    offload = {"device_map": "auto", "offload_folder": str(tmp_path / "offload")}
    opened = [
        ({"device_map": "auto", "dtype": "auto"}, torch.float32, 0),
        ({"device_map": {"": "cpu"}}, torch.float32, 0),
        ({"device_map": "auto", "dtype": "bfloat16"}, torch.bfloat16, 0.3),
        ({"dtype": torch.float16}, torch.float16, 0.05),
        ({"max_memory": {"cpu": weights // 2}} | offload, torch.float32, 0),
        *([({"max_memory": {"cpu": 100}} | offload, torch.float32, 0)] if ALL_ON_DISK else []),
        ({"max_memory": {"cpu": weights // 4}, "dtype": "bfloat16"} | offload, torch.bfloat16, 0.3),
    ]
    for settings, dtype, tolerance in opened:
        loaded = AutoModel.from_pretrained(tmp_path, **settings)
        assert loaded.text_projection.weight.dtype == loaded.dtype == dtype
        assert loaded.logit_scale.dtype == torch.float32
        assert loaded.logit_bias is None or loaded.logit_bias.dtype == torch.float32
        assert ("disk" in getattr(loaded, "hf_device_map", {}).values()) == ("max_memory" in settings)
        logits = run(loaded).logits_per_image
        assert logits.dtype == torch.float32
        torch.testing.assert_close(logits, expected, rtol=0, atol=tolerance)
    half = run(AutoModel.from_pretrained(tmp_path).half()).logits_per_image
    torch.testing.assert_close(half, expected, rtol=0, atol=0.05)


@pytest.mark.parametrize(
    ("half", "embeds"),
    [(HFClipTextModelWithProjection, "text_embeds"), (HFClipVisionModelWithProjection, "image_embeds")],
)
def test_dtypes_and_device_maps_of_one_half(half, embeds, model_folder):
    expected = run(HFClipModel.from_pretrained(model_folder))[embeds]
    inputs = tiny_inputs()
    pixels = {"pixel_values": inputs.pop("pixel_values")}
    memory = {"max_memory": {"cpu": 20_000}, "offload_folder": str(model_folder / "offload")}
    for settings, tolerance in (({"dtype": "bfloat16"}, 0.02), *([(memory, 0)] if ALL_ON_DISK else [])):
        loaded = half.from_pretrained(model_folder, device_map="auto", **settings)
        with torch.no_grad():
            output = loaded(**(pixels if half.main_input_name == "pixel_values" else inputs))
        torch.testing.assert_close(output[embeds].float(), expected, rtol=0, atol=tolerance)


CONVOLUTIONS = {
    "basic": tiny_vision_config(),
    "bottleneck": tiny_vision_config("bottleneck"),
    "regnet_x": RegNetConfig(embedding_size=8, hidden_sizes=[8, 16, 16, 24], depths=[1, 1, 2, 1], layer_type="x"),
    "convnext": ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 2, 1]),
}


@pytest.mark.parametrize("tower", CONVOLUTIONS)
def test_no_residual_block_lies_on_two_devices(tower):
    """transformers marks the convolutions of a ResNet, whose sum would then be of tensors of two devices."""
    from accelerate import infer_auto_device_map

    model = tiny_model(vision_config=CONVOLUTIONS[tower], projection_dim=16)
    weights = sum(parameter.nbytes for parameter in model.parameters())
    block = re.compile(r"(vision_model\.encoder\.stages\.\d+\.layers\.\d+|text_model\.encoder\.layer\.\d+)\..+")
    for share in range(2, 40):
        memory = {0: weights * share // 40, 1: weights * 2, "cpu": weights * 2}
        device_map = infer_auto_device_map(model, memory, no_split_module_classes=list(model._no_split_modules))
        assert not [name for name in device_map if block.match(name)]


@pytest.mark.parametrize("pooling", ["cls", "mean", "last"])
def test_a_tower_may_end_on_another_device_than_it_begins(pooling):
    from accelerate.hooks import AlignDevicesHook, add_hook_to_module

    model = tiny_model(text_pooling=pooling).eval()
    for part in (model.text_model.encoder.layer[1], model.text_projection):
        add_hook_to_module(part.to("meta"), AlignDevicesHook(execution_device="meta"))
    inputs = tiny_inputs()
    output = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
    assert output.text_embeds.device.type == "meta"
    assert output.text_embeds.shape == (4, 16)


def test_pipelines_open_odd_files_as_the_processor_and_the_commands_do(model_folder, tmp_path, capsys):
    files = write_odd_files(tmp_path / "odd")
    trust = {"trust_remote_code": True}
    answers = classified(model_folder, files, ["a b", "c d"], capsys)
    extract = pipeline("image-feature-extraction", model=str(model_folder), **trust)
    scores = pipeline("zero-shot-image-classification", model=str(model_folder), **trust)
    model, processor = HFClipModel.from_pretrained(model_folder), HFClipProcessor.from_pretrained(model_folder)
    embeds = embed_images(model, processor, [Image.open(file) for file in files])
    with torch.no_grad():
        for images in ([*map(str, files)], [Image.open(file) for file in files]):
            found = model(**processor(images=images, text=["a b"], return_tensors="pt")).image_embeds
            torch.testing.assert_close(found, embeds, atol=1e-5, rtol=0)
    for opened in (str, Image.open):
        features = extract([opened(file) for file in files])
        torch.testing.assert_close(torch.tensor(features)[:, 0], embeds, atol=1e-5, rtol=0)
        images = [opened(file) for file in files]
        both = scores(images, candidate_labels=["a b", "c d"], hypothesis_template="{}")
        for file, found in zip(files, both, strict=True):
            assert {entry["label"]: entry["score"] for entry in found} == pytest.approx(answers[file.name], abs=1e-4)
    rows = open_source(tmp_path / "odd")
    assert not embed_source(model, processor, rows, options=EmbedOptions(progress=False)).skipped
    at_home = embed_source(model, processor, rows, options=EmbedOptions(progress=False)).image_embeds
    names = [Path(record["file_name"]).name for record in rows.rows]
    order = [names.index(file.name) for file in files]
    torch.testing.assert_close(at_home[order], embeds, atol=1e-5, rtol=0)
    drawn = TrainingPairs(rows, processor.image_processor, Augmentation(crop_scale=1.0))
    for row in range(len(rows)):
        pixels = CaptionedImages(rows, processor.image_processor)[row]["pixel_values"]
        normalize = PixelNormalization.of(processor.image_processor)
        torch.testing.assert_close(normalize(drawn[row]["pixel_values"]), pixels, atol=1e-5, rtol=0)


def write_odd_files(folder) -> list[Path]:
    """With captions, and in the order of their names."""
    folder.mkdir()
    for name, content in ODD_FILES.items():
        (folder / name).write_bytes(content)
    rows = [json.dumps({"file_name": name, "caption": "a b"}) for name in sorted(ODD_FILES)]
    (folder / "metadata.jsonl").write_text("\n".join(rows))
    return [folder / name for name in sorted(ODD_FILES)]


def classified(model_folder, files, labels, capsys) -> dict[str, dict[str, float]]:
    command = ["classify", *map(str, files), "--model", str(model_folder), "--labels", ", ".join(labels), "--json"]
    assert main(command) == 0
    said = json.loads(capsys.readouterr().out)
    assert not said["skipped"]
    return {Path(result["image"]).name: result["scores"] for result in said["results"]}


def test_pipelines_of_other_models_work_as_before(tower_folders):
    extract = pipeline("image-feature-extraction", model=tower_folders[0])
    clear = Image.new("RGBA", (40, 40), (255, 0, 0, 0))
    assert extract(clear) == extract(Image.new("RGB", (40, 40), (255, 0, 0)))


def test_pipelines_take_base64_and_a_model_that_is_open(model_folder):
    model, processor = HFClipModel.from_pretrained(model_folder), HFClipProcessor.from_pretrained(model_folder)
    parts = {"tokenizer": processor.tokenizer, "image_processor": processor.image_processor}
    extract = pipeline("image-feature-extraction", model=model, image_processor=processor.image_processor)
    content = ODD_FILES["rgba.png"]
    in_text = base64.b64encode(content).decode()
    expected = embed_images(model, processor, [Image.open(io.BytesIO(content))])
    for image in (in_text, f"data:image/png;base64,{in_text}"):
        torch.testing.assert_close(torch.tensor(extract(image)), expected, atol=1e-5, rtol=0)
    classify = pipeline("zero-shot-image-classification", model=model, **parts)
    with pytest.raises(ValueError, match=r"'no.png' is neither a file, nor an address, nor an image in base64"):
        classify("no.png", candidate_labels=["a", "b"])
