"""What a card is told where a family says no more than what it is."""

from dataclasses import dataclass, replace

import pytest
from cards import NAME, TRAINING, card, metadata, put, section, tidy
from huggingface_hub.dataclasses import strict
from toy_images import TOY, toy_model

from hf_clip.core import families
from hf_clip.core.errors import InputError
from hf_clip.core.records import InvalidRecord
from hf_clip.core.training_record import TrainingRecord
from hf_clip.publishing.card.facts import CardDetails, CardFacts, CardModel
from hf_clip.publishing.card.family import FamilyCard, FamilyWords
from hf_clip.publishing.card.render import write_card
from hf_clip.publishing.saved_model import SavedModel


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setitem(families._FROM_OUTSIDE, "toy_images", replace(TOY, card=FamilyCard("a thing of its own.")))
    toy_model().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


OF_ANY_RUN = {name: said for name, said in TRAINING.items() if name in TrainingRecord.__dataclass_fields__}


@pytest.mark.parametrize("training", [{}, OF_ANY_RUN | {"accumulated_batches": 4}], ids=["untrained", "trained"])
def test_its_card_is_whole(folder, training):
    text = card(folder, training=training)
    tidy(text)
    assert "\nThis is a thing of its own.\n" in text
    assert f"| Parameters | {2 * 192 * 8 + 192 + 3 * 8:.0f}"[:16] in text
    assert "## Citations" not in text
    assert "## How it is built" not in text
    assert metadata(text)["tags"] == ["hf_clip", "toy"]
    if training:
        assert "1,253 steps of 4 batches of 128 pictures (22 epochs) took" in section(text, "Training")
        assert metadata(text)["co2_eq_emissions"]["training_type"] == "pre-training"


def test_a_folder_that_does_not_say_what_it_holds_is_refused(tmp_path):
    put(tmp_path, "config.json", {"width": 8})
    with pytest.raises(InputError, match=r"does not say what kind of model it holds .*save_pretrained$"):
        write_card(SavedModel(tmp_path), CardDetails(NAME), run_examples=False)
    put(tmp_path, "config.json", {"model_type": "bert"})
    with pytest.raises(InputError, match=r"model type 'bert' has no family: there are hf_clip, toy_images; make"):
        write_card(SavedModel(tmp_path), CardDetails(NAME), run_examples=False)
    assert not (tmp_path / "README.md").exists()


@strict
@dataclass
class CountedTraining(TrainingRecord):
    codes_used: int = 0


@strict
@dataclass
class CountedFacts(CardFacts):
    training: CountedTraining


class CountedCard(FamilyCard[CountedFacts, CardModel]):
    facts = CountedFacts

    def words(self, facts: CountedFacts) -> FamilyWords:
        return replace(super().words(facts), notes=[f"It uses {facts.training.codes_used} codes."])


def test_a_family_s_runs_say_more_and_its_card_reads_it(folder, monkeypatch):
    monkeypatch.setitem(families._FROM_OUTSIDE, "toy_images", replace(TOY, card=CountedCard("a thing.")))
    text = card(folder, training=CountedTraining(steps=3, codes_used=512).to_json())
    tidy(text)
    assert "\nIt uses 512 codes.\n" in text
    put(folder, "training.json", {"codes_used": "many"})
    with pytest.raises(InvalidRecord, match=r"training.json is not as hf_clip writes it \(Field 'codes_used'"):
        write_card(SavedModel(folder), CardDetails(NAME), run_examples=False)
