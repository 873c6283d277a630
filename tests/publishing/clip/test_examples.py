"""The examples of a CLIP's card print what its folder gives, and each says what it needs."""

import ast

import torch
from conftest import VOCABULARY, tiny_model
from packaging.requirements import Requirement
from PIL import Image
from transformers import SiglipTextConfig

from hf_clip import HFClipModel, HFClipProcessor
from hf_clip.publishing.card.facts import CardDetails
from hf_clip.publishing.card.usage import needs, run_examples
from hf_clip.publishing.clip.examples import examples
from hf_clip.publishing.saved_model import SavedModel

RED = Image.new("RGB", (224, 224), "red")
NAME = "someone/tiny-clip"
LABELS = ["red", "a b c d", "blue"]


def logits(folder, picture=RED, labels=LABELS) -> torch.Tensor:
    """(labels,), without the examples' code."""
    processor = HFClipProcessor.from_pretrained(folder)
    inputs = processor(images=picture, text=labels, return_tensors="pt")
    with torch.inference_mode():
        return HFClipModel.from_pretrained(folder)(**inputs).logits_per_image[0]


def lines(labels, values) -> list[str]:
    return [f"{label}: {value:.3f}" for label, value in zip(labels, values.tolist(), strict=True)]


def run(folder, count=None, **settings) -> dict[str, list[str]]:
    """Of the first `count` of them, a process for each package that they need."""
    details = CardDetails(NAME, example_labels=LABELS)
    done = run_examples(SavedModel(folder), details.name, examples(SavedModel(folder), details, **settings)[:count])
    return {example.title: example.output.splitlines() for example in done}


def test_the_examples_print_what_the_folder_gives(model_folder):
    outputs, expected = run(model_folder), logits(model_folder)
    assert outputs["transformers"] == lines(LABELS, expected.softmax(0))
    # The pipeline begins with the likeliest.
    assert sorted(outputs["The pipeline of transformers"]) == sorted(outputs["transformers"])
    scale = HFClipModel.from_pretrained(model_folder).logit_scale.exp().item()
    assert outputs["hf_clip"] == lines(LABELS, expected / scale)
    assert len({line.partition(": ")[2] for line in outputs["transformers"]}) == 3  # distinct, so order was tested


def test_towers_that_read_padding_and_the_sigmoid_loss(tokenizer, processor, tmp_path):
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 37}
    text = SiglipTextConfig(vocab_size=len(VOCABULARY), max_position_embeddings=12, projection_size=32, **sizes)
    model = tiny_model(text_config=text, loss="sigmoid")
    torch.nn.init.zeros_(model.logit_bias)  # at −10 all answers would be 0.000
    model.save_pretrained(tmp_path)
    fixed = HFClipProcessor(processor.image_processor, tokenizer, text_padding="max_length", max_text_length=12)
    fixed.save_pretrained(tmp_path)
    outputs, expected = run(tmp_path, 2, fixed_length=12, sigmoid=True), logits(tmp_path)
    assert outputs["transformers"] == lines(LABELS, expected.sigmoid())
    assert sorted(outputs["The pipeline of transformers"]) == sorted(lines(LABELS, expected.softmax(0)))
    HFClipProcessor(processor.image_processor, tokenizer).save_pretrained(tmp_path)
    unpadded = sorted(lines(LABELS, logits(tmp_path).softmax(0)))
    assert sorted(outputs["The pipeline of transformers"]) != unpadded


def test_the_picture_of_the_repository(model_folder):
    """And labels that would break out of a string."""
    picture = Image.radial_gradient("L").convert("RGB")
    (model_folder / "pictures").mkdir()
    picture.save(model_folder / "pictures" / "example.png")
    labels = ['a "b" \\', "```\nimport this", "{c} é 猫"]
    details = CardDetails(NAME, example_picture="pictures/example.png", example_labels=labels)
    shown = examples(SavedModel(model_folder), details)[:1]
    assert 'hf_hub_download("someone/tiny-clip", "pictures/example.png")' in shown[0].code
    assigned = [node for node in ast.parse(shown[0].code).body if isinstance(node, ast.Assign)]
    assert labels in [ast.literal_eval(node.value) for node in assigned if isinstance(node.value, ast.List)]
    (done,) = run_examples(SavedModel(model_folder), NAME, shown)
    expected = lines(labels, logits(model_folder, picture, labels).softmax(0))
    assert done.output == "\n".join(expected)


def test_snippets_are_short_python_with_the_name_in_them(tmp_path):
    (tmp_path / "modules.json").write_text("[]")
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "example.py").touch()
    found = examples(SavedModel(tmp_path), CardDetails(NAME), fixed_length=64)
    assert [example.title for example in found] == [
        "transformers",
        "The pipeline of transformers",
        "hf_clip",
        "sentence-transformers",
        "onnxruntime, without torch",
    ]
    for example in found:
        strings = [node.value for node in ast.walk(ast.parse(example.code)) if isinstance(node, ast.Constant)]
        assert NAME in strings
        assert len([line for line in example.code.splitlines() if line]) <= 14
        assert max(map(len, example.code.splitlines())) <= 119
        assert example.output is None


def test_what_an_example_needs_covers_what_it_imports(tmp_path):
    """Of packages that bring others, those too."""
    (tmp_path / "modules.json").write_text("[]")
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "example.py").write_text("")
    brought = {"transformers": {"huggingface_hub"}}
    names = {"pillow": "PIL", "sentence-transformers": "sentence_transformers"}
    standard = {"runpy", "sys", "functools"}
    for example in examples(SavedModel(tmp_path), CardDetails(NAME, example_picture="pictures/example.png")):
        packages, has_hf_clip = needs(example.code, ["timm"], adapter=False)
        packages = [Requirement(each.strip('"')).name for each in packages]
        given = {names.get(each, each) for each in packages}.union(*(brought.get(each, set()) for each in packages))
        nodes = list(ast.walk(ast.parse(example.code)))
        imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        imported |= {node.module.split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom)}
        lacking = imported - standard - given
        assert has_hf_clip == ("hf_clip" in imported)
        assert has_hf_clip or not lacking - ({"huggingface_hub"} if "sentence_transformers" in given else set())
        assert ("timm" in packages) == ("onnxruntime" not in packages)


def test_many_labels_stand_one_a_line(tmp_path):
    labels = [f"a label of some length, number {n}" for n in range(5)]
    for example in examples(SavedModel(tmp_path), CardDetails(NAME, example_labels=labels)):
        lists = [node for node in ast.walk(ast.parse(example.code)) if isinstance(node, ast.List)]
        assert labels in [ast.literal_eval(node) for node in lists if all(map(is_constant, node.elts))]
        assert max(map(len, example.code.splitlines())) <= 119


def is_constant(node) -> bool:
    return isinstance(node, ast.Constant)
