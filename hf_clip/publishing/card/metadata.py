"""The metadata of a model card: what the Hub filters by, links and shows in its tables."""

import re
from collections.abc import Iterator
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from .facts import is_hub_id
from .limits import by_task, label, largest_k

# task of hf_clip → as the Hub knows it, and its name
_TASKS = {
    "retrieval": ("image-text-retrieval", "Image–text retrieval"),
    "zero-shot": ("zero-shot-image-classification", "Zero-shot image classification"),
    "knn": ("image-classification", "Image classification from frozen features"),
    "linear-probe": ("image-classification", "Image classification from frozen features"),
}
# what a figure's name holds → the Hub's name of such a metric
_METRICS = {
    "_recall@": "recall",
    "mean_per_class_recall": "recall",
    "_acc": "accuracy",
    "zero_shot_map": "map",
    "median_rank": "median_rank",
    "calibration_error": "expected_calibration_error",
    "micro_f1": "f1",
}
OWN_TAGS = ("hf_clip", "clip", "image-text-retrieval", "feature-extraction", "sentence-transformers", "onnx")
_COUNTS = ("images", "captions", "classes", "classes_without_pictures", "skipped_images")


def metadata(facts: dict[str, Any], towers: list[dict[str, Any]]) -> ModelCardData:
    """
    Args:
        facts: of `card_facts`.
        towers: each with its `name` and, of timm's, the Hub id of its weights (`timm`).
    """
    details, training = facts["details"], facts["training"]
    named = [entry.get("name") for entry in training.get("data") or []]
    results = [result for evaluation in facts["evaluations"] for result in _eval_results(evaluation)]
    absent = {"sentence-transformers": not facts["sentence_transformers"], "onnx": not facts["onnx"]}
    tags = [tag for tag in OWN_TAGS if not absent.get(tag)] + (details.get("tags") or [])
    return ModelCardData(
        language=details["language"] or None,
        license=details["license"] or None,
        library_name="peft" if facts["adapter_of"] else "transformers",
        pipeline_tag="zero-shot-image-classification",
        tags=list(dict.fromkeys(tags)),
        base_model=_base_models(facts, towers) or None,
        base_model_relation="adapter" if facts["adapter_of"] else None,
        datasets=list(dict.fromkeys([*details["datasets"], *filter(is_hub_id, named)])) or None,
        co2_eq_emissions=_emissions(training, towers),
        model_name=details["name"].rpartition("/")[2] if results else None,
        eval_results=results or None,
    )


def _base_models(facts: dict[str, Any], towers: list[dict[str, Any]]) -> list[str]:
    named = facts["details"]["base_model"]  # by the publisher, who may name one without an owner
    found = [facts["training"].get("started_from"), *map(_hub_name, towers)]
    if facts["adapter_of"]:
        return list(dict.fromkeys([*filter(is_hub_id, [facts["adapter_of"]]), *named]))
    return list(dict.fromkeys(named or filter(is_hub_id, found)))


def _hub_name(tower: dict[str, Any]) -> str | None:
    """Of timm's towers that of the weights: "timm/resnet50" alone is no repository."""
    return tower["timm"] or tower["name"] if (tower["name"] or "").startswith("timm/") else tower["name"]


def _emissions(training: dict[str, Any], towers: list[dict[str, Any]]) -> dict[str, Any] | None:
    emissions = training.get("emissions") or {}
    if emissions.get("kg") is None:
        return None
    scratch = bool(towers) and all((tower["name"] or "").startswith("scratch/") for tower in towers)
    said = {
        "emissions": 1000 * emissions["kg"],  # grams
        "source": emissions.get("source"),
        "training_type": "pre-training" if scratch and not training.get("started_from") else "fine-tuning",
        "geographical_location": emissions.get("grid"),
        "hardware_used": hardware(training["hardware"]) if training.get("hardware") else None,
    }
    return {name: value for name, value in said.items() if value is not None}


def _eval_results(evaluation: dict[str, Any]) -> Iterator[EvalResult]:
    """The figures that a leaderboard compares; of each language recall at the largest k."""
    for task, figures in by_task(evaluation).items():
        kind, _, language = task.partition("/")
        k = largest_k(figures)
        dataset_id, words = _dataset(next(iter(figures.values())))
        for name, figure in figures.items():
            if "_map@" in name or (language and figure["k"] != k) or name.endswith("_deviation"):
                continue
            type_, title = _TASKS[kind]
            yield EvalResult(
                task_type=type_,
                task_name=title,
                dataset_type=dataset_id,
                dataset_name=words,
                dataset_config=language or None,
                dataset_split=figure["split"],
                dataset_revision=figure["data_revision"],
                metric_type=next((kind for part, kind in _METRICS.items() if part in name), name),
                metric_name=label(name),
                metric_value=figure["value"],
                metric_args=_metric_args(figure, evaluation["intervals"]),
            )


def _dataset(figure: dict[str, Any]) -> tuple[str, str]:
    """(type, name) of the data: the Hub id; else a slug, of more than one word lest it be taken for an id."""
    name = figure["data"]
    if is_hub_id(name):
        return name, name
    words = name if re.search(r"\w\W+\w", name) else f"{name}, {figure['split']}"
    return re.sub(r"[\W_]+", "-", words.casefold()).strip("-") or "data", words


def _metric_args(figure: dict[str, Any], intervals: str) -> dict[str, Any]:
    said = {name: figure.get(name) for name in ("k", *_COUNTS, "low", "high", "chance", "ceiling", "precision")}
    said["intervals"] = intervals if figure["low"] is not None else None
    said |= {"model_revision": figure["revision"], "protocol": figure["protocol"]}
    return {name: value for name, value in said.items() if value is not None}


def hardware(facts: dict[str, Any]) -> str:
    """GPU or CPU, processes, precision."""
    processes = facts.get("processes")
    parts = [facts.get("device"), facts.get("precision")]
    parts.insert(1, f"{processes} process{'' if processes == 1 else 'es'}" if processes else None)
    return ", ".join(filter(None, parts))
