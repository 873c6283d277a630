"""The model card: gathered from what a folder holds, and put into words that a stranger understands."""

import re
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from huggingface_hub import ModelCard
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from ...core.atomic import write_text
from ...evaluation.markdown import escaped, table
from .citations import citations
from .facts import CardDetails, card_facts, check_details, is_hub_id, model_facts
from .limits import Figures, bracketed, by_task, counted, label, largest_k, limits, told_apart
from .metadata import hardware, metadata
from .usage import examples, needs, run_examples

_CURVE = "pictures/training_curve.png"
_TEMPLATE = Path(__file__).with_name("card_template.md")
_NAMES = {
    "bert": "BERT", "deit": "DeiT", "dinov2": "DINOv2", "distilbert": "DistilBERT", "roberta": "RoBERTa",
    "timm_wrapper": "timm", "xlm-roberta": "XLM-RoBERTa",
}  # fmt: skip
_POOLINGS = {"pooler": "its own pooler", "mean": "mean", "cls": "first token", "last": "last token"}
_HEADINGS = {
    "retrieval": "Retrieval",
    "zero-shot": "Zero-shot classification",
    "knn": "Nearest neighbours",
    "linear-probe": "Linear probe",
}
_COLUMNS = ["", "value", "95 % interval", "chance", "best possible"]


def write_card(folder: Path, details: CardDetails, *, run_examples: bool) -> dict[str, Any]:
    """Writes `README.md` into a folder with a saved model, whole or not at all.

    Args:
        run_examples: whether the examples are run on the folder and show what they print.

    Returns:
        What the card was filled with: `render` of it is the card.

    Raises:
        InputError: see `check_details`; a file of the folder that is not as hf_clip writes it; an example that fails.
    """
    facts = facts_with_examples(folder, details, run=run_examples)
    text = render(facts)
    write_text(Path(folder, "README.md"), text)
    return facts


def facts_with_examples(folder: Path, details: CardDetails, *, run: bool) -> dict[str, Any]:
    """`card_facts`, with the examples that suit the folder; see `write_card`."""
    folder = Path(folder)
    check_details(details)
    model = model_facts(folder)
    shown = examples(folder, details, fixed_length=model.get("fixed_length"), sigmoid=model.get("loss") == "sigmoid")
    return card_facts(folder, details, run_examples(folder, details.name, shown) if run else shown)


def card_files(facts: dict[str, Any]) -> list[str]:
    """The files of the folder that the card shows or links to."""
    apart = [facts["details"]["example_picture"], *([_CURVE] if _CURVE in facts["pictures"] else [])]
    pages = [evaluation["page"] for evaluation in facts["evaluations"]]
    return list(filter(None, [*apart, *_evaluation_pictures(facts), *pages]))


# ---- put into words -----------------------------------------------------------------------------------------------


def render(facts: dict[str, Any]) -> str:
    """The card, of `card_facts`: the same facts give the same card."""
    details, model, training = facts["details"], facts["model"], facts["training"]
    towers = [_tower(side, facts) for side in ("vision", "text")] if model else []
    card = ModelCard.from_template(
        metadata(facts, towers),
        template_path=str(_TEMPLATE),
        title=escaped(details["name"]),
        description=_paragraph(details["description"]),
        adapter_of=_linked(facts["adapter_of"]) if facts["adapter_of"] else None,
        model=model,
        trained=bool(training.get("steps")),
        readers=[escaped(tower["kind"]) for tower in towers],
        summary=_summary(facts, towers),
        example_picture=_picture(details["example_picture"]) if details["example_picture"] else None,
        examples=[_example(example, facts) for example in facts["examples"]],
        drawing=_drawing(model, towers) if model else None,
        evaluation=[
            section
            for evaluation, apart in zip(facts["evaluations"], told_apart(facts["evaluations"]), strict=True)
            for section in _evaluation(evaluation, apart)
        ],
        evaluation_pictures=[_picture(name) for name in _evaluation_pictures(facts)],
        limits=limits(facts["evaluations"], training),
        data=_data_table(training),
        settings=_settings(training, "changed"),
        usual_settings=_settings(training, "default"),
        augmentation=_inline(training.get("augmentation")),
        course=_course(training),
        curve=_picture(_CURVE) if _CURVE in facts["pictures"] else None,
        versions=", ".join(
            f"{escaped(name)} {_shown(said)}" for name, said in (training.get("versions") or {}).items()
        ),
        onnx=_onnx(facts["onnx"]) if facts["onnx"] else None,
        citations=citations(towers, model.get("loss", "infonce"), _frozen(training, "vision")),
        credit=_paragraph(details["credit"] or training.get("credit") or ""),
    )
    return str(card).rstrip() + "\n"


def _paragraph(text: str) -> str:
    """A user's text, which begins no list either."""
    return re.sub(r"^(\d+)([.)])", r"\1\\\2", escaped(text))


def _fenced(text: str, language: str = "") -> str:
    """A block of code that nothing in it can end."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def _picture(file: str) -> str:
    return f"![{escaped(PurePosixPath(file).stem.replace('_', ' '))}]({quote(file)})"


def _linked(name: str) -> str:
    return f"[{escaped(name)}](https://huggingface.co/{quote(name)})" if is_hub_id(name) else escaped(name)


def _number(count: float) -> str:
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return str(count)


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


def _tower(side: str, facts: dict[str, Any]) -> dict[str, Any]:
    """What is known of a tower, with the words for it."""
    tower, training = facts["model"][side], facts["training"]
    name = training.get(f"{side}_model")
    kind = CONFIG_MAPPING_NAMES.get(tower["type"], tower["type"]).removesuffix("Config")
    return tower | {
        "name": name,
        "kind": f"timm {tower['architecture']}" if tower.get("architecture") else _NAMES.get(tower["type"], kind),
        "from": _opened(name, tower["timm"]),
        "frozen": _frozen(training, side),
    }


def _frozen(training: dict[str, Any], side: str) -> bool:
    return bool(((training.get("hyperparameters") or {}).get("changed") or {}).get(f"freeze_{side}"))


def _opened(name: str | None, timm: str | None) -> str:
    """Where a tower came from, as Markdown; empty where that is not known."""
    if not name:
        return ""
    if name.startswith("scratch/"):
        return f"{escaped(name.removeprefix('scratch/'))}, begun without pretrained weights"
    return _linked(timm if timm and name.startswith("timm/") else name)


def _summary(facts: dict[str, Any], towers: list[dict[str, Any]]) -> str:
    """The first table."""
    model, training, details = facts["model"], facts["training"], facts["details"]
    rows: list[list[str]] = []
    counts = training.get("parameters") or {}
    for tower, title in zip(towers, ("Image tower", "Text tower"), strict=False):
        size = f"{_number(tower['parameters'])} parameters" if tower["parameters"] else ""
        about = "; ".join(filter(None, [tower["from"], size, "frozen in training" if tower["frozen"] else ""]))
        kind = escaped(tower["kind"])
        rows.append([title, f"{kind}: {about}" if about else kind])
    if model:
        trained = f", {_number(counts['trained'])} of them trained" if counts.get("trained") else ""
        if model["parameters"]:
            rows.append(["Parameters", f"{_number(model['parameters'])}{trained}"])
        rows.append(["Shared space", f"{model['projection_dim']} dimensions, compared by cosine"])
        if model["image_size"]:
            rows.append(["Pictures", "{} × {} pixels".format(*model["image_size"])])
        if model["max_text_length"]:
            padded = " (shorter ones are padded to it)" if model["fixed_length"] else ""
            rows.append(["Texts", f"up to {model['max_text_length']} tokens{padded}"])
    if named := [entry["name"] for entry in training.get("data") or [] if entry.get("name")]:
        rows.append(["Trained on", ", ".join(_dataset(name) for name in named)])
    if details["language"]:
        rows.append(["Language", escaped(", ".join(details["language"]))])
    named_none = "none named: ask the publisher before you use it"
    rows.append(["Licence", escaped(details["license"]) if details["license"] else named_none])
    return table(["", ""], rows, left=(0, 1))


def _dataset(name: str) -> str:
    return f"[{escaped(name)}](https://huggingface.co/datasets/{quote(name)})" if is_hub_id(name) else escaped(name)


def _drawing(model: dict[str, Any], towers: list[dict[str, Any]]) -> str:
    """The two towers up to the loss, in lines of text."""
    size, longest = model["image_size"], model["max_text_length"]
    of_picture = "picture" + (" {}×{}".format(*size) if size else "")
    of_text = "text" + (f" ≤ {longest} tokens" if longest else "")
    head = {"linear": "linear", "mlp": "linear, GELU, linear", "none": "no projection"}[model["projection"]]
    rows = [
        [start, f"{tower['kind']}, pooled: {_POOLINGS[tower['pooling']]}", str(tower["width"]), head]
        for start, tower in zip((of_picture, of_text), towers, strict=True)
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [[f"{part} ".ljust(width + 3, "─") for part, width in zip(row, widths, strict=True)] for row in rows]
    upper, lower = map(" ".join, lines)
    temperature = f"{model['temperature']:.4g}" if model["temperature"] else "temperature"
    loss = {"infonce": "InfoNCE over the batch", "sigmoid": "plus bias: sigmoid loss of every pair"}[model["loss"]]
    space = f"├─ {model['projection_dim']}, unit length ── cosine / {temperature} ── {loss}"
    return _fenced(f"{upper}┐\n{' ' * len(upper)}{space}\n{lower}┘", "text")


def _example(example: dict[str, Any], facts: dict[str, Any]) -> dict[str, str | None]:
    output = example["output"]
    timm = any((facts["model"].get(side) or {}).get("type") == "timm_wrapper" for side in ("vision", "text"))
    packages, has_hf_clip = needs(example["code"], timm=timm, adapter=bool(facts["adapter_of"]))
    return {
        "title": example["title"],
        "install": _fenced(f"pip install {' '.join(packages)}", "sh") if packages else None,
        "has_hf_clip": has_hf_clip,
        "code": _fenced(example["code"], "python"),
        "output": _fenced(output, "text") if output else None,
    }


def _onnx(export: dict[str, Any]) -> str:
    """What is there, how near it comes to torch, and what int8 costs."""
    said = ["`onnx/` holds both towers as graphs for onnxruntime."]
    differences = export.get("largest_difference") or {}
    if found := [differences[name] for name in ("text_embeds", "image_embeds") if differences.get(name) is not None]:
        said.append(f"Their embeddings differ from torch's by {max(found):.1g} at the most.")
    said += [f"{_sentence(note)}." for note in export.get("notes") or []]
    parts = [" ".join(said)]
    if int8 := export.get("int8"):
        sizes = int8["bytes"]
        small = sum(size for name, size in sizes.items() if "int8" in name)
        before, after = (f"{size / 1e6:.4g} MB" for size in (sum(sizes.values()) - small, small))
        data = (
            f"{_dataset(int8['data']['name'])}, {escaped(int8['data']['split'])}, {int8['data']['images']:,} pictures"
        )
        parts.append(f"With 8-bit weights (`…_int8.onnx`) they take {after} in place of {before}. Measured on {data}:")
        rows = [[label(name), each["fp32"], each["int8"], each["chance"]] for name, each in int8["recall"].items()]
        parts.append(table(["", "fp32", "int8", "chance"], rows))
    return "\n\n".join(parts)


def _sentence(text: str) -> str:
    return escaped(text[:1].upper() + text[1:])


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
            yield {"title": _HEADINGS[task] + ending, "table": shown_table, "how": " ".join(how)}
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
    yield f"Data: {_dataset(data['name'])}, {escaped(data['split'])}, content {revision}{counted_as}."
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
        _dataset(entry.get("name") or "unnamed"),
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


def _course(training: dict[str, Any]) -> str:
    """How long it took, and on what, in sentences."""
    said = []
    if training.get("steps"):
        said.append(_steps(training))
    if training.get("pairs_per_second"):
        said.append(f"Speed: {training['pairs_per_second']:.4g} pairs a second.")
    if training.get("hardware"):
        said.append(f"Hardware: {escaped(hardware(training['hardware']))}.")
    emissions = training.get("emissions") or {}
    if emissions.get("kg") is not None:
        energy = f", {emissions['kwh']:.3g} kWh" if emissions.get("kwh") is not None else ""
        source = f", estimated by {escaped(emissions['source'])}" if emissions.get("source") else ""
        said.append(f"Emissions: {1000 * emissions['kg']:.3g} g of CO₂ equivalent{energy}{source}.")
    return " ".join(said)


def _steps(training: dict[str, Any]) -> str:
    epochs = f" ({counted(training['epochs'], 'epoch', 'g')})" if training.get("epochs") else ""
    batch = f" of {counted(training['batch_size'], 'pair')}" if training.get("batch_size") else ""
    batches = training.get("accumulated_batches") or 1
    if batches > 1:
        batch = f" of {batches:,} batches{batch}, each pair with the negatives of its own batch"
    trained = " was trained" if training["steps"] == 1 else " were trained"
    took = f" took {_duration(training['seconds'])}" if training.get("seconds") else trained
    return f"{counted(training['steps'], 'step')}{batch}{epochs}{took}."


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
