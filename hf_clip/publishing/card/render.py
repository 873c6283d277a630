"""The model card: gathered from what a folder holds, and put into words that a stranger understands."""

import re
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from huggingface_hub import ModelCard

from ...core.atomic import write_text
from ...core.families import Family, family_of, load
from ...evaluation.markdown import escaped, table
from ...evaluation.tasks.registry import find_task
from .facts import CardDetails, card_facts, check_details, family_in, model_facts
from .family import FamilyCard
from .limits import Figures, bracketed, by_task, counted, label, largest_k, limits, told_apart
from .metadata import hardware, metadata
from .usage import needs, run_examples
from .words import dataset_link, fenced, linked

_CURVE = "pictures/training_curve.png"
_TEMPLATE = Path(__file__).with_name("card_template.md")
_COLUMNS = ["", "value", "95 % interval", "chance", "best possible"]


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
    page = ModelCard.from_template(
        metadata(facts),
        template_path=str(_TEMPLATE),
        title=escaped(details["name"]),
        description=_paragraph(details["description"]),
        adapter_of=linked(facts["adapter_of"]) if facts["adapter_of"] else None,
        introduction=card.introduction(facts),
        summary=_summary(facts, card),
        example_picture=_picture(details["example_picture"]) if details["example_picture"] else None,
        examples=[_example(example, facts, card) for example in facts["examples"]],
        notes=card.notes(facts),
        drawing=card.drawing(facts),
        evaluation=[
            section
            for evaluation, apart in zip(facts["evaluations"], told_apart(facts["evaluations"]), strict=True)
            for section in _evaluation(evaluation, apart)
        ],
        evaluation_pictures=[_picture(name) for name in _evaluation_pictures(facts)],
        limits=limits(facts["evaluations"], training, family),
        data=_data_table(training),
        settings=_settings(training, "changed"),
        usual_settings=_settings(training, "default"),
        augmentation=_inline(training.get("augmentation")),
        course=_course(training, card),
        curve=_picture(_CURVE) if _CURVE in facts["pictures"] else None,
        versions=", ".join(
            f"{escaped(name)} {_shown(said)}" for name, said in (training.get("versions") or {}).items()
        ),
        citations=card.citations(facts),
        credit=_paragraph(details["credit"] or training.get("credit") or ""),
    )
    return str(page).rstrip() + "\n"


def _paragraph(text: str) -> str:
    """A user's text, which begins no list either."""
    return re.sub(r"^(\d+)([.)])", r"\1\\\2", escaped(text))


def _picture(file: str) -> str:
    return f"![{escaped(PurePosixPath(file).stem.replace('_', ' '))}]({quote(file)})"


def _inline(values: dict[str, Any] | None) -> str:
    """Settings by name, in a line."""
    return ", ".join(f"{escaped(name.replace('_', ' '))} {_shown(value)}" for name, value in (values or {}).items())


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return _inline(value)
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    return escaped(f"{value:g}" if isinstance(value, float) else str(value))


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


# ---- evaluation ---------------------------------------------------------------------------------------------------


def _evaluation(evaluation: dict[str, Any], apart: str) -> Iterator[dict[str, str]]:
    """Of each task a heading, a table and how it was measured; all languages in one.

    Args:
        apart: what the headings say of it beside the task, where another evaluation has it too.
    """
    tasks, ending = by_task(evaluation), f" on {escaped(apart)}" if apart else ""
    for task, figures in tasks.items():
        if not task.startswith("retrieval/"):
            shown = {name: figure for name, figure in figures.items() if "_map@" not in name}
            rows = [[label(name), *_cells(name, figure)] for name, figure in shown.items()]
            if all(figure["ceiling"] in (None, 1) for figure in shown.values()):
                rows = [row[:-1] for row in rows]
            shown_table = _without_empty(_COLUMNS[: len(rows[0])], rows)
            how = _how(evaluation, list(figures.values()), _counts(next(iter(figures.values()))))
            yield {"title": find_task(task).title + ending, "table": shown_table, "how": " ".join(how)}
    languages = {task.partition("/")[2]: figures for task, figures in tasks.items() if task.startswith("retrieval/")}
    if languages:
        yield _by_language(languages, evaluation, ending)


def _by_language(languages: dict[str, Figures], evaluation: dict[str, Any], ending: str) -> dict[str, str]:
    """One row a language, with its counts where these differ."""
    counts = {language: _counts(next(iter(figures.values()))) for language, figures in languages.items()}
    first = next(iter(counts.values()))
    differing = {} if all(each == first for each in counts.values()) else dict.fromkeys(chain(*counts.values()))
    header = ["language", *differing, "k", "text → image recall@k", "chance", "image → text recall@k", "chance"]
    rows = []
    for language, figures in languages.items():
        k = largest_k(figures)
        of_both = (figures.get(f"{way}_retrieval_recall@{k}") for way in ("image", "text"))
        cells = [(bracketed(figure), _cell(figure["chance"])) if figure else ("", "") for figure in of_both]
        sizes = (_cell(counts[language].get(word)) for word in differing)
        rows.append([escaped(language), *sizes, str(k), *chain(*cells)])
    every = [figure for figures in languages.values() for figure in figures.values()]
    how = " ".join(_how(evaluation, every, {} if differing else first))
    return {"title": f"Retrieval by language{ending}", "table": table(header, rows), "how": how}


def _cells(name: str, figure: dict[str, Any]) -> list[str]:
    interval = "" if figure["low"] is None else f"{figure['low']:.3f} to {figure['high']:.3f}"
    value = f"{figure['value']:g}" if name.endswith("rank") else _cell(figure["value"])
    return [value, interval, _cell(figure["chance"]), _cell(figure["ceiling"])]


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}" if isinstance(value, float) else f"{value:,}"


def _without_empty(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table without the columns in which nothing stands."""
    kept = [place for place in range(len(header)) if place == 0 or any(row[place] for row in rows)]
    return table([header[place] for place in kept], [[row[place] for place in kept] for row in rows])


def _counts(figure: dict[str, Any]) -> dict[str, int]:
    """Of what a figure was measured on, by name."""
    words = {"images": "pictures", "captions": "captions", "classes": "classes"}
    return {word: figure[name] for name, word in words.items() if figure.get(name) is not None}


def _how(evaluation: dict[str, Any], figures: list[dict[str, Any]], counts: dict[str, int]) -> Iterator[str]:
    """What a reader must know to compare the figures with another's, in sentences."""
    first, data = figures[0], evaluation["data"]
    sizes = ", ".join(f"{count:,} {word}" for word, count in counts.items())
    revision = escaped(first["data_revision"])
    counted_as = f": {sizes}" if sizes else ""
    yield f"Data: {dataset_link(data['name'])}, {escaped(data['split'])}, content {revision}{counted_as}."
    if any(figure["low"] is not None for figure in figures):
        yield f"Intervals: {escaped(evaluation['intervals'])}."
    if first["protocol"]:
        said = (
            f"{escaped(name.replace('_', ' '))}: {_said(value)}"
            for name, value in first["protocol"].items()
            if name != "language"  # which the table says
        )
        yield f"Protocol: {'; '.join(said)}."
    yield f"Weights: {escaped(first['revision'])}, {escaped(first['precision'])}."
    if evaluation["page"]:
        yield f"Every figure: [{escaped(evaluation['page'])}]({quote(evaluation['page'])})."


def _said(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(f"“{escaped(entry)}”" if isinstance(entry, str) else _said(entry) for entry in value)
    return _shown(value)


def _evaluation_pictures(facts: dict[str, Any]) -> list[str]:
    apart = {_CURVE, facts["details"]["example_picture"]}
    own = [name for name in facts["pictures"] if name not in apart]
    return own + [name for evaluation in facts["evaluations"] for name in _charts(evaluation)]


def _charts(evaluation: dict[str, Any]) -> list[str]:
    """An evaluation's pictures but those of single languages, which its report has: they say little and are many."""
    languages = tuple(
        f"_{task.partition('/')[2]}.png" for task in by_task(evaluation) if task.startswith("retrieval/")
    )
    return [name for name in evaluation["pictures"] if not (languages and name.endswith(languages))]


# ---- training -----------------------------------------------------------------------------------------------------


def _data_table(training: dict[str, Any]) -> str | None:
    rows = [_data_row(entry) for entry in training.get("data") or []]
    header = ["data", "pictures", "captions", "captions a picture", "share of an epoch", "length of a caption"]
    return _without_empty(header, rows) if rows else None


def _data_row(entry: dict[str, Any]) -> list[str]:
    weight, each = entry.get("weight"), entry.get("captions_per_picture")
    lengths = ""
    for unit in ("words", "characters"):
        if found := entry.get(unit):
            lengths = f"{found['median']:g} {unit} (median; {found['shortest']:g} to {found['longest']:g})"
    return [
        dataset_link(entry.get("name") or "unnamed"),
        "streamed" if entry.get("streamed") else _cell(entry.get("pictures")),
        _cell(entry.get("captions")),
        "" if each is None else f"{each:.3g}",
        "" if weight is None else f"{weight:.3g}",
        lengths,
    ]


def _settings(training: dict[str, Any], kind: str) -> str | None:
    settings = (training.get("hyperparameters") or {}).get(kind) or {}
    rows = [[f"`{name}`", _shown(value)] for name, value in settings.items() if value is not None]
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
