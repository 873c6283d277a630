"""The demo's data: concepts are split cleanly, without flags and skin tones, and attributed."""

import io
import json
from dataclasses import replace

import emoji
import pytest
from PIL import Image

from hf_clip.core.errors import InputError
from hf_clip.data import openmoji
from hf_clip.data.openmoji import Emoji, concept_of, held_out, list_emoji, write_openmoji
from hf_clip.data.sources import open_source


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


def read(folder):
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text("utf-8").splitlines()]


def test_several_languages_have_the_pictures_of_english(everything, monkeypatch, tmp_path):
    monkeypatch.setattr(openmoji, "_png", lambda item, size: b"")
    counts = write_openmoji(tmp_path / "en")
    assert write_openmoji(tmp_path / "all", language=emoji.LANGUAGES[::-1]) == counts
    for split in ("train", "unseen"):
        english, several = read(tmp_path / "en" / split), read(tmp_path / "all" / split)
        assert [row["emoji"] for row in several] == [row["emoji"] for row in english]
        assert [row["captions"]["en"] for row in several] == [row["captions"] for row in english]
        assert all(list(row["captions"]) == emoji.LANGUAGES[::-1] for row in several)
    names = {row["emoji"]: row["captions"] for row in read(tmp_path / "all" / "train")}
    assert names["🐶"]["zh"] == ["狗脸"]
    assert names["🐶"]["en"] == ["dog face", "dog"]
    assert all(row["captions"]["zh"] for row in read(tmp_path / "all" / "unseen"))


@pytest.mark.parametrize("seed", [0, 1])
def test_no_name_of_a_held_out_concept_is_in_train_in_any_language(everything, monkeypatch, tmp_path, seed):
    monkeypatch.setattr(openmoji, "_png", lambda item, size: b"")
    write_openmoji(tmp_path, seed=seed, language=emoji.LANGUAGES)
    concepts = {row["concept"] for row in read(tmp_path / "unseen")}
    held = {item.characters for item in everything if item.concept in concepts}
    train = {name for row in read(tmp_path / "train") for names in row["captions"].values() for name in names}
    # Straight from the package: of each variant of these concepts the name in every language.
    secret = {emoji.EMOJI_DATA[each][language] for each in held for language in emoji.LANGUAGES}
    assert len(secret) > 1500
    assert not {name.strip(":").replace("_", " ").lower() for name in secret} & train
    assert not {row["emoji"] for row in read(tmp_path / "train")} & held
    if seed == 0:  # "pesca", fishing in Portuguese, is a peach in Italian
        assert "peach" in concepts
        fishing = next(row for row in read(tmp_path / "train") if row["emoji"] == "🎣")
        assert fishing["captions"]["pt"] == []
        assert fishing["captions"]["it"]


def test_a_column_for_each_language(everything, monkeypatch, tmp_path):
    english = [item for item in everything if item.characters in ("🧑‍🚀", "👩‍🚀", "🐶", "🐱")]
    # No name for the cat; and the dog is also called what a variant of a held-out concept is.
    chinese = {"🧑‍🚀": ("宇航员",), "👩‍🚀": ("女宇航员",), "🐶": ("狗脸", "女宇航员")}
    names = [replace(item, names=chinese[item.characters]) for item in english if item.characters in chinese]
    monkeypatch.setattr(openmoji, "held_out", lambda concepts, seed: {"astronaut"})
    monkeypatch.setattr(openmoji, "list_emoji", lambda language: english if language == "en" else names)
    assert write_openmoji(tmp_path, size=24, language=("en", "zh")) == {"train": 2, "unseen": 1}
    unseen = open_source(tmp_path / "unseen", caption_column="captions.zh")
    assert unseen.captions(0) == ["宇航员"]
    train = open_source(tmp_path / "train", caption_column="captions.zh", captions_required=False)
    assert sorted(train.captions(row) for row in range(2)) == [[], ["狗脸"]]
    assert open_source(tmp_path / "train", caption_column="captions.en").captions(0)
    with pytest.raises(InputError, match="empty caption"):
        open_source(tmp_path / "train", caption_column="captions.zh")


def test_names_in_another_language():
    names = {item.characters: item.names for item in list_emoji("zh")}
    assert names["🐳"] == ("喷水的鲸",)
    assert {item.concept for item in list_emoji("zh")} <= {item.concept for item in list_emoji()}
    with pytest.raises(InputError, match=r"'xx': choose one of .*\bzh\b"):
        list_emoji("xx")
