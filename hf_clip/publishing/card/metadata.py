"""The metadata of a model card: what the Hub filters by, links and shows in its tables."""

import re
from collections.abc import Iterator
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from ...core.families import Family, family_of, load
from ...evaluation.records import Figure
from ..hub_ids import is_hub_id
from .evaluation import Evaluation
from .family import FamilyCard

_OF_FILES = {"sentence-transformers": "sentence_transformers", "onnx": "onnx"}  # tag → what of the facts earns it
_COUNTS = ("images", "captions", "classes", "classes_without_pictures", "skipped_images")


def own_tags(family: Family) -> list[str]:
    """Those that hf_clip gives a model of a family, where its files earn them."""
    return ["hf_clip", *family.tags, *_OF_FILES]


def metadata(facts: dict[str, Any]) -> ModelCardData:
    """
    Args:
        facts: of `card_facts`.
    """
    family = family_of(facts["model_type"])
    card = load(family.card)
    details, training = facts["details"], facts["training"]
    named = [entry.get("name") for entry in training.get("data") or []]
    results = [result for each in facts["evaluations"] for result in _eval_results(Evaluation.from_json(each))]
    tags = [tag for tag in own_tags(family) if tag not in _OF_FILES or facts[_OF_FILES[tag]]]
    tags += details.get("tags") or []
    return ModelCardData(
        language=details["language"] or None,
        license=details["license"] or None,
        library_name="peft" if facts["adapter_of"] else "transformers",
        pipeline_tag=family.task,
        tags=list(dict.fromkeys(tags)),
        base_model=_base_models(facts, card) or None,
        base_model_relation="adapter" if facts["adapter_of"] else None,
        datasets=list(dict.fromkeys([*details["datasets"], *filter(is_hub_id, named)])) or None,
        co2_eq_emissions=_emissions(facts, card),
        model_name=details["name"].rpartition("/")[2] if results else None,
        eval_results=results or None,
    )


def _base_models(facts: dict[str, Any], card: FamilyCard) -> list[str]:
    named = facts["details"]["base_model"]  # by the publisher, who may name one without an owner
    found = [facts["training"].get("started_from"), *card.base_models(facts)]
    if facts["adapter_of"]:
        return list(dict.fromkeys([*filter(is_hub_id, [facts["adapter_of"]]), *named]))
    return list(dict.fromkeys(named or filter(is_hub_id, found)))


def _emissions(facts: dict[str, Any], card: FamilyCard) -> dict[str, Any] | None:
    training = facts["training"]
    emissions = training.get("emissions") or {}
    if emissions.get("kg") is None:
        return None
    scratch = card.is_from_scratch(facts) and not training.get("started_from")
    said = {
        "emissions": 1000 * emissions["kg"],  # grams
        "source": emissions.get("source"),
        "training_type": "pre-training" if scratch else "fine-tuning",
        "geographical_location": emissions.get("grid"),
        "hardware_used": hardware(training["hardware"]) if training.get("hardware") else None,
    }
    return {name: value for name, value in said.items() if value is not None}


def _eval_results(evaluation: Evaluation) -> Iterator[EvalResult]:
    """The figures that a leaderboard compares; of each language those that stand for all."""
    for measured in evaluation.measured():
        task, figures = measured.task, measured.figures
        dataset_id, words = _dataset(measured.first)
        type_, title = task.hub_type
        for figure in task.headline(figures) if measured.language else figures.values():
            if not task.on_hub(figure.metric):
                continue
            yield EvalResult(
                task_type=type_,
                task_name=title,
                dataset_type=dataset_id,
                dataset_name=words,
                dataset_config=figure.language or None,
                dataset_split=figure.split,
                dataset_revision=figure.data_revision,
                metric_type=task.hub_metric(figure.metric),
                metric_name=task.label(figure.metric),
                metric_value=figure.value,
                metric_args=_metric_args(figure, evaluation.intervals),
            )


def _dataset(figure: Figure) -> tuple[str, str]:
    """(type, name) of the data: the Hub id; else a slug, of more than one word lest it be taken for an id."""
    name = figure.data
    if is_hub_id(name):
        return name, name
    words = name if re.search(r"\w\W+\w", name) else f"{name}, {figure.split}"
    return re.sub(r"[\W_]+", "-", words.casefold()).strip("-") or "data", words


def _metric_args(figure: Figure, intervals: str) -> dict[str, object]:
    said: dict[str, object] = {"k": figure.k, **{name: getattr(figure, name) for name in _COUNTS}}
    said |= {name: getattr(figure, name) for name in ("low", "high", "chance", "ceiling", "precision")}
    said["intervals"] = intervals if figure.interval else None
    said |= {"model_revision": figure.revision, "protocol": figure.protocol}
    return {name: value for name, value in said.items() if value is not None}


def hardware(facts: dict[str, Any]) -> str:
    """GPU or CPU, processes, precision."""
    processes = facts.get("processes")
    parts = [facts.get("device"), facts.get("precision")]
    parts.insert(1, f"{processes} process{'' if processes == 1 else 'es'}" if processes else None)
    return ", ".join(filter(None, parts))
