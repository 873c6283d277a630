"""What the tasks on labelled images share: classes under the same numbers, splits, scores beside chance."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...core.errors import InputError
from ...data.evaluation_set import EvaluationSet
from ...embeddings.encode import Embeddings
from .. import charts
from ..metrics import check_finite, class_shares, mean_per_class_recall, recall_at_k
from ..outcome import Outcome
from .task import Task


@dataclass
class Labelled:
    """Pictures of known class.

    Args:
        features: (pictures, dim).
        labels: (pictures,), int64, classes from 0.

    Raises:
        InputError: the two are not of as many pictures, or a label is negative.
    """

    features: Tensor
    labels: Tensor

    def __post_init__(self):
        if len(self.features) != len(self.labels):
            raise InputError(f"{len(self.features)} features and {len(self.labels)} labels: give a label for each")
        if (self.labels < 0).any():
            first = int((self.labels < 0).nonzero()[0])
            raise InputError(f"picture {first + 1} has label {int(self.labels[first])}: classes count from 0")

    def __getitem__(self, chosen: Tensor | slice) -> "Labelled":
        return Labelled(self.features[chosen], self.labels[chosen])

    def __add__(self, other: "Labelled") -> "Labelled":
        return Labelled(torch.cat([self.features, other.features]), torch.cat([self.labels, other.labels]))

    def __len__(self) -> int:
        return len(self.labels)


def checked(split: Labelled, name: str) -> Labelled:
    """On the CPU.

    Raises:
        InputError: no pictures; features not finite.
    """
    if not len(split):
        raise InputError(f"{name} has no pictures: nothing to measure")
    try:
        check_finite(split.features, f"features of {name}")
    except ValueError as error:
        raise InputError(str(error)) from None
    return Labelled(split.features.cpu(), split.labels.cpu())


def score_answers(chosen: Tensor, labels: Tensor, prefix: str) -> Outcome:
    """`{prefix}_acc1` and `{prefix}_mean_per_class_recall` of the classes chosen, (pictures,), with their shares."""
    right = chosen == labels
    weights = class_shares(labels)
    return Outcome(
        metrics={
            f"{prefix}_acc1": recall_at_k((~right).long(), 1),
            f"{prefix}_mean_per_class_recall": mean_per_class_recall(right, labels),
        },
        shares={
            f"{prefix}_acc1": mean_of(right),
            # The weights' sum is the number of pictures. Counted so, resamples stay in [0, 1].
            f"{prefix}_mean_per_class_recall": ((right * weights).numpy(), weights.numpy()),
        },
        details={"labels": labels, "answers": chosen},
    )


def untrained(train: Tensor, test: Tensor, classes: Sequence[str] | None = None) -> list[str]:
    """A sentence about the classes of the test without a picture in train, if there are any."""
    unknown = list_unknown(train, test, classes)
    return [f"the test has {unknown} without a picture to learn from: they count as wrong"] if unknown else []


def list_unknown(train: Tensor, other: Tensor, classes: Sequence[str] | None) -> str:
    unknown = other[~torch.isin(other, train)].unique().tolist()
    return listed(unknown, classes) if unknown else ""


def listed(labels: list[int], classes: Sequence[str] | None = None) -> str:
    """How many classes, and the names of the first five."""
    names = [classes[label] if classes and label < len(classes) else str(label) for label in labels[:5]]
    count = f"{len(labels)} class{'es' if len(labels) > 1 else ''}"
    return f"{count} ({', '.join(names)}{', …' if len(labels) > 5 else ''})"


def mean_of(values: Tensor) -> tuple[np.ndarray, np.ndarray]:
    return values.double().numpy(), np.ones(len(values))


def add_chance(outcome: Outcome, parts: dict[str, Embeddings]) -> Outcome:
    """With the counts of pictures and classes, and what a guess among the classes of all parts would reach."""
    test = parts["test"]
    classes = len(test.class_names or torch.cat([class_of_each(part) for part in parts.values()]).unique())
    empty = classes - len(class_of_each(test).unique())
    counts = {
        "images": len(test.image_embeds),
        "skipped_images": len(test.skipped),
        "classes": classes,
        "classes_without_pictures": empty,
    }
    chance = {
        f"{name}_chance": 1 / classes for name in outcome.metrics if name.endswith(("_acc1", "_mean_per_class_recall"))
    }
    notes = [f"{empty} of {classes} classes have no picture in the test: they enter no mean over classes"]
    beside = Outcome(counts | outcome.metrics | chance, details={"class_names": test.class_names})
    return beside | outcome | Outcome(notes=notes if empty else [])


def labelled(embeddings: Embeddings, features: str) -> Labelled:
    chosen = embeddings.image_embeds if features == "projected" else embeddings.image_features
    if chosen is None:
        raise InputError("these embeddings hold only what comes after the projection: use features projected")
    return Labelled(chosen, class_of_each(embeddings))


def class_of_each(embeddings: Embeddings) -> Tensor:
    """(pictures,): the labels, which are one class each."""
    labels = embeddings.labels
    if labels is None:
        raise InputError("the data have no labels that are classes: set label_column, or give class names")
    if labels.ndim == 2:
        raise InputError("pictures with several labels have no one class for a probe or neighbours: use zero-shot")
    last = len(embeddings.class_names) - 1 if embeddings.class_names else torch.iinfo(labels.dtype).max
    unknown = (labels < 0) | (labels > last)
    if unknown.any():
        first = int(unknown.nonzero()[0])
        classes = f"they are 0 to {last}" if embeddings.class_names else "they count from 0"
        row = int(embeddings.image_rows[first]) + 1
        raise InputError(f"row {row} has label {int(labels[first])}, which is no class: {classes}")
    return labels


def number_classes(parts: dict[str, Embeddings]) -> dict[str, Embeddings]:
    """All parts, the same class under the same number: those of the first part, and behind them what others have.

    Two folders of pictures, say, number the classes that each has by itself.

    Raises:
        InputError: some have class names and others only numbers.
    """
    for part in parts.values():
        class_of_each(part)
    named = {name: part.class_names for name, part in parts.items() if part.class_names}
    if not named:
        return parts
    if unnamed := [name for name in parts if name not in named]:
        raise InputError(
            f"classes have names in {' and '.join(named)}, and only numbers in {' and '.join(unnamed)}: give class "
            "names for all of them"
        )
    first, *others = named.values()
    if all(names == first for names in others):  # two classes may then bear one name
        return parts
    names = list(dict.fromkeys(itertools.chain(first, *others)))
    return {name: number_by(part, names) for name, part in parts.items()}


def number_by(embeddings: Embeddings, names: list[str]) -> Embeddings:
    """The same, its classes numbered by their places in `names`; as it is where one is not among them."""
    own, labels = embeddings.class_names, embeddings.labels
    places = {name: place for place, name in enumerate(names)}
    if own is None or labels is None or own == names or not places.keys() >= set(own):
        return embeddings
    numbers = torch.tensor([places[name] for name in own])
    if labels.ndim == 1:
        renumbered = numbers[class_of_each(embeddings)]
    else:
        renumbered = labels.new_zeros(len(labels), len(names))
        renumbered[:, numbers] = labels
    return replace(embeddings, labels=renumbered, class_names=names)


def split_by_content(embeddings: Embeddings) -> dict[str, Embeddings]:
    """Three, one and one fifth of the pictures, by their content: the same picture is in one of them only."""
    labels, fifth = class_of_each(embeddings), embeddings.image_ids.remainder(5)
    parts = {"test": fifth == 0, "train": fifth > 1, "validation": fifth == 1}
    missing = [f"{name} without a picture" for name, chosen in parts.items() if not chosen.any()]
    if not missing and len(labels[parts["train"]].unique()) == 1:
        missing = ["train with one class"]
    if missing:
        raise InputError(f"the data's own split leaves {', '.join(missing)}: give pictures to train on, as train_data")
    return {name: _select(embeddings, chosen) for name, chosen in parts.items()}


def _select(embeddings: Embeddings, chosen: Tensor) -> Embeddings:
    """Of the fields that are about pictures, the chosen ones; without captions."""
    labels, features = embeddings.labels, embeddings.image_features
    return replace(
        embeddings,
        image_embeds=embeddings.image_embeds[chosen],
        image_rows=embeddings.image_rows[chosen],
        image_ids=embeddings.image_ids[chosen],
        labels=None if labels is None else labels[chosen],
        image_features=None if features is None else features[chosen],
        text_embeds=embeddings.text_embeds[:0],
        text_to_image=embeddings.text_to_image[:0],
        caption_ids=embeddings.caption_ids[:0],
    )


class ClassTask(Task):
    """What the tasks on classes say alike of their figures."""

    needs_labels = True

    def label(self, metric: str) -> str:
        words = super().label(metric)
        return words.replace("acc1", "top-1 accuracy").replace("acc5", "top-5 accuracy")

    def hub_metric(self, metric: str) -> str:
        if metric.endswith("_mean_per_class_recall"):
            return "recall"
        return "accuracy" if "_acc" in metric else super().hub_metric(metric)

    def on_hub(self, metric: str) -> bool:
        return not metric.endswith("_deviation")

    def draw(self, outcomes: dict[str, Outcome], folder: Path, suffix: str) -> list[str]:
        return draw_confusions(outcomes, folder, suffix)


def accuracies(rows: EvaluationSet | None) -> list[str]:
    """The accuracies that a classifier of the rows' classes has; None: of any number of classes."""
    if rows is None:
        return ["acc1", "acc5", "mean_per_class_recall"]
    classes = len(rows.class_names or np.unique(rows.labels()))
    return ["acc1", *["acc5"] * (classes >= 5), "mean_per_class_recall"]


def draw_confusions(outcomes: dict[str, Outcome], folder: Path, suffix: str) -> list[str]:
    """A chart a model of what each class was taken for; their file names."""
    names = []
    for number, outcome in enumerate(outcomes.values(), 1):
        name = f"confusion_{suffix}{f'_{number}' if len(outcomes) > 1 else ''}.png"
        labels, answers = outcome.details["labels"], outcome.details["answers"]
        classes = outcome.details.get("class_names") or [
            f"class {label}" for label in range(int(torch.cat([labels, answers]).max()) + 1)
        ]
        charts.draw_confusion(labels, answers, classes, folder / name)
        names.append(name)
    return names
