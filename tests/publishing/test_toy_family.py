"""A family from outside, of images alone: trained, saved, opened elsewhere, and published with a card of its own."""

import json
import re

import pytest
import torch
import yaml
from cards import tidy
from conftest import write_pictures
from PIL import Image
from toy_images import TOY, open_toy, toy_model, toy_trainer

from hf_clip.core import families
from hf_clip.core.digests import weights_digest
from hf_clip.core.errors import InputError
from hf_clip.evaluation.outcome import Outcome
from hf_clip.evaluation.records import DataFacts
from hf_clip.evaluation.report import Measured, Report, model_facts
from hf_clip.evaluation.tasks.registry import TASKS
from hf_clip.evaluation.tasks.task import Task
from hf_clip.models.image_processors import square_image_processor
from hf_clip.publishing.card.facts import CardDetails, CardModel
from hf_clip.publishing.hub import HubTarget, look_first, push_folder
from hf_clip.publishing.saved_model import SavedModel
from hf_clip.publishing.staging import PublishOptions, stage

NAME = "user/toys"
CLIPS_OWN = r"CLIP\b|caption|text|tower|cosine|[Rr]etrieval|[Zz]ero-shot|pairs|negatives"


@pytest.fixture
def data(tmp_path):
    folder = write_pictures(tmp_path / "pictures")
    (folder / "metadata.jsonl").unlink()
    return folder


@pytest.fixture
def saved(tmp_path):
    toy_model().save_pretrained(tmp_path / "toy")
    square_image_processor(16).save_pretrained(tmp_path / "toy")
    return tmp_path / "toy"


def content(run_examples=False) -> PublishOptions:
    return PublishOptions(CardDetails(NAME, license="mit"), run_examples=run_examples)


def test_a_run_is_published_with_its_card(tmp_path, data, own_hub):
    trainer = toy_trainer(tmp_path / "run", data, push_to_hub=True, hub_model_id=NAME)
    trainer.train()
    published = trainer.push_to_hub(run_examples=False)
    assert published.changed
    files = own_hub.repos[NAME].head().files
    assert set(files) == {
        ".gitattributes", "README.md", "config.json", "model.safetensors", "preprocessor_config.json",
        "publication.json", "toy_hf_clip.py", "training.json",
    }  # fmt: skip
    card = files["README.md"].content.decode()
    tidy(card)
    data_of_card = yaml.safe_load(card.split("---\n")[1])
    assert (data_of_card["pipeline_tag"], data_of_card["tags"]) == ("image-feature-extraction", ["hf_clip", "toy"])
    assert "This is a toy: it squeezes pictures to thumbnails" in card
    assert "4 steps of 4 pictures (2 epochs) took" in card
    assert not re.findall(CLIPS_OWN, re.sub(r"`[^`]*`|```.*?```|hf_clip", "", card, flags=re.DOTALL))
    assert not trainer.push_to_hub(run_examples=False).changed


def test_its_card_s_example_opens_it_where_hf_clip_is_not(saved, tmp_path):
    """An example runs in a process that cannot import hf_clip, on what is staged alone."""
    facts = stage(SavedModel(saved), tmp_path / "staged", content(run_examples=True))
    model, processor = open_toy(str(saved))
    inputs = processor(Image.new("RGB", (16, 16), "red"), return_tensors="pt")
    with torch.inference_mode():
        expected = f"{model(**inputs).loss:.6f}"
    assert [example.output for example in facts.examples] == [expected]
    assert facts.model == CardModel(sum(p.numel() for p in model.parameters()))
    assert json.loads((tmp_path / "staged" / "config.json").read_text())["auto_map"] == {
        "AutoConfig": "toy_hf_clip.ToyConfig", "AutoModel": "toy_hf_clip.ToyAutoencoder",
    }  # fmt: skip


def test_a_repository_of_one_family_is_no_place_for_another(saved, tmp_path, own_hub, model_folder):
    stage(SavedModel(saved), tmp_path / "staged", content())
    stage(SavedModel(model_folder), tmp_path / "clip", content())
    push_folder(tmp_path / "staged", HubTarget(NAME))
    assert look_first(HubTarget(NAME)) == NAME
    with pytest.raises(InputError, match=r"user/toys holds another model \(model_type 'toy_images'\)"):
        push_folder(tmp_path / "clip", HubTarget(NAME))
    push_folder(tmp_path / "clip", HubTarget(NAME, overwrite=True))
    assert "toy_hf_clip.py" not in own_hub.repos[NAME].head().files
    with pytest.raises(InputError, match=r"user/toys holds a sentence-transformers model: "):
        push_folder(tmp_path / "staged", HubTarget(NAME))


class Reconstruction(Task):
    """What a task from outside says of itself, for reports and cards."""

    name, title, phrase = "reconstruction", "Reconstruction", "reconstruction"
    hub_type = ("image-to-image", "Reconstruction of pictures")
    pattern = "reconstruction_"

    def measure(self, given):
        raise NotImplementedError


def test_what_was_measured_of_it_stands_in_its_card(saved, tmp_path, monkeypatch):
    """By a task of its own, and of these weights alone."""
    monkeypatch.setitem(TASKS, "reconstruction", Reconstruction())
    for seed in (0, 1):
        data = DataFacts("toys of us", "test", "d" * 8)
        measured = Outcome({"reconstruction_error": 0.25, "images": 8}, {"thumbnails": "8 × 8"})
        model = model_facts(toy_model(seed), "toy")
        (tmp_path / f"evaluation{seed}").mkdir()
        Report(data, [Measured(model, "reconstruction", measured)]).write(tmp_path / f"evaluation{seed}")
    given = content()
    given.evaluations = [tmp_path / "evaluation0"]
    stage(SavedModel(saved), tmp_path / "staged", given)
    card = (tmp_path / "staged" / "README.md").read_text()
    tidy(card)
    assert "### Reconstruction\n\n" in card
    assert re.search(r"\| reconstruction error +\| +0.250 \|", card)
    assert "- Not measured: pictures of another kind than those above; differences between groups of people." in card
    (found,) = yaml.safe_load(card.split("---\n")[1])["model-index"][0]["results"]
    assert found["task"] == {"type": "image-to-image", "name": "Reconstruction of pictures"}
    given.evaluations = [tmp_path / "evaluation1"]
    with pytest.raises(InputError, match="evaluation1 measured another model"):
        stage(SavedModel(saved), tmp_path / "other", given)


def test_without_its_family_it_is_refused_before_anything_is_saved(saved, tmp_path, data, own_hub, monkeypatch):
    trainer = toy_trainer(tmp_path / "run", data)
    monkeypatch.setattr(families, "_FROM_OUTSIDE", {})
    for what in (trainer.push_to_hub, lambda: stage(SavedModel(saved), tmp_path / "staged", content())):
        with pytest.raises(
            InputError, match=r"model type 'toy_images' has no family: there are hf_clip; make another"
        ):
            what()
    assert not (tmp_path / "run" / "config.json").exists()
    assert own_hub.repos == {}


def test_its_settings_count_in_the_digest():
    model = toy_model()
    before = weights_digest(model)
    model.config.width = 9
    assert TOY.digested == ("width",)
    assert weights_digest(model) != before
