"""What a model card asks of a family, and what it is told where a family says nothing of its own."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from .facts import CardDetails, Example, tensors_in
from .words import number


class FamilyCard:
    """The words of a family's cards; a family that has more to say than `introduction` overrides the rest.

    `facts` are those of `card_facts`: `facts["model"]` is what `model_facts` gave, and empty of an adapter whose base
    is away. What comes back is Markdown.

    Attributes:
        named_in_training: fields of `training.json` that name models, beside `started_from`.
        inputs: what the model reads, in words.
        item: what it is trained on, one of them.
        of_each_batch: said where gradients are accumulated, after how many batches a step has.
        learned_from: what it may have taken over, as sentences.
    """

    named_in_training: Collection[str] = ()
    inputs = "pictures"
    item = "picture"
    of_each_batch = ""
    learned_from = "It learned from pictures: what these leave out or show one-sidedly, it has taken over."

    def __init__(self, introduction: str = "a model of pictures."):
        self._introduction = introduction

    def introduction(self, facts: dict[str, Any]) -> str:
        """What it is and is good for: goes on from "This is"."""
        return self._introduction

    def model_facts(self, folder: Path, config: dict[str, Any]) -> dict[str, Any]:
        """Of settings and weights what a reader asks for; JSON."""
        return {"parameters": sum(tensors_in(folder).values()) or None}

    def summary(self, facts: dict[str, Any]) -> list[list[str]]:
        """The first rows, each of two cells, of the first table."""
        return parameters_row(facts)

    def examples(self, folder: Path, details: CardDetails, model: dict[str, Any]) -> list[Example]:
        """Code that uses what the folder holds.

        Args:
            model: of `model_facts`.
        """
        return []

    def packages(self, facts: dict[str, Any]) -> list[str]:
        """What opening it takes beside transformers."""
        return []

    def notes(self, facts: dict[str, Any]) -> list[str]:
        """What is to be known about its use; paragraphs."""
        return []

    def drawing(self, facts: dict[str, Any]) -> str | None:
        """How it is built."""
        return None

    def base_models(self, facts: dict[str, Any]) -> list[str | None]:
        """The models that it is made of, by their names; those that the Hub has are linked."""
        return []

    def is_from_scratch(self, facts: dict[str, Any]) -> bool:
        """Whether nothing of it was trained before."""
        return True

    def citations(self, facts: dict[str, Any]) -> str:
        """BibTeX; empty where there is nothing to cite."""
        return ""


def parameters_row(facts: dict[str, Any]) -> list[list[str]]:
    """How many parameters there are, and how many of them were trained: one row, or none."""
    size, trained = facts["model"].get("parameters"), (facts["training"].get("parameters") or {}).get("trained")
    of_them = f", {number(trained)} of them trained" if trained else ""
    return [["Parameters", f"{number(size)}{of_them}"]] if size else []
