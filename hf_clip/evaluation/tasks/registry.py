"""The tasks by name: each measures one model on one embedded data set."""

import importlib.util
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...core.errors import InputError
from ...data.evaluation_set import EvaluationSet
from ...data.sources import Source
from ...embeddings.encode import Embeddings, temperature_of
from ...models.modeling_hf_clip import HFClipModel
from ...models.processing_hf_clip import HFClipProcessor
from ..outcome import Outcome
from ..prompts import open_templates
from .retrieval import evaluate_retrieval
from .zero_shot import embed_classes, evaluate_zero_shot

if TYPE_CHECKING:
    from .linear_probe import Labelled

TASKS = ("retrieval", "zero-shot", "knn", "linear-probe")
FEATURES = ("projected", "pooled")


@dataclass(frozen=True)
class Protocol:
    """What a measurement depends on beside model and data.

    Args:
        ks: of retrieval; default: 1, 5, 10 as far as there are candidates.
        templates: of zero-shot classification, as `open_templates` takes them.
        class_names: the names of each class; default: those of the data, one each.
        features: of the probe and the neighbours: `projected` (unit length, the shared space) or `pooled` (what the
            image tower gives before the projection).
        neighbours: that vote.
        shots: pictures a class of few-shot probes; none: only the probe on all.
        seeds: draws of each few-shot probe.
    """

    ks: Sequence[int] | None = None
    templates: str = "photo"
    class_names: Sequence[Sequence[str]] | None = None
    features: str = "projected"
    neighbours: int = 20
    shots: Sequence[int] = ()
    seeds: int = 3

    def __post_init__(self) -> None:
        if self.features not in FEATURES:
            raise InputError(f"features must be one of {', '.join(FEATURES)}, not {self.features!r}")


def check_installed(task: str) -> None:
    """
    Raises:
        InputError: what the task needs beyond hf_clip's own dependencies is not there.
    """
    if task in ("knn", "linear-probe") and importlib.util.find_spec("sklearn") is None:
        raise InputError(f'{task} needs scikit-learn: pip install "hf_clip[eval]"')


def tasks_for(data: Source | EvaluationSet | Embeddings) -> list[str]:
    """Retrieval where there are captions, zero-shot classification where there are labels of classes with names.

    Where the names of the classes are the captions, retrieval would only find pictures of the same class.
    """
    if not isinstance(data, Embeddings):
        captioned, classes = bool(data.caption_column), data.class_names if data.label_column else None
    else:
        classes = data.class_names if data.labels is not None else None
        captioned = len(data.caption_ids) > 0 and not data.captions_are_classes
    return ["retrieval"] * captioned + ["zero-shot"] * bool(classes)


def measure(
    task: str,
    model: HFClipModel,
    processor: HFClipProcessor,
    embeddings: Embeddings,
    protocol: Protocol | None = None,
    *,
    train: Embeddings | None = None,
    validation: Embeddings | None = None,
    temperature: tuple[Tensor, Tensor | None] | None = None,
) -> Outcome:
    """
    Args:
        task: one of `TASKS`.
        embeddings: of the data to measure on.
        train, validation: labelled, for the linear probe (and `train` for the neighbours); without `train` the probe
            is trained on a part of the data itself, and neighbours are the other pictures of the data.
        temperature: (logit_scale, logit_bias) on the CPU; default: the model's.

    Raises:
        InputError: no such task; data that lack what it needs.
    """
    protocol = protocol or Protocol()
    check_installed(task)
    if task == "retrieval":
        return evaluate_retrieval(embeddings, protocol.ks, device=model.device)
    if task == "zero-shot":
        scale, bias = temperature or temperature_of(model)
        return _zero_shot(model, processor, embeddings, protocol, scale, bias)
    if task == "knn":
        return _neighbours(embeddings, train, protocol)
    if task == "linear-probe":
        return _probe(embeddings, train, validation, protocol)
    raise InputError(f"no task {task!r}: choose one of {', '.join(TASKS)}")


def _zero_shot(
    model: HFClipModel,
    processor: HFClipProcessor,
    embeddings: Embeddings,
    protocol: Protocol,
    scale: Tensor,
    bias: Tensor | None,
) -> Outcome:
    names = protocol.class_names or [[name] for name in embeddings.class_names or ()]
    if not names:
        raise InputError("the classes have no names: give a file of class names")
    embeddings = _numbered_by(embeddings, [of_class[0] for of_class in names])
    templates = open_templates(protocol.templates)
    class_embeds, notes = embed_classes(model, processor, names, templates)
    outcome = evaluate_zero_shot(embeddings, class_embeds, scale, bias) | Outcome(notes=notes)
    outcome.protocol |= {
        "templates": "prompts of each class" if isinstance(templates, dict) else templates,
        "names_a_class": max(map(len, names)),
    }
    outcome.details["class_names"] = [of_class[0] for of_class in names]
    return outcome


def _neighbours(embeddings: Embeddings, train: Embeddings | None, protocol: Protocol) -> Outcome:
    from .nearest_neighbors import evaluate_nearest_neighbours

    parts = _numbered_alike({"test": embeddings} | ({"train": train} if train else {}))
    labelled = {name: _labelled(part, protocol.features) for name, part in parts.items()}
    outcome = evaluate_nearest_neighbours(
        labelled.get("train", labelled["test"]),
        labelled["test"] if train else None,
        features=protocol.features,
        neighbours=protocol.neighbours,
        classes=parts["test"].class_names,
    )
    return _beside_chance(outcome, parts)


def _probe(
    embeddings: Embeddings, train: Embeddings | None, validation: Embeddings | None, protocol: Protocol
) -> Outcome:
    from .linear_probe import evaluate_linear_probe

    if train is None:
        parts = _own_split(embeddings)
    else:
        parts = {"test": embeddings, "train": train} | ({"validation": validation} if validation else {})
        parts = _numbered_alike(parts)
    labelled = {name: _labelled(part, protocol.features) for name, part in parts.items()}
    outcome = evaluate_linear_probe(
        labelled["train"],
        labelled["test"],
        labelled.get("validation"),
        features=protocol.features,
        split="" if train else "own_split",
        shots=protocol.shots,
        seeds=protocol.seeds,
        classes=parts["test"].class_names,
    )
    if train is None:
        outcome.protocol["split"] = "the data's own, by picture: ⅗ train, ⅕ validation, ⅕ test"
    return _beside_chance(outcome, parts)


def _beside_chance(outcome: Outcome, parts: dict[str, Embeddings]) -> Outcome:
    """With the counts of pictures and classes, and what a guess among the classes of all parts would reach."""
    test = parts["test"]
    classes = len(test.class_names or torch.cat([_class_of_each(part) for part in parts.values()]).unique())
    empty = classes - len(_class_of_each(test).unique())
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


def _own_split(embeddings: Embeddings) -> dict[str, Embeddings]:
    """Three, one and one fifth of the pictures, by their content: the same picture is in one of them only."""
    labels, fifth = _class_of_each(embeddings), embeddings.image_ids.remainder(5)
    parts = {"test": fifth == 0, "train": fifth > 1, "validation": fifth == 1}
    missing = [f"{name} without a picture" for name, chosen in parts.items() if not chosen.any()]
    if not missing and len(labels[parts["train"]].unique()) == 1:
        missing = ["train with one class"]
    if missing:
        raise InputError(
            f"the data's own split leaves {', '.join(missing)}: give pictures to train on (--train_data, or train=)"
        )
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


def _numbered_alike(parts: dict[str, Embeddings]) -> dict[str, Embeddings]:
    """All parts, the same class under the same number: those of the first part, and behind them what others have.

    Two folders of pictures, say, number the classes that each has by itself.

    Raises:
        InputError: some have class names and others only numbers.
    """
    for part in parts.values():
        _class_of_each(part)
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
    return {name: _numbered_by(part, names) for name, part in parts.items()}


def _numbered_by(embeddings: Embeddings, names: list[str]) -> Embeddings:
    """The same, its classes numbered by their places in `names`; as it is where one is not among them."""
    own, labels = embeddings.class_names, embeddings.labels
    places = {name: place for place, name in enumerate(names)}
    if own is None or labels is None or own == names or not places.keys() >= set(own):
        return embeddings
    numbers = torch.tensor([places[name] for name in own])
    if labels.ndim == 1:
        renumbered = numbers[_class_of_each(embeddings)]
    else:
        renumbered = labels.new_zeros(len(labels), len(names))
        renumbered[:, numbers] = labels
    return replace(embeddings, labels=renumbered, class_names=names)


def _labelled(embeddings: Embeddings, features: str) -> "Labelled":
    from .linear_probe import Labelled

    chosen = embeddings.image_embeds if features == "projected" else embeddings.image_features
    if chosen is None:
        raise InputError("these embeddings hold only what comes after the projection: use features projected")
    return Labelled(chosen, _class_of_each(embeddings))


def _class_of_each(embeddings: Embeddings) -> Tensor:
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
