"""Keeps the cards of the models that this repository trains: `model_cards/NAME`, with what a card shows and links to.

    hf-clip publish --model FOLDER --repo_id user/name --dry_run --output STAGED …
    python scripts/model_cards.py NAME STAGED --repo_id user/name …    # takes the card of a folder ready to go up
    python scripts/model_cards.py                                      # renders all cards again, by the template

`card.json` holds what a card is filled with, so the second form needs no model.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

from huggingface_hub import ModelCard

from hf_clip.core.errors import InputError
from hf_clip.publishing.card.facts import CardDetails
from hf_clip.publishing.card.metadata import own_tags
from hf_clip.publishing.card.render import card_facts, card_files, read_facts, render
from hf_clip.publishing.saved_model import SavedModel

CARDS = Path(__file__).parents[1] / "model_cards"
FACTS, CARD = "card.json", "README.md"


def take(staged: Path, target: Path, details: CardDetails, *, run_examples: bool = True) -> None:
    """Writes facts, card and what it shows or links to; what an earlier card left there goes.

    Raises:
        InputError: the folder's card was written with other details.
    """
    facts = card_facts(SavedModel(staged), details, run=run_examples)
    text = render(facts)
    if text != (staged / CARD).read_text(encoding="utf-8"):
        raise InputError(f"{staged / CARD} says something else: give the settings that `hf-clip publish` was given")
    shutil.rmtree(target, ignore_errors=True)
    for name in card_files(facts):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(staged / name, target / name)
    target.mkdir(parents=True, exist_ok=True)
    facts.write(target / FACTS)
    (target / CARD).write_text(text, encoding="utf-8")


def render_again(cards: Path) -> list[str]:
    """Writes the cards that have changed; their names."""
    changed = []
    for file in sorted(cards.glob(f"*/{FACTS}")):
        text, card = render(read_facts(json.loads(file.read_text(encoding="utf-8")))), file.with_name(CARD)
        if not card.is_file() or card.read_text(encoding="utf-8") != text:
            card.write_text(text, encoding="utf-8")
            changed.append(file.parent.name)
    return changed


def staged_details(staged: Path, settings: argparse.Namespace) -> CardDetails:
    """What the publisher said: from the card's metadata, and for the rest from the settings."""
    data, example = ModelCard.load(staged / CARD).data, "pictures/example.png"
    return CardDetails(
        name=settings.repo_id,
        license=data.license,
        language=data.language or [],
        datasets=data.datasets or [],
        base_model=data.base_model or [],
        description=settings.description,
        example_picture=example if (staged / example).is_file() else None,
        example_labels=settings.example_labels,
        tags=[tag for tag in data.tags or [] if tag not in own_tags(SavedModel(staged).family)],
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", help="folder in model_cards")
    parser.add_argument("staged", nargs="?", type=Path, help="folder that `hf-clip publish --dry_run` wrote")
    parser.add_argument("--repo_id", help="as it was given to publish, like the next two")
    parser.add_argument("--description", default="")
    parser.add_argument("--example_labels", nargs="+", default=[])
    return parser


if __name__ == "__main__":
    given = _parser().parse_args()
    if given.name and not (given.staged and given.repo_id):
        sys.exit("model_cards.py: give a staged folder and its --repo_id with the name")
    try:
        if given.name:
            take(given.staged, CARDS / given.name, staged_details(given.staged, given))
        else:
            print("\n".join(render_again(CARDS)) or "nothing has changed")
    except InputError as error:
        sys.exit(f"model_cards.py: {error}")
