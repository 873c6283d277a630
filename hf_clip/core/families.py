"""The families of models, by model type: what publishing, cards and evaluation ask of each.

A family's parts may be given by their place, "module:name", which is imported when one is first asked for: so this
room imports none above it, and a room that asks imports none above itself. hf_clip's own families stand in `_AT_HOME`
by their place; one from outside is made known by one call of `register_family`.
"""

import importlib
from dataclasses import dataclass
from typing import Any

from .errors import InputError

Place = Any  # an object, or where it lies: "module:name"

_AT_HOME: dict[str, str] = {"hf_clip": "hf_clip.publishing.clip.family:FAMILY"}
_FROM_OUTSIDE: dict[str, "Family"] = {}


@dataclass(frozen=True)
class Family:
    """
    Args:
        model_type: of the configuration, as `config.json` has it.
        config, processor: classes that open with `from_pretrained` and save with `save_pretrained`; the processor may
            be an image processor.
        open_model: called with a folder, gives (whole model, processor); an `InputError` where it is damaged.
        card: a `publishing.card.family.FamilyCard`, or a kind of it: the words of the model card, and by its `facts`
            the kinds of records in which runs and models of the family say more than others.
        task: what the Hub files it under (`pipeline_tag`).
        tags: for the Hub's search.
        tasks: the evaluation tasks (`evaluation.tasks`) that it can be measured on, by name.
        parts: classes of parts of a model, by name: what is saved of them alone is no model to publish.
        digested: fields of the configuration that count in a model's digest beside the weights.
        write_files: called with (source, target, configuration or None for an adapter, processor), writes what goes up
            beside model and processor.
        files: patterns of their names: where a later publication has one no longer, it goes from the repository.
    """

    model_type: str
    config: Place
    processor: Place
    open_model: Place
    card: Place
    task: str | None = None
    tags: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    digested: tuple[str, ...] = ()
    write_files: Place = None
    files: tuple[str, ...] = ()


def register_family(family: Family) -> None:
    """Makes a family known, from wherever it comes: its models are then published and carded like CLIP's.

    Raises:
        InputError: another family has its model type.
    """
    kind = family.model_type
    if kind in _AT_HOME or _FROM_OUTSIDE.get(kind, family) != family:
        raise InputError(f"model type {kind!r} has a family already: give the new one a model_type of its own")
    _FROM_OUTSIDE[kind] = family


def model_types() -> list[str]:
    """Those that have a family."""
    return [*_AT_HOME, *_FROM_OUTSIDE]


def family_of(model_type: str | None) -> Family:
    """
    Raises:
        InputError: there is none.
    """
    if model_type not in model_types():
        raise InputError(
            f"model type {model_type!r} has no family: there are {', '.join(model_types())}; "
            "make another known with hf_clip.core.families.register_family"
        )
    return load(_AT_HOME.get(model_type)) or _FROM_OUTSIDE[model_type]


def families() -> list[Family]:
    return [family_of(kind) for kind in model_types()]


def load(place: Place) -> Any:
    """The object at a place; what is no text is the object itself."""
    if not isinstance(place, str):
        return place
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
