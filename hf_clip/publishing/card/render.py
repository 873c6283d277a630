"""The model card: gathered from what a folder holds, and put into words that a stranger understands."""

import re
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard

from ...core.atomic import write_text
from ...core.families import Family, family_of, load
from ...evaluation.markdown import escaped, table
from .evaluation import Evaluation, charts, sections
from .facts import CardDetails, card_facts, check_details, family_in, model_facts
from .family import FamilyCard
from .limits import counted, limits
from .metadata import hardware, metadata
from .usage import needs, run_examples
from .words import cell, dataset_link, fenced, inline, linked, picture, shown, without_empty

_CURVE = "pictures/training_curve.png"
_TEMPLATE = Path(__file__).with_name("card_template.md")


def write_card(
    folder: Path, details: CardDetails, *, run_examples: bool, family: Family | None = None
) -> dict[str, Any]:
    """Writes `README.md` into a folder with a saved model, whole or not at all.

    Args:
        run_examples: whether the examples are run on the folder and show what they print.
        family: of the model; default: what the folder says.

    Returns:
        What the card was filled with: `render` of it is the card.

    Raises:
        InputError: see `check_details`; a file of the folder that is not as hf_clip writes it; an example that fails.
    """
    facts = facts_with_examples(folder, details, run=run_examples, family=family)
    text = render(facts)
    write_text(Path(folder, "README.md"), text)
    return facts


def facts_with_examples(
    folder: Path, details: CardDetails, *, run: bool, family: Family | None = None
) -> dict[str, Any]:
    """`card_facts`, with the examples that suit the folder; see `write_card`."""
    folder = Path(folder)
    check_details(details)
    family = family or family_in(folder)
    shown = load(family.card).examples(folder, details, model_facts(folder, family))
    return card_facts(folder, details, family, run_examples(folder, details.name, shown) if run else shown)


def card_files(facts: dict[str, Any]) -> list[str]:
    """The files of the folder that the card shows or links to."""
    apart = [facts["details"]["example_picture"], *([_CURVE] if _CURVE in facts["pictures"] else [])]
    pages = [evaluation["page"] for evaluation in facts["evaluations"]]
    return list(filter(None, [*apart, *_evaluation_pictures(facts), *pages]))


# ---- put into words -----------------------------------------------------------------------------------------------


def render(facts: dict[str, Any]) -> str:
    """The card, of `card_facts`: the same facts give the same card."""
    details, training, family = facts["details"], facts["training"], family_of(facts["model_type"])
    card: FamilyCard = load(family.card)
    evaluations = [Evaluation.from_json(each) for each in facts["evaluations"]]
    page = ModelCard.from_template(
        metadata(facts),
        template_path=str(_TEMPLATE),
        title=escaped(details["name"]),
        description=_paragraph(details["description"]),
        adapter_of=linked(facts["adapter_of"]) if facts["adapter_of"] else None,
        introduction=card.introduction(facts),
        summary=_summary(facts, card),
        example_picture=picture(details["example_picture"]) if details["example_picture"] else None,
        examples=[_example(example, facts, card) for example in facts["examples"]],
        notes=card.notes(facts),
        drawing=card.drawing(facts),
        evaluation=sections(evaluations),
        evaluation_pictures=[picture(name) for name in _evaluation_pictures(facts)],
        limits=limits(evaluations, training, family),
        data=_data_table(training),
        settings=_settings(training, "changed"),
        usual_settings=_settings(training, "default"),
        augmentation=inline(training.get("augmentation")),
        course=_course(training, card),
        curve=picture(_CURVE) if _CURVE in facts["pictures"] else None,
        versions=", ".join(
            f"{escaped(name)} {shown(said)}" for name, said in (training.get("versions") or {}).items()
        ),
        citations=card.citations(facts),
        credit=_paragraph(details["credit"] or training.get("credit") or ""),
    )
    return str(page).rstrip() + "\n"


def _paragraph(text: str) -> str:
    """A user's text, which begins no list either."""
    return re.sub(r"^(\d+)([.)])", r"\1\\\2", escaped(text))


# ---- what it is ---------------------------------------------------------------------------------------------------


def _summary(facts: dict[str, Any], card: FamilyCard) -> str:
    """The first table."""
    training, details = facts["training"], facts["details"]
    rows = card.summary(facts)
    if named := [entry["name"] for entry in training.get("data") or [] if entry.get("name")]:
        rows.append(["Trained on", ", ".join(dataset_link(name) for name in named)])
    if details["language"]:
        rows.append(["Language", escaped(", ".join(details["language"]))])
    named_none = "none named: ask the publisher before you use it"
    rows.append(["Licence", escaped(details["license"]) if details["license"] else named_none])
    return table(["", ""], rows, left=(0, 1))


def _example(example: dict[str, Any], facts: dict[str, Any], card: FamilyCard) -> dict[str, str | None]:
    output = example["output"]
    packages, has_hf_clip = needs(example["code"], card.packages(facts), adapter=bool(facts["adapter_of"]))
    return {
        "title": example["title"],
        "install": fenced(f"pip install {' '.join(packages)}", "sh") if packages else None,
        "has_hf_clip": has_hf_clip,
        "code": fenced(example["code"], "python"),
        "output": fenced(output, "text") if output else None,
    }


def _evaluation_pictures(facts: dict[str, Any]) -> list[str]:
    apart = {_CURVE, facts["details"]["example_picture"]}
    own = [name for name in facts["pictures"] if name not in apart]
    return own + [name for each in facts["evaluations"] for name in charts(Evaluation.from_json(each))]


# ---- training -----------------------------------------------------------------------------------------------------


def _data_table(training: dict[str, Any]) -> str | None:
    rows = [_data_row(entry) for entry in training.get("data") or []]
    header = ["data", "pictures", "captions", "captions a picture", "share of an epoch", "length of a caption"]
    return without_empty(header, rows) if rows else None


def _data_row(entry: dict[str, Any]) -> list[str]:
    weight, each = entry.get("weight"), entry.get("captions_per_picture")
    lengths = ""
    for unit in ("words", "characters"):
        if found := entry.get(unit):
            lengths = f"{found['median']:g} {unit} (median; {found['shortest']:g} to {found['longest']:g})"
    return [
        dataset_link(entry.get("name") or "unnamed"),
        "streamed" if entry.get("streamed") else cell(entry.get("pictures")),
        cell(entry.get("captions")),
        "" if each is None else f"{each:.3g}",
        "" if weight is None else f"{weight:.3g}",
        lengths,
    ]


def _settings(training: dict[str, Any], kind: str) -> str | None:
    settings = (training.get("hyperparameters") or {}).get(kind) or {}
    rows = [[f"`{name}`", shown(value)] for name, value in settings.items() if value is not None]
    return table(["setting", "value"], rows, left=(0, 1)) if rows else None


def _course(training: dict[str, Any], card: FamilyCard) -> str:
    """How long it took, and on what, in sentences."""
    said = []
    if training.get("steps"):
        said.append(_steps(training, card))
    if training.get("pairs_per_second"):
        said.append(f"Speed: {training['pairs_per_second']:.4g} {card.item}s a second.")
    if training.get("hardware"):
        said.append(f"Hardware: {escaped(hardware(training['hardware']))}.")
    emissions = training.get("emissions") or {}
    if emissions.get("kg") is not None:
        energy = f", {emissions['kwh']:.3g} kWh" if emissions.get("kwh") is not None else ""
        source = f", estimated by {escaped(emissions['source'])}" if emissions.get("source") else ""
        said.append(f"Emissions: {1000 * emissions['kg']:.3g} g of CO₂ equivalent{energy}{source}.")
    return " ".join(said)


def _steps(training: dict[str, Any], card: FamilyCard) -> str:
    epochs = f" ({counted(training['epochs'], 'epoch', 'g')})" if training.get("epochs") else ""
    batch = f" of {counted(training['batch_size'], card.item)}" if training.get("batch_size") else ""
    batches = training.get("accumulated_batches") or 1
    if batches > 1:
        batch = f" of {batches:,} batches{batch}{card.of_each_batch}"
    trained = " was trained" if training["steps"] == 1 else " were trained"
    took = f" took {_duration(training['seconds'])}" if training.get("seconds") else trained
    return f"{counted(training['steps'], 'step')}{batch}{epochs}{took}."


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
