"""The metadata of a model card: what the Hub filters by, links and shows in its tables."""

import re
from collections.abc import Iterator

from huggingface_hub import EvalResult, ModelCardData

from ...core.families import Family
from ...core.training_record import TrainingRecord
from ...evaluation.records import COUNTS, Figure
from ..hub_ids import is_hub_id
from .evaluation import Evaluation
from .facts import CardFacts
from .family import FamilyWords
from .training import hardware

_SENTENCE_TRANSFORMERS, _ONNX = "sentence-transformers", "onnx"  # tags that files earn


def own_tags(family: Family) -> list[str]:
    """Those that hf_clip gives a model of a family, where its files earn them."""
    return ["hf_clip", *family.tags, _SENTENCE_TRANSFORMERS, _ONNX]


def metadata(facts: CardFacts, family: Family, words: FamilyWords) -> ModelCardData:
    """
    Args:
        words: of the family, of these facts.
    """
    details, training = facts.details, facts.training
    results = [result for evaluation in facts.evaluations for result in _eval_results(evaluation)]
    earned = {_SENTENCE_TRANSFORMERS: facts.sentence_transformers, _ONNX: facts.onnx is not None}
    tags = [tag for tag in own_tags(family) if earned.get(tag, True)]
    return ModelCardData(
        language=details.language or None,
        license=details.license or None,
        library_name="peft" if facts.adapter_of else "transformers",
        pipeline_tag=family.task,
        tags=list(dict.fromkeys(tags + details.tags)),
        base_model=_base_models(facts, words) or None,
        base_model_relation="adapter" if facts.adapter_of else None,
        datasets=facts.datasets or None,
        co2_eq_emissions=_emissions(training, words),
        model_name=details.name.rpartition("/")[2] if results else None,
        eval_results=results or None,
    )


def _base_models(facts: CardFacts, words: FamilyWords) -> list[str]:
    named = facts.details.base_model  # by the publisher, who may name one without an owner
    found = [facts.adapter_of] if facts.adapter_of else [facts.training.started_from, *words.base_models]
    on_hub = [name for name in found if name and is_hub_id(name)]
    return list(dict.fromkeys([*on_hub, *named] if facts.adapter_of else named or on_hub))


def _emissions(training: TrainingRecord, words: FamilyWords) -> dict[str, object] | None:
    emissions = training.emissions
    if emissions is None or emissions.kg is None:
        return None
    scratch = words.from_scratch and not training.started_from
    said = {
        "emissions": 1000 * emissions.kg,  # grams
        "source": emissions.source,
        "training_type": "pre-training" if scratch else "fine-tuning",
        "geographical_location": emissions.grid,
        "hardware_used": hardware(training.hardware) if training.hardware else None,
    }
    return {name: value for name, value in said.items() if value is not None}


def _eval_results(evaluation: Evaluation) -> Iterator[EvalResult]:
    """The figures that a leaderboard compares; of each language those that stand for all."""
    for measured in evaluation.measured:
        task, figures = measured.task, measured.figures
        dataset_id, words = _dataset(measured.first)
        type_, title = task.hub_type
        for figure in measured.headline if measured.language else figures.values():
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
    said: dict[str, object] = {"k": figure.k, **{name: getattr(figure, name) for name in COUNTS}}
    said |= {name: getattr(figure, name) for name in ("low", "high", "chance", "ceiling", "precision")}
    said["intervals"] = intervals if figure.interval else None
    said |= {"model_revision": figure.revision, "protocol": figure.protocol}
    return {name: value for name, value in said.items() if value is not None}
