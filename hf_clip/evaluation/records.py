"""What an evaluation found, as `results.json` holds it: each figure with all that it depends on."""

from dataclasses import dataclass, field, replace
from typing import Self

from huggingface_hub.dataclasses import strict

from ..core.records import Record

CHARTS = ("recall_", "similarities_", "reliability_", "confusion_")  # what their names began with before versions
_OF_TASK = ("in_card", "on_hub", "hub_metric", "lower_is_better")
COUNTS = ("images", "captions", "skipped_images", "classes", "classes_without_pictures")


@strict
@dataclass
class ModelFacts(Record):
    """What a figure must say of the model that reached it.

    Args:
        revision: the Hub's commit, where it was opened from there.
        digest: of the weights.
        precision: that it was measured in.
    """

    name: str
    revision: str | None
    digest: str
    precision: str


@strict
@dataclass
class DataFacts(Record):
    """What a figure must say of the data that it is of.

    Args:
        fingerprint: of the content.
    """

    name: str
    split: str
    fingerprint: str


@strict
@dataclass
class TaskWords(Record):
    """How a task is called, for who reads of it where it is not registered.

    Args:
        title: above its figures.
        phrase: within a sentence.
        hub_type: the Hub's task type, and its name beside the figures of a card.
    """

    title: str
    phrase: str
    hub_type: tuple[str, str]


@strict
@dataclass
class Figure(Record):
    """One figure, which may be quoted alone.

    Args:
        task: by name; of one language alone, as in "retrieval/zh".
        low, high: of its 95 % interval.
        chance, ceiling: what a guess reaches, and the best that the data allow.
        k: of a figure @k.
        protocol: how it was measured.
        data_revision: the content's fingerprint; revision: the model's, or the digest of its weights.
        images, captions, skipped_images, classes, classes_without_pictures: of what it was measured on, as far as
            they are counted.
        label: its name in words.
        in_card, on_hub, hub_metric, lower_is_better: as the task says of it, for who reads of it where the task is not
            registered; None in a file from before they were written.
    """

    model: str
    task: str
    metric: str
    value: int | float
    low: float | None
    high: float | None
    chance: float | None
    ceiling: float | None
    k: int | None
    protocol: dict[str, object]
    data: str
    split: str
    data_revision: str
    revision: str
    precision: str
    images: int | None = None
    captions: int | None = None
    skipped_images: int | None = None
    classes: int | None = None
    classes_without_pictures: int | None = None
    label: str = ""
    in_card: bool | None = None
    on_hub: bool | None = None
    hub_metric: str | None = None
    lower_is_better: bool | None = None

    @property
    def task_name(self) -> str:
        return self.task.partition("/")[0]

    @property
    def language(self) -> str:
        """Whose captions alone it is of; empty: of all."""
        return self.task.partition("/")[2]

    @property
    def interval(self) -> tuple[float, float] | None:
        return None if self.low is None or self.high is None else (self.low, self.high)

    @property
    def bracketed(self) -> str:
        """0.510 [0.427, 0.594]."""
        return f"{self.value:.3f}" + (" [{:.3f}, {:.3f}]".format(*self.interval) if self.interval else "")

    @property
    def counts(self) -> dict[str, int]:
        """Of what it was measured on, those that there are."""
        found = {name: getattr(self, name) for name in COUNTS}
        return {name: count for name, count in found.items() if count is not None}

    def to_json(self) -> dict[str, object]:
        """Without counts that there are none of, and what an older file does not say."""
        optional = COUNTS + _OF_TASK
        return {name: value for name, value in super().to_json().items() if name not in optional or value is not None}


Figures = dict[str, Figure]  # of one task, by metric


@strict
@dataclass
class Difference(Record):
    """Of one model's figure from the first's.

    Args:
        low, high: of its interval, which holds the true one at the level.
        p_value: by Holm, over all differences of the evaluation.
        real: whether it is more than chance.
    """

    from_: str
    to: str
    task: str
    metric: str
    value: float
    low: float
    high: float
    p_value: float
    level: float
    real: bool


@strict
@dataclass
class Results(Record):
    """All that was found of one data set.

    Args:
        hf_clip: the version that measured.
        models: the first is what the others are compared with.
        intervals: what the brackets are, in words.
        notes: what to know of figures, in sentences, by "model / task".
        skipped: (row, name, reason) of the images that could not be read.
        skipped_of: the same of other data, by what they were for, as "train".
        pictures: file names.
        examples: of the pictures those that show images of the data; the others show figures.
        tasks: how each is called, by name.
    """

    version = 1

    hf_clip: str
    models: list[ModelFacts]
    data: DataFacts
    intervals: str
    figures: list[Figure]
    differences: list[Difference]
    notes: dict[str, list[str]]
    skipped: list[tuple[int, str, str]]
    skipped_of: dict[str, list[tuple[int, str, str]]]
    pictures: list[str]
    examples: list[str] = field(default_factory=list)
    tasks: dict[str, TaskWords] = field(default_factory=dict)

    @classmethod
    def upgraded(cls, value: dict[str, object], version: int) -> dict[str, object]:
        """What was no chart showed images of the data."""
        pictures = value.get("pictures")
        names = [name for name in pictures if isinstance(name, str)] if isinstance(pictures, list) else []
        return value | {"examples": [name for name in names if not name.startswith(CHARTS)]}

    def __post_init__(self) -> None:
        names = [model.name for model in self.models]
        if not names or not self.figures:
            raise ValueError(f"no {'figures' if names else 'models'}")
        if strange := [figure.model for figure in self.figures if figure.model not in names]:
            raise ValueError(f"a figure of {strange[0]!r}, which is none of the models")

    def of_model(self, model: ModelFacts, name: str) -> Self:
        """What is about one of the models, under another name."""
        figures = [figure for figure in self.figures if figure.model == model.name]
        noted = {task: self.notes.get(noted_by(model.name, task)) for task in dict.fromkeys(f.task for f in figures)}
        return replace(
            self,
            models=[replace(model, name=name)],
            figures=[replace(figure, model=name) for figure in figures],
            differences=[],
            notes={noted_by(name, task): said for task, said in noted.items() if said},
        )


def noted_by(model: str, task: str) -> str:
    """What the notes of a measurement stand under."""
    return f"{model} / {task}"
