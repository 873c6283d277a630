"""The model card: gathered from what a folder holds, and put into words that a stranger understands."""

import re
from pathlib import Path

from huggingface_hub import ModelCard

from ...core.atomic import write_text
from ...core.families import family_of, load
from ...core.json_files import mapping
from ...evaluation.markdown import escaped, table
from ..saved_model import SavedModel
from .evaluation import sections
from .facts import CardDetails, CardFacts, Example, check_details
from .family import FamilyCard
from .limits import limits
from .metadata import metadata
from .training import training_sections
from .usage import needs, run_examples
from .words import dataset_link, fenced, linked, picture

_TEMPLATE = Path(__file__).with_name("card_template.md")


def write_card(saved: SavedModel, details: CardDetails, *, run_examples: bool) -> CardFacts:
    """Writes `README.md` into a folder with a saved model, whole or not at all.

    Args:
        run_examples: whether the examples are run on the folder and show what they print.

    Returns:
        What the card was filled with: `render` of it is the card.

    Raises:
        InputError: see `check_details`; a file of the folder that is not as hf_clip writes it; an example that fails.
    """
    facts = card_facts(saved, details, run=run_examples)
    write_text(saved.folder / "README.md", render(facts))
    return facts


def card_facts(saved: SavedModel, details: CardDetails, *, run: bool) -> CardFacts:
    """What a card is filled with; see `write_card`."""
    check_details(details)
    card: FamilyCard = load(saved.family.card)
    model = card.model_facts(saved) if saved.config else None
    examples = card.examples(saved, details, model)
    if run:
        examples = run_examples(saved, details.name, examples)
    return card.facts.gathered(saved, details, model, examples)


def read_facts(value: object) -> CardFacts:
    """What `CardFacts.to_json` gave.

    Raises:
        InvalidRecord: it is something else.
    """
    card: FamilyCard = load(family_of(str(mapping(value).get("model_type"))).card)
    return card.facts.from_json(value)


def card_files(facts: CardFacts) -> list[str]:
    """The files of the folder that the card shows or links to."""
    pages = [evaluation.page for evaluation in facts.evaluations]
    return list(filter(None, [facts.details.example_picture, facts.curve, *facts.other_pictures, *pages]))


# ---- put into words -----------------------------------------------------------------------------------------------


def render(facts: CardFacts) -> str:
    """The card: the same facts give the same one."""
    details, training, family = facts.details, facts.training, family_of(facts.model_type)
    card: FamilyCard = load(family.card)
    words = card.words(facts)
    page = ModelCard.from_template(
        metadata(facts, family, words),
        template_path=str(_TEMPLATE),
        title=escaped(details.name),
        description=_paragraph(details.description),
        adapter_of=linked(facts.adapter_of) if facts.adapter_of else None,
        introduction=words.introduction,
        summary=_summary(words.summary, facts),
        example_picture=picture(details.example_picture) if details.example_picture else None,
        examples=[_example(example, words.packages, adapter=bool(facts.adapter_of)) for example in facts.examples],
        notes=words.notes,
        drawing=words.drawing,
        evaluation=sections(facts.evaluations),
        evaluation_pictures=list(map(picture, facts.other_pictures)),
        limits=limits(facts.evaluations, training.skipped_pictures, family),
        curve=picture(facts.curve) if facts.curve else None,
        citations=words.citations,
        credit=_paragraph(details.credit or training.credit),
        **training_sections(training, card),
    )
    return str(page).rstrip() + "\n"


def _paragraph(text: str) -> str:
    """A user's text, which begins no list either."""
    return re.sub(r"^(\d+)([.)])", r"\1\\\2", escaped(text))


def _summary(rows: list[list[str]], facts: CardFacts) -> str:
    """The first table.

    Args:
        rows: the family's.
    """
    details, rows = facts.details, list(rows)
    if named := [entry.name for entry in facts.training.data if entry.name]:
        rows.append(["Trained on", ", ".join(dataset_link(name) for name in named)])
    if details.language:
        rows.append(["Language", escaped(", ".join(details.language))])
    named_none = "none named: ask the publisher before you use it"
    rows.append(["Licence", escaped(details.license) if details.license else named_none])
    return table(["", ""], rows, left=(0, 1))


def _example(example: Example, extra: list[str], *, adapter: bool) -> dict[str, object]:
    packages, has_hf_clip = needs(example.code, extra, adapter=adapter)
    return {
        "title": example.title,
        "install": fenced(f"pip install {' '.join(packages)}", "sh") if packages else None,
        "has_hf_clip": has_hf_clip,
        "code": fenced(example.code, "python"),
        "output": fenced(example.output, "text") if example.output else None,
    }
