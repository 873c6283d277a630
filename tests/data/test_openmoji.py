"""The demo's data: concepts are split cleanly, without flags and skin tones, and attributed."""

import io
import json

import pytest
from PIL import Image

from hf_clip.data import openmoji
from hf_clip.data.openmoji import Emoji, concept_of, held_out, list_emoji, write_openmoji
from hf_clip.data.sources import open_source
from hf_clip.errors import InputError


@pytest.mark.parametrize(
    ("name", "concept"),
    [
        ("dog face", "dog face"),
        ("woman astronaut", "astronaut"),
        ("astronaut", "astronaut"),
        ("man running facing right", "running"),
        ("family man, woman, girl: boy", "family"),
        ("mermaid", "merperson"),
        ("mrs. claus", "mx claus"),
        ("older person", "old"),
        ("woman", "person"),
    ],
)
def test_variants_of_a_concept_share_its_name(name, concept):
    assert concept_of(name) == concept


def test_a_tenth_is_held_out_another_for_each_seed():
    concepts = [f"concept {i}" for i in range(1000)]
    assert len(held_out(concepts)) == 100
    assert held_out(reversed(concepts)) == held_out(concepts)
    # Of two independent draws of 100 in 1000, 10 are the same on average (σ = 2.85).
    assert len(held_out(concepts, 1) & held_out(concepts, 2)) < 25


@pytest.fixture(scope="module")
def everything() -> list[Emoji]:
    return list_emoji()


def test_the_real_list(everything):
    assert len(everything) > 1400
    assert len({item.characters for item in everything}) == len({item.svg for item in everything}) == len(everything)
    characters = "".join(item.characters for item in everything)
    assert not any("\U0001f1e6" <= c <= "\U0001f1ff" or "\U000e0020" <= c <= "\U000e007f" for c in characters), "flags"
    assert not any("\U0001f3fb" <= c <= "\U0001f3ff" for c in characters), "skin tones"
    assert next(item.names for item in everything if item.characters == "🐶")[0] == "dog face"
    assert next(item.concept for item in everything if item.characters == "👩‍🚀") == "astronaut"


def test_the_picture_of_a_concept_shows_no_gender_where_there_is_such(everything, monkeypatch, tmp_path):
    split = {}
    monkeypatch.setattr(openmoji, "list_emoji", lambda language: everything)
    monkeypatch.setattr(openmoji, "held_out", lambda concepts, seed: set(concepts))
    monkeypatch.setattr(
        openmoji, "_write_image_folder", lambda folder, items, size: split.update({folder.name: items})
    )
    write_openmoji(tmp_path)
    shown = {item.concept: item.characters for item in split["unseen"]}
    # 👨‍🚀, 🤴, 🎅, 👴, 🚹, 👭 have lower code points or fewer characters.
    expected = {
        "astronaut": "🧑‍🚀",
        "with crown": "🫅",
        "mx claus": "🧑‍🎄",
        "old": "🧓",
        "restroom": "🚻",
        "holding hands": "🧑‍🤝‍🧑",
    }
    assert {concept: shown[concept] for concept in expected} == expected


def test_folders_of_a_handful(everything, monkeypatch, tmp_path):
    # Three variants of one held-out concept, one of another, and a picture that has a held-out concept's name as well.
    chosen = [item for item in everything if item.characters in ("🧑‍🚀", "👩‍🚀", "👨‍🚀", "🐋", "🐳", "🐶", "🐱", "🍎")]
    monkeypatch.setattr(openmoji, "list_emoji", lambda language: chosen)
    monkeypatch.setattr(openmoji, "held_out", lambda concepts, seed: {"astronaut", "whale"})
    assert write_openmoji(tmp_path, size=24) == {"train": 4, "unseen": 2}

    rows = {
        split: [json.loads(line) for line in (tmp_path / split / "metadata.jsonl").read_text("utf-8").splitlines()]
        for split in ("train", "unseen")
    }
    assert {row["emoji"] for row in rows["unseen"]} == {"🧑‍🚀", "🐋"}
    assert {row["emoji"] for row in rows["train"]} == {"🐳", "🐶", "🐱", "🍎"}
    assert [row["captions"] for row in rows["unseen"]] in ([["whale"], ["astronaut"]], [["astronaut"], ["whale"]])
    names = {row["emoji"]: row["captions"] for row in rows["train"]}
    assert "whale" in next(item.names for item in chosen if item.characters == "🐳")
    assert names["🐳"][0] == "spouting whale"
    assert "whale" not in names["🐳"]
    assert names["🐶"] == list(next(item.names for item in chosen if item.characters == "🐶"))

    assert "OpenMoji" in (tmp_path / "ATTRIBUTION.txt").read_text()
    assert "CC BY-SA 4.0" in (tmp_path / "ATTRIBUTION.txt").read_text()
    apple = Image.open(io.BytesIO((tmp_path / "train" / "1F34E.png").read_bytes())).convert("RGB")
    red, green, blue = apple.getpixel((12, 14))
    assert apple.size == (24, 24)
    assert apple.getpixel((0, 0)) == (255, 255, 255)
    assert red > 150 > max(green, blue)
    assert len(open_source(tmp_path / "train")) == 4


@pytest.mark.parametrize("seed", [0, 1])
def test_no_concept_or_caption_is_in_both_splits(everything, monkeypatch, tmp_path, seed):
    captions = {}
    monkeypatch.setattr(openmoji, "list_emoji", lambda language: everything)
    monkeypatch.setattr(
        openmoji, "_write_image_folder", lambda folder, items, size: captions.update({folder.name: items})
    )
    counts = write_openmoji(tmp_path, seed=seed)
    concepts = {split: {item.concept for item in items} for split, items in captions.items()}
    texts = {split: {text for names in items.values() for text in names} for split, items in captions.items()}
    assert not concepts["train"] & concepts["unseen"]
    assert not texts["train"] & texts["unseen"]
    assert all(captions["train"].values())
    assert counts["unseen"] == len(concepts["unseen"]) > 120
    assert concepts["train"] | concepts["unseen"] == {item.concept for item in everything}


def test_names_in_another_language():
    names = {item.characters: item.names for item in list_emoji("zh")}
    assert names["🐳"] == ("喷水的鲸",)
    assert {item.concept for item in list_emoji("zh")} <= {item.concept for item in list_emoji()}
    with pytest.raises(InputError, match=r"'xx': choose one of .*\bzh\b"):
        list_emoji("xx")
