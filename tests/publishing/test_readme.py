"""The README of a run folder: metadata that parses, the numbers, and nothing about the machine."""

import ast
import re

import yaml
from conftest import tiny_model

from hf_clip.publishing.readme import write_readme

METRICS = {
    "images": 30, "captions": 60,
    "image_retrieval_recall@1": 0.4567, "image_retrieval_chance@1": 0.0333, "image_retrieval_median_rank": 2,
    "image_retrieval_recall@5": 0.8, "image_retrieval_chance@5": 0.1667,
    "text_retrieval_recall@1": 0.5, "text_retrieval_chance@1": 0.0339,
    "text_retrieval_recall@5": 0.9, "text_retrieval_chance@5": 0.1649,
    "train_samples_per_second": 100.0, "skipped_training_images": [],
}  # fmt: skip


def readme(folder, metrics=METRICS, **settings) -> str:
    settings = {"name": "my-clip", "towers": ("", ""), "data": "org/pictures"} | settings
    write_readme(folder, tiny_model().config, metrics, **settings)
    return (folder / "README.md").read_text(encoding="utf-8")


def test_metadata_parses(tmp_path):
    card = yaml.safe_load(readme(tmp_path).split("---\n")[1])
    assert card["pipeline_tag"] == "zero-shot-image-classification"
    assert card["library_name"] == "transformers"
    assert "hf_clip" in card["tags"]


def test_recalls_stand_in_one_table(tmp_path):
    lines = readme(tmp_path).splitlines()
    start = lines.index("| direction | k | recall@k | chance |")
    assert lines[start + 2 :] == [
        "| text → image | 1 | 0.457 | 0.033 |",
        "| text → image | 5 | 0.800 | 0.167 |",
        "| image → text | 1 | 0.500 | 0.034 |",
        "| image → text | 5 | 0.900 | 0.165 |",
    ]
    assert "30 pictures with 60 captions" in "\n".join(lines)


def test_classes_neighbours_and_probe_stand_in_a_table_of_their_own(tmp_path):
    figures = {"zero_shot_acc1": 0.25, "knn3_projected_leave_one_out_acc1": 0.75, "linear_probe_pooled_acc1": 1.0}
    chances = {f"{name}_chance": 0.125 for name in figures}
    text = readme(tmp_path, {"images": 40, "zero_shot_calibration_error": 0.1} | figures | chances)
    lines = text.splitlines()
    assert lines[lines.index("| metric | value | chance |") + 2 :] == [
        "| zero_shot_acc1 | 0.250 | 0.125 |",
        "| knn3_projected_leave_one_out_acc1 | 0.750 | 0.125 |",
        "| linear_probe_pooled_acc1 | 1.000 | 0.125 |",
    ]
    assert "Over 40 pictures" in text
    assert "Retrieval" not in text
    both = readme(tmp_path, METRICS | figures | chances)
    assert "| 5 | 0.900 | 0.165 |\n\n## Classification\n" in both


def test_without_metrics_there_is_no_table(tmp_path):
    for metrics in ({}, {"train_samples_per_second": 100.0}):
        text = readme(tmp_path, metrics)
        assert "my-clip" in text
        assert "Retrieval" not in text
        assert "Classification" not in text
        assert "None" not in text


def test_nothing_tells_about_the_machine(tmp_path, monkeypatch):
    for name in ("resnet", "bert", "pictures", "elsewhere"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    text = readme(tmp_path, towers=(str(tmp_path / "resnet"), "../bert"), data=str(tmp_path / "moved-away" / "birds"))
    assert "the image tower resnet (resnet) and the text tower bert (bert)" in text
    assert "Trained on birds with" in text
    assert str(tmp_path) not in text
    assert tmp_path.name not in text
    assert ".." not in text


def test_hub_ids_stay_whole_and_unknown_towers_are_not_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = readme(tmp_path, towers=("microsoft/resnet-50", ""))
    assert "resnet (microsoft/resnet-50) and the text tower bert, projected into 16 dimensions" in text
    assert "Trained on org/pictures" in text


def test_pictures_and_credit_where_there_are_such(tmp_path):
    assert "![" not in readme(tmp_path)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "retrieval.png").touch()
    text = readme(tmp_path, credit="Pictures: someone, CC BY-SA 4.0")
    assert re.findall(r"!\[.*?\]\((.*?)\)", text) == ["pictures/retrieval.png"]
    assert "\nPictures: someone, CC BY-SA 4.0\n" in text


def test_the_example_is_python_and_names_the_model(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", readme(tmp_path), flags=re.DOTALL)
    strings = [node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant)]
    assert strings.count("my-clip") == 3
