"""What a run says of itself, `training.json`: written where training ends, read where a card is made."""

from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

from huggingface_hub.dataclasses import strict

from .public import public_name
from .records import Record

TRAINING = "training.json"


@strict
@dataclass
class CaptionLengths(Record):
    median: float
    shortest: int
    longest: int
    captions_looked_at: int | None = None


@strict
@dataclass
class DataRecord(Record):
    """A source that a run was trained on.

    Args:
        weight: its share of an epoch; None where it is the only one.
        streamed: of a stream nothing is counted.
        words: how long its captions are.
        characters: the same where a language puts no spaces.
    """

    name: str | None = None
    weight: float | None = None
    split: str | None = None
    streamed: bool = False
    pictures: int | None = None
    captions: int | None = None
    captions_per_picture: float | None = None
    words: CaptionLengths | None = None
    characters: CaptionLengths | None = None

    def to_json(self) -> dict[str, object]:
        """Without what is not known of it."""
        said = super().to_json().items()
        return {
            name: value for name, value in said if name in ("name", "weight") or not (value is None or value is False)
        }


@strict
@dataclass
class SettingsRecord(Record):
    """A run's settings by name: those that differ from the defaults, and of the others those that matter."""

    changed: dict[str, object] = field(default_factory=dict)
    default: dict[str, object] = field(default_factory=dict)


@strict
@dataclass
class HardwareRecord(Record):
    device: str | None = None
    processes: int | None = None
    precision: str | None = None


@strict
@dataclass
class EmissionsRecord(Record):
    """CO₂ equivalent in kilograms, energy in kilowatt hours, and by which country's grid and which program."""

    kg: float | None = None
    kwh: float | None = None
    grid: str | None = None
    source: str | None = None


@strict
@dataclass
class TrainingRecord(Record):
    """What any run says. A family that has more to say derives from it, and names the class in
    what its cards are filled with (`FamilyCard.facts`).

    Nothing is required, for people write such files by hand, too; what is not known is None, or empty.

    Args:
        hf_clip: version of the package.
        started_from: the trained model that was gone on from.
        parameters: how many numbers each part of the model holds, and how many of them were `trained`.
        augmentation: what differs from none.
        batch_size: of the loss.
        accumulated_batches: how many such batches a step has.
        seconds: None of a run that was resumed, for its last part alone would mislead.
        credit: attribution that the pictures' licence asks for.
        pictures_may_be_shown: whether pictures of the data may go into a published card.

    Attributes:
        models: the fields that name models.
    """

    version = 1
    models: ClassVar[tuple[str, ...]] = ("started_from",)

    hf_clip: str | None = None
    started_from: str | None = None
    data: list[DataRecord] = field(default_factory=list)
    skipped_pictures: int = 0
    parameters: dict[str, int] = field(default_factory=dict)
    hyperparameters: SettingsRecord = field(default_factory=SettingsRecord)
    augmentation: dict[str, object] = field(default_factory=dict)
    batch_size: int | None = None
    accumulated_batches: int = 1
    steps: int | None = None
    epochs: float | None = None
    seconds: float | None = None
    pairs_per_second: float | None = None
    emissions: EmissionsRecord | None = None
    hardware: HardwareRecord | None = None
    versions: dict[str, str] = field(default_factory=dict)
    credit: str = ""
    pictures_may_be_shown: bool = False

    def in_public(self) -> Self:
        """With models and data by names that say nothing of where they lay."""
        public = replace(self, data=[replace(entry, name=_public(entry.name)) for entry in self.data])
        for name in self.models:
            setattr(public, name, _public(getattr(self, name)))
        return public

    @classmethod
    def upgraded(cls, value: dict[str, object], version: int) -> dict[str, object]:
        """Of before there were versions: None stood for all that was not known."""
        return {name: each for name, each in value.items() if each is not None}


def _public(name: str | None) -> str | None:
    return public_name(name) if name else None
