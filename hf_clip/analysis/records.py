"""What an analysis found, as `analysis.json` holds it."""

from dataclasses import dataclass, field

from huggingface_hub.dataclasses import strict

from ..core.records import Record


@strict
@dataclass(kw_only=True)
class Row(Record):
    """One image of what was analyzed.

    Args:
        row: from 1, in what the user gave.
        picture: its file; None, here and below, where embeddings were analyzed, which have no names and captions.
    """

    row: int
    picture: str | None = None

    def to_json(self) -> dict[str, object]:
        """Without what there is none of."""
        return {name: value for name, value in super().to_json().items() if value is not None}


@strict
@dataclass(kw_only=True)
class ScoredRow(Row):
    """
    Args:
        score: the probability of the first prompt of a pair.
    """

    score: float


@strict
@dataclass(kw_only=True)
class Suspect(Row):
    """An image with a caption that is likely of another.

    Args:
        suspicion: of other images and captions, the share that fits as well or better.
        best_caption: that of the data which fits the image best.
    """

    clip_score: float
    suspicion: float
    caption: str | None = None
    best_caption: str | None = None


@strict
@dataclass(kw_only=True)
class Outlier(Row):
    """
    Args:
        neighbour_cosine: the mean cosine to the nearest others.
    """

    neighbour_cosine: float


@strict
@dataclass
class PairScores(Record):
    """How images lie between two opposite prompts.

    Args:
        mean: probability of the first over the images.
        above_half: the share of images that it fits better than the second.
        highest, lowest: the images that it fits best, and worst.
    """

    pair: tuple[str, str]
    mean: float
    above_half: float
    highest: list[ScoredRow]
    lowest: list[ScoredRow]


@strict
@dataclass
class AnalysisResults(Record):
    """All that was found of one data set.

    Args:
        model, data: their names.
        metrics: figures by name.
        mislabelled: the most suspect first.
        outliers: the farthest from all others first.
        protocol: how it was measured, by what.
        notes: what to know of it, in sentences.
        pictures: file names of the drawings.
        skipped: (row, name, reason) of the images that could not be read.
    """

    version = 1

    model: str
    data: str
    metrics: dict[str, int | float]
    word_pairs: list[PairScores] = field(default_factory=list)
    mislabelled: list[Suspect] = field(default_factory=list)
    outliers: list[Outlier] = field(default_factory=list)
    protocol: dict[str, object] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)
    skipped: list[tuple[int, str, str]] = field(default_factory=list)
