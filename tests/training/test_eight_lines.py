"""The lines that train, evaluate and publish a CLIP, word for word as the README has them."""

import inspect
import json
import re
from pathlib import Path
from typing import Any

import datasets
import pytest
import source_models
import torch
from conftest import COLORS, write_pictures
from PIL import Image
from transformers import AutoProcessor

import hf_clip
from hf_clip import HFClipTrainer
from hf_clip.embeddings.encode import collator_of
from hf_clip.models.trained import open_trained

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
LINES = re.search(r"```python\n(import hf_clip\n.*?)```", README, re.DOTALL)[1]
TOWERS = ("microsoft/resnet-50", "google-bert/bert-base-uncased")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # The card's examples run in a process without hf_clip, for which `publishing/clip/test_examples.py` is.
    monkeypatch.setattr("hf_clip.publishing.card.render.run_examples", lambda folder, name, examples: examples)


@pytest.fixture
def images(tmp_path):
    write_pictures(tmp_path / "pictures" / "train")
    write_pictures(tmp_path / "pictures" / "test", count=4)


def run_lines(towers: tuple[str, str], changed: dict[str, str] | None = None, **names: Any) -> dict[str, Any]:
    """What the lines leave behind.

    Args:
        towers: folders in place of the names.
        changed: what else is written otherwise; beside that nothing goes to the Hub.
        names: what a user has besides.
    """
    lines = LINES
    dry = {'"user/my-clip")': '"user/my-clip", dry_run=True)'}
    for written, other in (dict(zip(TOWERS, towers, strict=True)) | dry | (changed or {})).items():
        assert written in lines
        lines = lines.replace(written, other)
    *before, evaluate, publish = lines.splitlines()
    torch.manual_seed(0)  # the projections are new
    exec("\n".join([*before, f"results = {evaluate}", f"published = {publish}"]), space := dict(names))
    return space


def test_the_trainer_s_documentation_has_them_too():
    in_docstring = re.search(r"```python\n(.*?)```", inspect.getdoc(HFClipTrainer) or "", re.DOTALL)[1]
    assert LINES.endswith(f"\n\n{in_docstring}")


def figures_of(found: dict[str, Any]) -> dict[str, float]:
    return {figure.metric: figure.value for figure in found["results"].figures}


def losses_of(found: dict[str, Any]) -> list[float]:
    return [entry["loss"] for entry in found["trainer"].state.log_history if "loss" in entry]


def test_as_they_stand_and_on_rows_in_memory(tower_folders, images, tmp_path):
    found = run_lines(tower_folders)
    trainer = found["trainer"]
    assert (trainer.state.global_step, len(trainer.train_dataset)) == (5, 8), "all images are one batch"
    expected = trainer.evaluate()
    figures = figures_of(found)
    assert len(figures) > 5
    for name, value in figures.items():
        assert value == pytest.approx(expected[f"eval_{name}"], abs=1e-6), name
    card = (tmp_path / found["published"] / "README.md").read_text()
    assert "user/my-clip" in card
    recall = figures["image_retrieval_recall@1"]
    assert f"| text → image, recall@1 | {recall:.3f} |" in card, "what evaluate measured is published with the model"
    training = json.loads((tmp_path / found["published"] / "training.json").read_text())
    assert (training["steps"], training["epochs"], training["data"][0]["pictures"]) == (5, 5.0, 8)
    in_memory = run_lines(tower_folders, OF_ROWS, **{name: rows_of(name) for name in ("train", "test")})
    assert losses_of(in_memory) == losses_of(found)
    assert figures_of(in_memory) == figures


OF_ROWS = {'"pictures/train"': "train", '"pictures/test"': "test", "my_clip": "other", "True": "True, output='again'"}


def rows_of(folder: str) -> datasets.Dataset:
    """The same images and captions, under other names."""
    images = [Image.open(f"pictures/{folder}/{row}.png") for row in range({"train": 8, "test": 4}[folder])]
    captions = [[f"{COLORS[row]} {'abcdefgh'[row]}"] for row in range(len(images))]
    return datasets.Dataset.from_dict({"photo": images, "sentences": captions})


def test_on_a_siglip_pair_trainer_evaluation_and_processor_read_the_same_tokens(images, tmp_path):
    """64 of each caption, padding too, without a mask: a SigLIP's text tower is trained so."""
    folder = source_models.save(tmp_path / "siglip", source_models.siglip(), length=64)
    found = run_lines((folder, folder))
    trainer, captions = found["trainer"], [f"{COLORS[row]} {'abcd'[row]}" for row in range(4)]
    items = [trainer.eval_dataset[row] for row in range(4)]
    assert [item["captions"] for item in items] == [[caption] for caption in captions]
    expected = AutoProcessor.from_pretrained(folder)(text=captions, padding="max_length", return_tensors="pt")
    assert expected["input_ids"].shape == (4, 64)
    saved = collator_of(*open_trained("my_clip"))
    (evaluated,) = trainer.get_eval_dataloader()
    for batch in (
        trainer.data_collator(items), evaluated, found["processor"](text=captions, return_tensors="pt"), saved(items),
    ):  # fmt: skip
        assert "attention_mask" not in batch
        assert torch.equal(batch["input_ids"], expected["input_ids"])
    with pytest.raises(hf_clip.core.errors.InputError, match="give the model's HFClipProcessor, which knows how"):
        hf_clip.HFClipCollator(found["processor"].tokenizer)
    named = hf_clip.HFClipProcessor.from_vision_text_pretrained(folder, folder)
    assert (named.text_padding, named.max_text_length) == ("max_length", 64)
    named.text_padding = "longest"
    with pytest.raises(hf_clip.core.errors.InputError, match="pads texts to the longest of a batch, and the text"):
        hf_clip.HFClipTrainer(found["model"], trainer.args, train_dataset="pictures/train", processing_class=named)
