"""What a model card asks of a family, and what it is told where a family says nothing of its own."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from ..saved_model import SavedModel
from .facts import CardDetails, CardFacts, CardModel, Example
from .words import number

Facts = TypeVar("Facts", bound=CardFacts)
Model = TypeVar("Model", bound=CardModel)


@dataclass
class FamilyWords:
    """What a family has to say of one model, as Markdown.

    Args:
        introduction: what it is and is good for: goes on from "This is".
        summary: the first rows, each of two cells, of the first table.
        packages: what opening it takes beside transformers.
        notes: what is to be known about its use; paragraphs.
        drawing: how it is built.
        base_models: the models that it is made of, by their names; those that the Hub has are linked.
        from_scratch: whether nothing of it was trained before.
        citations: BibTeX; empty where there is nothing to cite.
    """

    introduction: str
    summary: list[list[str]] = field(default_factory=list)
    packages: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    drawing: str | None = None
    base_models: Sequence[str | None] = ()
    from_scratch: bool = True
    citations: str = ""


class FamilyCard(Generic[Facts, Model]):
    """A family's cards; one that has more to say than `introduction` overrides the methods.

    Attributes:
        facts: what its cards are filled with, and so what its runs and models say of themselves: `CardFacts`, or a
            class derived from it.
        inputs: what the model reads, in words.
        item: what it is trained on, one of them.
        of_each_batch: said where gradients are accumulated, after how many batches a step has.
        learned_from: what it may have taken over, as sentences.
    """

    facts: type[CardFacts] = CardFacts
    inputs = "pictures"
    item = "picture"
    of_each_batch = ""
    learned_from = "It learned from pictures: what these leave out or show one-sidedly, it has taken over."

    def __init__(self, introduction: str = "a model of pictures."):
        self._introduction = introduction

    def model_facts(self, saved: SavedModel) -> CardModel:
        """Of settings and weights what a reader asks for; not called for an adapter whose base is away."""
        return CardModel(saved.parameters)

    def examples(self, saved: SavedModel, details: CardDetails, model: Model | None) -> list[Example]:
        """Code that uses what the folder holds.

        Args:
            model: of `model_facts`; None of an adapter whose base is away.
        """
        return []

    def words(self, facts: Facts) -> FamilyWords:
        return FamilyWords(self._introduction, parameters_row(facts))


def parameters_row(facts: CardFacts) -> list[list[str]]:
    """How many parameters there are, and how many of them were trained: one row, or none."""
    size, trained = facts.model and facts.model.parameters, facts.training.parameters.get("trained")
    of_them = f", {number(trained)} of them trained" if trained else ""
    return [["Parameters", f"{number(size)}{of_them}"]] if size else []
