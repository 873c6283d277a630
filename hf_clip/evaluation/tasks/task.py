"""What an evaluation task is: what it needs, what it measures, and all that is said of its figures."""

import importlib.util
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ...core.counts import check_count, check_counts
from ...core.errors import InputError
from ...data.evaluation_set import EvaluationSet
from ...data.sources import Source
from ...embeddings.encode import Embeddings
from ...models.modeling_hf_clip import HFClipModel
from ...models.processing_hf_clip import HFClipProcessor
from ..outcome import Outcome
from ..records import Figure, Figures, TaskWords

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

    Raises:
        InputError: a number that cannot be, a kind of features that is none.
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
        if not isinstance(self.templates, str):
            raise InputError(f"templates are {self.templates!r}: give the name of a set or a file, or one template")
        for name in ("neighbours", "seeds"):
            check_count(name, getattr(self, name))
        check_counts("ks", self.ks or ())
        check_counts("shots", self.shots)


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


@dataclass(frozen=True)
class Drawn:
    """What examples are drawn of: the data, what a model made of them, and what was measured."""

    source: Source
    embeddings: Embeddings
    outcome: Outcome


class Task(ABC):
    """One way to measure a model, and all that is said of it anywhere.

    A subclass stands in a file of its own; `registry.register` makes it known. It needs the first five of the
    attributes and `measure`; everything else has a default.

    Attributes:
        name: as settings and `results.json` have it.
        title: above its figures, in a report and a card.
        phrase: within a sentence.
        hub_type: the Hub's task type, and its name beside the figures of a card.
        pattern: of the names of its figures, from their beginning.
        needs_captions, needs_labels: of the data.
        one_label: whether an image may have only one.
        by_language: whether it is measured on the captions of each language by themselves, where several are named.
        learns_from: of "train" and "validation", the data that it may be given beside those it measures on.
        package: (module, name on PyPI) that it needs beyond hf_clip's own dependencies.
        choices: the figures that can choose the best of several checkpoints; of any k, "@K".
        why_ceiling: why the data may allow no more than a figure's ceiling.
    """

    name: str
    title: str
    phrase: str
    hub_type: tuple[str, str]
    pattern: str
    needs_captions: bool = False
    needs_labels: bool = False
    one_label: bool = False
    by_language: bool = False
    learns_from: tuple[str, ...] = ()
    package: tuple[str, str] | None = None
    choices: tuple[str, ...] = ()
    why_ceiling: str = "by what the data hold"

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

    def draw(self, outcomes: dict[str, Outcome], folder: Path, suffix: str) -> list[str]:
        """Draws its charts of several models together; their file names, which end in the suffix."""
        return []

    def draw_examples(self, drawn: Drawn, folder: Path, suffix: str) -> list[str]:
        """Draws images of the data as one model finds them; their file names, which end in the suffix, if there is
        one. They are published only where that is asked for."""
        return []

    def check_size(self, protocol: Protocol, images: int) -> None:  # noqa: B027 (most ask for no number)
        """Before an evaluation, whether there are enough images.

        Raises:
            InputError: there are too few.
        """

    # ---- before a training ----------------------------------------------------------------------------------------

    def choosable(self, rows: EvaluationSet | None, protocol: Protocol) -> list[str]:
        """Its figures that can choose the best of several checkpoints.

        Args:
            rows: on such data; None: on any.
        """
        return list(self.choices)

    def lower_is_better(self, metric: str) -> bool:
        return metric.endswith(("error", "rank"))

    def with_best(self, protocol: Protocol, metric: str) -> Protocol:
        """A protocol by which one of its figures is among those that are measured."""
        return protocol

    def check(self, rows: EvaluationSet, called: str, protocol: Protocol, best: str = "") -> None:
        """Whether the evaluations during a training can be.

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

    def check_installed(self) -> None:
        """
        Raises:
            InputError: what it needs beyond hf_clip's own dependencies is not there.
        """
        if self.package and importlib.util.find_spec(self.package[0]) is None:
            raise InputError(f'{self.name} needs {self.package[1]}: pip install "hf_clip[eval]"')

    # ---- its figures, by name -------------------------------------------------------------------------------------

    def owns(self, metric: str) -> bool:
        """Whether a figure is one of its own."""
        return re.match(self.pattern, metric) is not None

    def chance(self, metric: str) -> str:
        """What the figure is called that a guess reaches, if it is measured."""
        return f"{metric}_chance"

    def ceiling(self, metric: str) -> str:
        """What the figure is called that is the best that the data allow, if it is measured."""
        return f"{metric}_ceiling"

    def label(self, metric: str) -> str:
        """In words, under its title."""
        return metric.replace("_", " ")

    def short_label(self, metric: str) -> str:
        """In a table of several tasks."""
        return self.label(metric)

    def about_interval(self, metric: str) -> str:
        """What its interval leaves out, in words; empty: nothing."""
        return ""

    def shown(self, metric: str, value: float) -> str:
        return f"{value:.3f}" if isinstance(value, float) else f"{value:,}"

    # ---- in a card ------------------------------------------------------------------------------------------------

    def in_card(self, metric: str) -> bool:
        """Whether it is in the card's table; else the report has it."""
        return True

    def on_hub(self, metric: str) -> bool:
        """Whether a leaderboard compares it."""
        return self.in_card(metric)

    def hub_metric(self, metric: str) -> str:
        """The Hub's name of such a metric."""
        return metric

    def headline(self, figures: Figures) -> list[Figure]:
        """Those that stand for all where there is room for few, the most telling first."""
        return list(figures.values())[:1]

    def limits(self, figures: Figures, data: str) -> Iterator[str]:
        """What its figures say against the model: sentences, as Markdown. Those that no chance or ceiling is told from
        are said of every task.

        Args:
            data: the name of the data, as Markdown.
        """
        yield from ()

    def words(self) -> TaskWords:
        return TaskWords(self.title, self.phrase, self.hub_type)
