"""What an evaluation task is: what it needs, what it measures, and how its figures are called and drawn."""

import importlib.util
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from ...core.errors import InputError
from ...data.evaluation_set import EvaluationSet
from ...embeddings.encode import Embeddings
from ...models.modeling_hf_clip import HFClipModel
from ...models.processing_hf_clip import HFClipProcessor
from ..outcome import Outcome

FEATURES = ("projected", "pooled")


def check_features(features: str) -> None:
    """
    Raises:
        InputError: what is no kind of features.
    """
    if features not in FEATURES:
        raise InputError(f"features are {features!r}: they are one of {', '.join(FEATURES)}")


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
        check_features(self.features)


@dataclass(frozen=True)
class Given:
    """What a task measures.

    Args:
        embeddings: of the data to measure on.
        train, validation: labelled, of a task that learns from them.
        temperature: (logit_scale, logit_bias) on the CPU; default: the model's.
    """

    model: HFClipModel
    processor: HFClipProcessor
    embeddings: Embeddings
    protocol: Protocol
    train: Embeddings | None = None
    validation: Embeddings | None = None
    temperature: tuple[Tensor, Tensor | None] | None = None


class Task(ABC):
    """One way to measure a model. A subclass stands in a file of its own; `registry.register` makes it known.

    Args:
        name: as settings and `results.json` have it.
        title: above its figures, in a report and a card.
        phrase: within a sentence.
        hub_type: the Hub's task type, and its name beside the figures of a card.
        pattern: of the names of its figures, from their beginning.
        needs_captions, needs_labels: of the data.
        one_label: whether an image may have only one.
        learns_from: of "train" and "validation", the data that it may be given beside those it measures on.
        package: (module, name on PyPI) that it needs beyond hf_clip's own dependencies.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    phrase: ClassVar[str]
    hub_type: ClassVar[tuple[str, str]]
    pattern: ClassVar[str]
    needs_captions: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = False
    one_label: ClassVar[bool] = False
    learns_from: ClassVar[tuple[str, ...]] = ()
    package: ClassVar[tuple[str, str] | None] = None

    @abstractmethod
    def measure(self, given: Given) -> Outcome:
        """The figures.

        Raises:
            InputError: data that lack what it needs.
        """

    def suits(self, captioned: bool, classes: bool) -> bool:
        """Whether it is measured where nobody says what to measure.

        Args:
            captioned: whether the data have captions beside the names of classes.
            classes: whether their labels are of classes with names.
        """
        return False

    def owns(self, metric: str) -> bool:
        """Whether a figure is one of its own."""
        return re.match(self.pattern, metric) is not None

    def choosable(self, rows: EvaluationSet, protocol: Protocol) -> list[str]:
        """Its figures on such data that can choose the best of several checkpoints; of any k, "@K"."""
        return []

    def check(self, rows: EvaluationSet, called: str, protocol: Protocol, best: str = "") -> None:
        """Before a training, whether the evaluations during it can be.

        Args:
            rows: what is evaluated; called: how a message calls it.
            best: the figure that chooses the best checkpoint, if it is of this data.

        Raises:
            InputError: the data lack what the task needs.
        """
        if self.needs_captions and not rows.has_texts:
            raise InputError(f"{called} has no captions, which {self.name} needs: set caption_column or other tasks")
        if self.needs_labels and not rows.label_column:
            raise InputError(f"{called} has no labels, which {self.name} needs: set label_column, or other eval_tasks")
        if self.one_label and rows.labels().ndim == 2:
            raise InputError(
                f"pictures of {called} have several labels, and {self.name} needs one: set other eval_tasks, such as "
                "zero-shot"
            )

    def draw(self, outcomes: dict[str, Outcome], folder: Path, suffix: str) -> list[str]:
        """Draws its charts of several models together; their file names, which end in the suffix."""
        return []

    def check_installed(self) -> None:
        """
        Raises:
            InputError: what it needs beyond hf_clip's own dependencies is not there.
        """
        if self.package and importlib.util.find_spec(self.package[0]) is None:
            raise InputError(f'{self.name} needs {self.package[1]}: pip install "hf_clip[eval]"')
