"""Records: what hf_clip writes of runs, evaluations and cards, as dataclasses that are checked when they are read."""

import math
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import ClassVar, Self

from huggingface_hub.errors import StrictDataclassFieldValidationError

from .errors import InputError, first_line, shortened
from .json_files import read_value, write_json

_VERSION = "format_version"


class InvalidRecord(InputError):
    """A file, or a value, that is no record of the kind that was expected."""


@dataclass
class Record:
    """A dataclass that is read from JSON and written as it.

    A subclass is a dataclass under `huggingface_hub.dataclasses.strict`, which checks every value against its field's
    type, and not frozen, where `strict` would not be asked. Fields may be texts, numbers, `None`, other records, and
    lists, tuples and mappings (by text) of these; `object` is any JSON value. A number that JSON lacks (NaN) is none.
    A field that was not there from the beginning has a default, for files from before it. One that ends in an
    underscore, as Python's own words must, is written without: `from_` as `from`.

    Example:
        ```python
        @strict
        @dataclass
        class Speed(Record):
            pairs_per_second: float
            notes: list[str] = field(default_factory=list)

        Speed.from_json({"pairs_per_second": 120}).to_json()  # {"pairs_per_second": 120.0, "notes": []}
        ```

    Attributes:
        version: of a record that is a whole file; raised where a field changes its meaning, or goes, and then
            `upgraded` makes today's fields of older ones. `None`: of a record within others, which has no version.
    """

    version: ClassVar[int | None] = None

    def to_json(self) -> dict[str, object]:
        """The fields as JSON values, `format_version` first where the record has a version."""
        versioned: dict[str, object] = {} if self.version is None else {_VERSION: self.version}
        return versioned | {_written(field.name): _plain(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_json(cls, value: object, where: str = "") -> Self:
        """
        Args:
            where: what an error names: a file, or the place in one.

        Raises:
            InvalidRecord: a value of another shape, a field that is missing, unknown or of another type, or a version
                that is newer than this one; it says where.
        """
        return cls._from(value, where or cls.__name__, "")

    @classmethod
    def upgraded(cls, value: dict[str, object], version: int) -> dict[str, object]:
        """Today's fields, of those of an older version (0: of before there were versions)."""
        return value

    @classmethod
    def read(cls, file: str | Path) -> Self:
        """
        Raises:
            InvalidRecord: there is no such file, or it holds something else.
        """
        if not Path(file).is_file():
            raise InvalidRecord(f"there is no {file}")
        try:
            value = read_value(Path(file))
        except InputError as error:
            raise InvalidRecord(str(error)) from error
        return cls.from_json(value, str(file))

    def write(self, file: str | Path) -> None:
        """Writes the file, whole or not at all."""
        write_json(Path(file), self.to_json())

    @classmethod
    def _from(cls, value: object, file: str, place: str) -> Self:
        if not isinstance(value, dict):
            raise _invalid(file, place, f"{type(value).__name__} where a mapping belongs")
        value = cls._of_this_version(value, file)
        hints = typing.get_type_hints(cls)
        known = {_written(field.name): field for field in fields(cls)}
        if unknown := [name for name in value if name not in known]:
            raise _invalid(file, place, f"unknown field {unknown[0]!r}")
        required = [name for name, field in known.items() if field.default is field.default_factory is MISSING]
        if missing := [name for name in required if name not in value]:
            raise _invalid(file, place, f"{missing[0]!r} is missing")
        built = {
            known[name].name: _built(hints[known[name].name], each, file, _within(place, name))
            for name, each in value.items()
        }
        try:
            return cls(**built)
        except StrictDataclassFieldValidationError as error:
            raise _invalid(file, place, shortened(_refusal(error), 300)) from error
        except (TypeError, ValueError) as error:  # of a record's own `__post_init__`
            raise _invalid(file, place, first_line(error)) from error

    @classmethod
    def _of_this_version(cls, value: dict[str, object], file: str) -> dict[str, object]:
        if cls.version is None:
            return value
        version = value.get(_VERSION, 0)
        if type(version) is not int or version < 0:
            raise _invalid(file, "", f"{_VERSION} {shortened(repr(version))} is no version")
        if version > cls.version:
            raise InvalidRecord(
                f"{file} was written by a newer hf_clip (format {version}, and this one reads up to {cls.version}): "
                "upgrade hf_clip"
            )
        bare = {name: each for name, each in value.items() if name != _VERSION}
        return bare if version == cls.version else cls.upgraded(bare, version)


def check_at_least(record: Record, **least: int) -> None:
    """For a record's `__post_init__`: of each field, the least that it may be.

    Raises:
        ValueError: one is less; it is named.
    """
    for name, bound in least.items():
        if getattr(record, name) < bound:
            raise ValueError(f"{name!r} is {getattr(record, name)}, and at least {bound}")


def _refusal(error: StrictDataclassFieldValidationError) -> str:
    """Why `strict` refused a value; of a field that may be None once, and not for each of its types."""
    said = first_line(error.__cause__ or error)
    of_types = said.rpartition(" Errors: ")[2].split("; Field ")
    return of_types[0] if len(of_types) == 2 and "expected NoneType" in of_types[1] else said


def _invalid(file: str, place: str, reason: str) -> InvalidRecord:
    said = f"{place}: {reason}" if place else reason
    return InvalidRecord(f"{file} is not as hf_clip writes it ({said}): write it again, or remove it")


def _written(field: str) -> str:
    """A field's name in JSON."""
    return field.removesuffix("_")


def _within(place: str, name: object) -> str:
    return f"{place}.{name}" if place else str(name)


def _built(hint: object, value: object, file: str, place: str) -> object:
    """A JSON value as its field has it: records of mappings, tuples of lists, floats of whole numbers. What does not
    fit stays as it is, for `strict` to refuse."""
    if isinstance(value, float) and not math.isfinite(value):
        raise _invalid(file, place, f"{value} where a number belongs")
    if hint is object and isinstance(value, list | dict):
        hint = list[object] if isinstance(value, list) else dict[str, object]
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(hint, type) and issubclass(hint, Record):
        return hint._from(value, file, place)
    if origin in (typing.Union, types.UnionType):
        kinds = [kind for kind in inner if kind is not types.NoneType]
        return value if value is None or len(kinds) > 1 else _built(kinds[0], value, file, place)
    if origin in (list, tuple) and isinstance(value, list):
        if origin is tuple and inner[-1] is not Ellipsis:
            kinds = list(inner) if len(inner) == len(value) else [object] * len(value)
        else:
            kinds = [inner[0]] * len(value)
        built = [
            _built(kind, each, file, f"{place}[{i}]") for i, (kind, each) in enumerate(zip(kinds, value, strict=True))
        ]
        return tuple(built) if origin is tuple else built
    if origin is dict and isinstance(value, dict):
        return {name: _built(inner[1], each, file, _within(place, name)) for name, each in value.items()}
    return float(value) if hint is float and type(value) is int else value


def _plain(value: object) -> object:
    if isinstance(value, Record):
        return value.to_json()
    if is_dataclass(value):
        raise TypeError(f"{type(value).__name__} is no Record: derive it from Record")
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value
