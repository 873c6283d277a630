"""The cards of the models that this repository trains are what the template makes of their facts."""

import json
import re
from pathlib import Path
from urllib.parse import unquote

import pytest

import model_cards
from hf_clip.core.errors import InputError
from hf_clip.publishing.card.facts import CardDetails
from hf_clip.publishing.card.render import card_files, read_facts, render, write_card
from hf_clip.publishing.saved_model import SavedModel

CARDS = sorted(model_cards.CARDS.glob("*/card.json"))


def test_every_model_has_its_card():
    assert {"openmoji", "openmoji_languages"} <= {file.parent.name for file in CARDS}


@pytest.mark.parametrize("facts", CARDS, ids=lambda file: file.parent.name)
def test_a_card_is_in_step_with_the_template(facts):
    """`python scripts/model_cards.py` brings it there."""
    card = render(read_facts(json.loads(facts.read_text("utf-8"))))
    assert facts.with_name("README.md").read_text(encoding="utf-8") == card


@pytest.mark.parametrize("facts", CARDS, ids=lambda file: file.parent.name)
def test_what_a_card_shows_is_there_and_nothing_else(facts):
    text, folder = facts.with_name("README.md").read_text(encoding="utf-8"), facts.parent
    targets = {unquote(target) for target in re.findall(r"\]\(([^)]+)\)", text)}
    named = {target for target in targets if not target.startswith("https://")}
    there = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    assert named == there - {"card.json", "README.md"}


@pytest.mark.parametrize("facts", CARDS, ids=lambda file: file.parent.name)
def test_the_examples_of_a_card_were_run(facts):
    assert all(example["output"] for example in json.loads(facts.read_text("utf-8"))["examples"])


@pytest.fixture
def staged(model_folder) -> Path:
    (model_folder / "pictures").mkdir()
    (model_folder / "pictures" / "training_curve.png").write_bytes(b"curve")
    (model_folder / "pictures" / "example.png").write_bytes(b"example")
    return model_folder


def settings(staged, *more: str):
    given = model_cards._parser().parse_args(["birds", str(staged), "--repo_id", "someone/birds", *more])
    return model_cards.staged_details(staged, given)


def test_a_staged_card_is_taken_with_all_that_it_shows(staged, tmp_path):
    labels = ["a robin", "a wren"]
    details = CardDetails(
        "someone/birds", "mit", ["en"], ["org/birds"], description="Birds.", example_labels=labels,
        example_picture="pictures/example.png", tags=["birds"],
    )  # fmt: skip
    facts = write_card(SavedModel(staged), details, run_examples=False)
    taken = tmp_path / "cards" / "birds"
    (taken / "pictures").mkdir(parents=True)
    (taken / "pictures" / "old.png").touch()
    again = settings(staged, "--description", "Birds.", "--example_labels", *labels)
    model_cards.take(staged, taken, again, run_examples=False)
    assert sorted(file.name for file in taken.rglob("*.png")) == ["example.png", "training_curve.png"]
    assert card_files(facts) == ["pictures/example.png", "pictures/training_curve.png"]
    assert (taken / "pictures" / "example.png").read_bytes() == b"example"
    assert read_facts(json.loads((taken / "card.json").read_text("utf-8"))) == facts
    assert (taken / "README.md").read_text("utf-8") == (staged / "README.md").read_text("utf-8")


def test_a_card_of_other_settings_is_refused(staged, tmp_path):
    write_card(SavedModel(staged), CardDetails("someone/birds", description="Birds."), run_examples=False)
    with pytest.raises(InputError, match="says something else"):
        model_cards.take(staged, tmp_path / "cards", settings(staged), run_examples=False)
    assert not (tmp_path / "cards").exists()


def test_only_cards_that_have_changed_are_written(staged, tmp_path):
    details = CardDetails("someone/birds", example_picture="pictures/example.png")
    write_card(SavedModel(staged), details, run_examples=False)
    for name in ("one", "two"):
        model_cards.take(staged, tmp_path / "cards" / name, details, run_examples=False)
    (tmp_path / "cards" / "two" / "README.md").write_text("old")
    assert model_cards.render_again(tmp_path / "cards") == ["two"]
    assert model_cards.render_again(tmp_path / "cards") == []
