"""Classification without examples: the class whose prompts are most alike a picture (arXiv:2103.00020, §3.1)."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import PreTrainedModel

from ...core.errors import InputError
from ...data.evaluation_set import EvaluationSet
from ...embeddings.encode import Embeddings, embed_prompts, temperature_of
from ...models.loss_hf_clip import PROBABILITIES, score
from ...models.processing_hf_clip import HFClipProcessor
from .. import charts
from ..metrics import (
    answers,
    average_precision,
    calibration,
    check_finite,
    class_ranks,
    class_shares,
    mean_per_class_recall,
    recall_at_k,
)
from ..outcome import Outcome
from ..prompts import cut_note, open_templates, prompts_of
from ..records import Figures
from ..words import percent
from .classes import ClassTask, accuracies, number_by
from .task import Given, Protocol

_PICTURES, _CLASSES = 4096, 32  # scored at a time
_OFTEN_WRONG = 0.05  # a calibration error above it is one to be warned of
_IN_WORDS = {"softmax": "softmax over the classes", "sigmoid": "sigmoid, each class alone"}


def class_embeddings(
    model: PreTrainedModel,
    processor: HFClipProcessor,
    class_names: Sequence[Sequence[str]],
    templates: Sequence[str] | dict[str, list[str]],
) -> Tensor:
    """(classes, dim), fp32, unit length: of each class the mean of its prompts' unit embeddings, normalised again.

    Args:
        class_names: the names of each class; every one stands in every template.
        templates: with {c} for the name, or all prompts of each class by its first name.
    """
    return embed_classes(model, processor, class_names, templates)[0]


def embed_classes(
    model: PreTrainedModel,
    processor: HFClipProcessor,
    class_names: Sequence[Sequence[str]],
    templates: Sequence[str] | dict[str, list[str]],
) -> tuple[Tensor, list[str]]:
    """`class_embeddings`, and what a reader must know of the prompts: how many were cut."""
    prompts = [prompts_of(names, templates) for names in class_names]
    rows = {prompt: row for row, prompt in enumerate(dict.fromkeys(itertools.chain(*prompts)))}
    embeds, _, cut = embed_prompts(model, processor, list(rows))
    means = [embeds[[rows[prompt] for prompt in of_class]].mean(0) for of_class in prompts]
    return normalize(torch.stack(means)), cut_note(list(rows), cut.tolist())


def evaluate_zero_shot(
    embeddings: Embeddings,
    class_embeds: Tensor,
    logit_scale: Tensor,
    logit_bias: Tensor | None = None,
    probabilities: str = "softmax",
) -> Outcome:
    """Accuracies over pictures and over classes; of several labels a picture, mean average precision.

    `zero_shot_acc1`, `zero_shot_acc5` (where there are five classes), `zero_shot_mean_per_class_recall` and
    `zero_shot_calibration_error`, or `zero_shot_map`; `…_chance` beside them. Classes without pictures are counted and
    enter no mean; two classes that score the same count against the model.

    Args:
        embeddings: with labels.
        class_embeds: (classes, dim), of `class_embeddings`.
        logit_scale, logit_bias: the model's.
        probabilities: "softmax": one is shared out among all classes; "sigmoid": that of a class is its own.

    Raises:
        InputError: no labels, or one that is none of the classes.
    """
    labels = _checked_labels(embeddings, len(class_embeds))
    check_finite(embeddings.image_embeds, "image_embeds")
    check_finite(class_embeds, "class_embeds")
    outcome = Outcome(
        metrics={
            "images": len(labels),
            "skipped_images": len(embeddings.skipped),
            "classes": len(class_embeds),
            "classes_without_pictures": _empty_classes(labels, len(class_embeds)),
        },
        protocol={
            "class_embedding": "mean of the unit embeddings of its prompts, normalised",
            "probabilities": _IN_WORDS[probabilities],
            "ties": "count against the model",
        },
        details={"labels": labels},
    )
    if outcome.metrics["classes_without_pictures"]:
        outcome.notes.append(
            f"{outcome.metrics['classes_without_pictures']} of {len(class_embeds)} classes have no picture: they can "
            "be answered, but enter no mean over classes"
        )
    same = len(class_embeds) - len(class_embeds.unique(dim=0))
    if same:
        outcome.notes.append(
            f"{same} classes have the prompts of another, as the text tower reads them: they tie, which counts "
            "against the model"
        )
    measured = _several_labels if labels.ndim == 2 else _one_label
    return outcome | measured(embeddings, class_embeds, labels, (logit_scale, logit_bias), probabilities)


def _checked_labels(embeddings: Embeddings, classes: int) -> Tensor:
    if embeddings.labels is None:
        raise InputError("the data have no labels that are classes: set label_column, or give class names")
    labels = embeddings.labels
    if labels.ndim == 2 and labels.shape[1] != classes:
        raise InputError(f"the data have {labels.shape[1]} classes, and {classes} are named: name each of them")
    if labels.ndim == 1 and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        row = int(((labels < 0) | (labels >= classes)).nonzero()[0])
        raise InputError(
            f"row {int(embeddings.image_rows[row]) + 1} has label {int(labels[row])}, and the classes are 0 to "
            f"{classes - 1}: name each of them"
        )
    return labels


def _empty_classes(labels: Tensor, classes: int) -> int:
    counts = labels.sum(0) if labels.ndim == 2 else torch.bincount(labels, minlength=classes)
    return int((counts == 0).sum())


def _one_label(
    embeddings: Embeddings,
    class_embeds: Tensor,
    labels: Tensor,
    temperature: tuple[Tensor, Tensor | None],
    probabilities: str,
) -> Outcome:
    parts = [
        _answer(images, class_embeds, right, temperature, probabilities)
        for images, right in zip(embeddings.image_embeds.split(_PICTURES), labels.split(_PICTURES), strict=True)
    ]
    ranks, chosen, sure = (torch.cat(column) for column in zip(*parts, strict=True))
    classes, right = len(class_embeds), ranks == 0
    error, bins = calibration(sure, right)
    outcome = Outcome(
        metrics={
            "zero_shot_acc1": recall_at_k(ranks, 1),
            "zero_shot_acc1_chance": 1 / classes,
            "zero_shot_mean_per_class_recall": mean_per_class_recall(right, labels),
            "zero_shot_mean_per_class_recall_chance": 1 / classes,
            "zero_shot_calibration_error": error,
        },
        details={"answers": chosen, "reliability": bins, "probabilities": sure},
    )
    ones = np.ones(len(labels))
    weights = class_shares(labels)  # counted too: of a perfect model no resample is above 1
    outcome.shares = {
        "zero_shot_acc1": (right.double().numpy(), ones),
        "zero_shot_mean_per_class_recall": ((right * weights).numpy(), weights.numpy()),
    }
    if classes >= 5:
        outcome.metrics |= {"zero_shot_acc5": recall_at_k(ranks, 5), "zero_shot_acc5_chance": 5 / classes}
        outcome.shares["zero_shot_acc5"] = ((ranks < 5).double().numpy(), ones)
    else:
        outcome.notes.append(f"acc5 is left out: of {classes} classes it would always be 1")
    return outcome


def _answer(
    images: Tensor,
    class_embeds: Tensor,
    labels: Tensor,
    temperature: tuple[Tensor, Tensor | None],
    probabilities: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """(pictures,) each: the rank of the right class, the class chosen, its probability."""
    cosines = images.double() @ class_embeds.double().T  # (pictures, classes)
    chosen = answers(cosines, labels)
    sure = PROBABILITIES[probabilities](score(images, class_embeds, *temperature))
    return class_ranks(cosines, labels), chosen, sure.gather(1, chosen[:, None])[:, 0]


def _cosines_by_class(image_embeds: Tensor, class_embeds: Tensor) -> Iterator[Tensor]:
    """For each class (pictures,), fp64; some classes at a time, for which the pictures are made fp64 once."""
    for classes in class_embeds.split(_CLASSES):
        parts = [part.double() @ classes.double().T for part in image_embeds.split(_PICTURES)]
        yield from torch.cat(parts).T.contiguous()


def _several_labels(
    embeddings: Embeddings,
    class_embeds: Tensor,
    labels: Tensor,
    temperature: tuple[Tensor, Tensor | None],
    probabilities: str,
) -> Outcome:
    """The mean over classes with pictures; where each has its own probability, also what ½ as a threshold gives."""
    precisions, shares, hits, named = [], [], 0, 0
    each_alone = probabilities == "sigmoid"
    by_class = zip(_cosines_by_class(embeddings.image_embeds, class_embeds), class_embeds, labels.T, strict=True)
    for cosines, class_embed, positive in by_class:
        if positive.any():
            precisions.append(average_precision(cosines, positive))
            shares.append(positive.double().mean().item())
        if each_alone:
            above = score(embeddings.image_embeds, class_embed[None], *temperature)[:, 0] > 0
            hits, named = hits + int((above & positive).sum()), named + int(above.sum())
    if not precisions:
        raise InputError("no picture has a label: there is nothing to measure")
    metrics: dict[str, float] = {
        "zero_shot_map": sum(precisions) / len(precisions),
        "zero_shot_map_chance": sum(shares) / len(shares),
    }
    if each_alone:
        metrics["zero_shot_micro_f1"] = 2 * hits / max(named + int(labels.sum()), 1)
    return Outcome(metrics=metrics, details={"average_precisions": precisions})


class ZeroShot(ClassTask):
    name = "zero-shot"
    title = "Zero-shot classification"
    phrase = "zero-shot classification"
    hub_type = ("zero-shot-image-classification", "Zero-shot image classification")
    pattern = "zero_shot_"

    def suits(self, captioned: bool, classes: bool) -> bool:
        return classes

    def choosable(self, rows: EvaluationSet | None, protocol: Protocol) -> list[str]:
        of_one_label = [f"zero_shot_{what}" for what in (*accuracies(rows), "calibration_error")]
        if rows is None:
            return [*of_one_label, "zero_shot_map"]
        return ["zero_shot_map"] if rows.labels().ndim == 2 else of_one_label

    def check(self, rows: EvaluationSet, called: str, protocol: Protocol, best: str = "") -> None:
        super().check(rows, called, protocol, best)
        if not rows.class_names:
            raise InputError(
                f"the classes of {called} have no names, which zero-shot needs: put them into "
                f"{rows.label_column!r} in place of numbers, or set other eval_tasks"
            )

    def measure(self, given: Given) -> Outcome:
        names = given.protocol.class_names or [[name] for name in given.embeddings.class_names or ()]
        if not names:
            raise InputError("the classes have no names: give a file of class names")
        embeddings = number_by(given.embeddings, [of_class[0] for of_class in names])
        templates = open_templates(given.protocol.templates)
        class_embeds, notes = embed_classes(given.model, given.processor, names, templates)
        temperature = given.temperature or temperature_of(given.model)
        probabilities = given.model.config.probabilities or "softmax"  # never None: the loss's where nobody says
        outcome = evaluate_zero_shot(embeddings, class_embeds, *temperature, probabilities)
        outcome |= Outcome(notes=notes)
        outcome.protocol |= {
            "templates": "prompts of each class" if isinstance(templates, dict) else templates,
            "names_a_class": max(map(len, names)),
        }
        outcome.details["class_names"] = [of_class[0] for of_class in names]
        return outcome

    def draw(self, outcomes: dict[str, Outcome], folder: Path, suffix: str) -> list[str]:
        sure = {model: outcome for model, outcome in outcomes.items() if "reliability" in outcome.details}
        if not sure:  # several labels an image: there is no one answer
            return []
        errors = {model: outcome.metrics["zero_shot_calibration_error"] for model, outcome in sure.items()}
        bins = {model: outcome.details["reliability"] for model, outcome in sure.items()}
        charts.draw_reliability(bins, errors, folder / f"reliability_{suffix}.png")
        return [f"reliability_{suffix}.png", *super().draw(sure, folder, suffix)]

    def label(self, metric: str) -> str:
        words = super().label(metric).removeprefix("zero shot ")
        return "mean average precision" if words == "map" else words

    def short_label(self, metric: str) -> str:
        return metric.replace("zero_shot_", "zero-shot ")

    def hub_metric(self, metric: str) -> str:
        names = {"map": "map", "calibration_error": "expected_calibration_error", "micro_f1": "f1"}
        return names.get(metric.removeprefix("zero_shot_"), super().hub_metric(metric))

    def limits(self, figures: Figures, data: str) -> Iterator[str]:
        accuracy, recall = figures.get("zero_shot_acc1"), figures.get("zero_shot_mean_per_class_recall")
        if accuracy and accuracy.classes is not None:
            yield (
                f"Zero-shot classification on {data}: of {accuracy.classes:,} classes the right one comes first for "
                f"{percent(accuracy.value)} of the pictures, and another for {percent(1 - accuracy.value)}."
            )
        if accuracy and recall and accuracy.value - recall.value > 0.01:
            yield (
                f"Every class counted alike, it is right in {percent(recall.value)}, which is less than over the "
                "pictures: rarer classes fare worse."
            )
        if error := figures.get("zero_shot_calibration_error"):
            warning = ": do not take them for frequencies" if error.value > _OFTEN_WRONG else ""
            yield f"Its probabilities are off by {error.value:.3f} on average (expected calibration error){warning}."
