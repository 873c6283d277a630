"""What a model card is made of, fit to be shown to anybody; a family says more of its model and its runs."""

import re
import typing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Self

from huggingface_hub.dataclasses import strict

from ...core.errors import InputError, shortened
from ...core.public import public_facts, public_name
from ...core.records import Record
from ...core.training_record import TrainingRecord
from ..hub_ids import is_hub_id
from ..onnx.record import OnnxRecord
from ..saved_model import SavedModel
from .evaluation import Evaluation, evaluations_in

_SENTENCES = ("description", "credit", "notes", "example_labels", "tags", "templates", "sentence", "citations")
_CURVE = "pictures/training_curve.png"
_LICENSE = re.compile(r"[a-z0-9.-]+")
_LANGUAGE = re.compile(r"multilingual|[a-z]{2,3}(-[A-Za-z]+)?")


@strict
@dataclass
class Example(Record):
    """
    Args:
        code: Python that stands alone.
        output: what it prints; None: it was not run.
    """

    title: str
    code: str
    output: str | None = None


@dataclass  # not strict, which would look before `__post_init__` has made lists
class CardDetails(Record):
    """What the publisher says of a model.

    One text in place of a list is a list of one.

    Args:
        name: "user/name", or a folder's name; `publish` sets it.
        license: as the Hub calls it, such as "apache-2.0".
        language: of the captions; codes such as "en".
        datasets: Hub ids of what the model was trained on, beside those that the run names.
        tags: for the Hub's search, beside hf_clip's own.
        base_model: Hub ids; default: those of the towers.
        description: a paragraph of the publisher's own.
        credit: attribution that the training pictures' licence asks for; default: as the run has it.
        example_picture: path inside the folder; default: the examples draw one.
        example_labels: what that picture may show.

    Raises:
        InputError: what is no text, or no list of texts; it is named.
    """

    name: str = ""
    license: str | None = None
    language: list[str] = field(default_factory=list)
    datasets: list[str] = field(default_factory=list)
    base_model: list[str] = field(default_factory=list)
    description: str = ""
    credit: str = ""
    example_picture: str | None = None
    example_labels: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in ("name", "description", "credit"):
            _text(name, getattr(self, name))
        for name in ("license", "example_picture"):
            _text(name, "" if getattr(self, name) is None else getattr(self, name))
        for name in ("language", "datasets", "base_model", "example_labels", "tags"):
            setattr(self, name, _texts(name, getattr(self, name)))


def _texts(name: str, value: object) -> list[str]:
    if value is None:
        return []
    if isinstance(value, str) or not isinstance(value, Iterable):
        return [_text(name, value)]
    return [_text(name, each) for each in value]


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise InputError(f"{name} {shortened(repr(value))} is no text: give one")
    return value


def check_details(details: CardDetails) -> None:
    """
    Raises:
        InputError: a licence, a language or a Hub id that the Hub would not know by its shape; it is named.
    """
    if details.license and not _LICENSE.fullmatch(details.license):
        raise InputError(f"license {details.license!r} is none of the Hub's: give one such as apache-2.0")
    for language in details.language:
        if not _LANGUAGE.fullmatch(language):
            raise InputError(f"language {language!r} is no ISO 639 code: give one such as en or zh, or multilingual")
    for kind, names in (("base_model", details.base_model), ("datasets", details.datasets)):
        for name in names:
            if not is_hub_id(name, without_owner=True):
                raise InputError(f"{kind} {name!r} is no Hub id: give one such as user/name")


@strict
@dataclass
class CardModel(Record):
    """Of a model's settings and weights what a reader asks for.

    Args:
        parameters: None where there are no weights.
    """

    parameters: int | None = None


@strict
@dataclass
class CardFacts(Record):
    """All that a card is filled with. A family that has more to say narrows `model` and `training` in a subclass.

    Args:
        adapter_of: of an adapter, what it is laid over.
        model: None of an adapter whose base is away.
        pictures: paths within the folder.
    """

    version = 1

    details: CardDetails
    adapter_of: str | None
    model_type: str
    sentence_transformers: bool
    model: CardModel | None
    training: TrainingRecord
    evaluations: list[Evaluation]
    onnx: OnnxRecord | None
    pictures: list[str]
    examples: list[Example]

    @property
    def curve(self) -> str | None:
        """The picture of the training's course, if there is one."""
        return _CURVE if _CURVE in self.pictures else None

    @property
    def other_pictures(self) -> list[str]:
        """Those that stand with the evaluation, and its charts."""
        own = [name for name in self.pictures if name not in (_CURVE, self.details.example_picture)]
        return own + [name for evaluation in self.evaluations for name in evaluation.charts]

    @property
    def datasets(self) -> list[str]:
        """Hub ids of what it was trained on: the publisher's, then the run's."""
        named = [entry.name for entry in self.training.data if entry.name]
        return list(dict.fromkeys([*self.details.datasets, *filter(is_hub_id, named)]))

    @classmethod
    def training_kind(cls) -> type[TrainingRecord]:
        """What the family's runs say of themselves."""
        return typing.get_type_hints(cls)["training"]

    @classmethod
    def gathered(
        cls, saved: SavedModel, details: CardDetails, model: CardModel | None, examples: Sequence[Example]
    ) -> Self:
        """What a folder says of itself, without paths of a machine and tokens; of the examples nothing is changed, for
        they have been run.

        Raises:
            InvalidRecord: a file that is not as hf_clip writes it.
        """
        facts = cls(
            details=details,
            adapter_of=public_name(saved.base) if saved.base else None,
            model_type=saved.family.model_type,
            sentence_transformers=saved.has_sentence_transformers,
            model=model,
            training=(saved.training or cls.training_kind()()).in_public(),
            evaluations=evaluations_in(saved.folder),
            onnx=saved.onnx,
            pictures=saved.pictures,
            examples=[],
        )
        public = cls.from_json(public_facts(facts.to_json(), _SENTENCES), str(saved.folder))
        public.examples = list(examples)
        return public
