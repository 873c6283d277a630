"""What a model card is made of: all that a folder with a saved model says of it, fit to be shown to anybody."""

import math
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from safetensors import safe_open
from transformers.utils.peft_utils import ADAPTER_CONFIG_NAME

from ...core.errors import InputError, first_line
from ...core.families import Family, families, family_of, load
from ...core.json_files import read_json
from ...core.public import public_facts, public_name
from ..hub_ids import is_hub_id
from .evaluation import evaluations_in

_SENTENCES = ("description", "credit", "notes", "example_labels", "tags", "templates", "sentence", "citations")
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked", "position_ids")
_LICENSE = re.compile(r"[a-z0-9.-]+")
_LANGUAGE = re.compile(r"multilingual|[a-z]{2,3}(-[A-Za-z]+)?")


@dataclass
class Example:
    """
    Args:
        code: Python that stands alone.
        output: what it prints; None: it was not run.
    """

    title: str
    code: str
    output: str | None = None


@dataclass
class CardDetails:
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
        for name in ("language", "datasets", "base_model", "example_labels", "tags"):
            value = getattr(self, name)
            setattr(self, name, [value] if isinstance(value, str) else list(value or ()))


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


def card_facts(folder: Path, details: CardDetails, family: Family, examples: Sequence[Example]) -> dict[str, Any]:
    """All that the template is filled with, as JSON: no path of a machine, no token.

    Raises:
        InputError: see `check_details`; a file that is not as hf_clip writes it.
    """
    check_details(details)
    facts = {
        "details": asdict(details),
        "adapter_of": _named(adapter_base(folder)),
        "model_type": family.model_type,
        "sentence_transformers": (folder / "modules.json").is_file(),
        "model": model_facts(folder, family),
        "training": _training(folder, load(family.card).named_in_training),
        "evaluations": [evaluation.to_json() for evaluation in evaluations_in(folder)],
        "onnx": read_json(folder / "onnx" / "export.json") or None,
        "pictures": sorted(f"pictures/{file.name}" for file in folder.glob("pictures/*.png")),
    }
    # What an example says has been run, and stays as it is.
    return public_facts(facts, _SENTENCES) | {"examples": [asdict(example) for example in examples]}


@contextmanager
def as_written(file: Path) -> Iterator[None]:
    """What is wrong with the shape of a file, in one line; for nothing but looking into what was read of it."""
    try:
        yield
    except InputError:
        raise
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{file} is not as hf_clip writes it ({type(error).__name__}: {first_line(error)}): write it again, or "
            "remove it"
        ) from error


def _named(name: str | None) -> str | None:
    return public_name(name) if name else None


def _training(folder: Path, named: Collection[str]) -> dict[str, Any]:
    file = folder / "training.json"
    training = read_json(file)
    with as_written(file):
        names = {key: _named(training.get(key)) for key in (*named, "started_from")}
        data = training.get("data") or []
        if not (isinstance(data, list) and all(isinstance(entry, dict) for entry in data)):
            raise TypeError("data is no list of mappings")
        data = [entry | {"name": _named(entry.get("name"))} for entry in data]
        for key in ("parameters", "hyperparameters", "augmentation", "hardware", "versions", "emissions"):
            if not isinstance(training.get(key) or {}, dict):
                raise TypeError(f"{key} is no mapping")
    return training | names | {"data": data}


def model_facts(folder: Path, family: Family) -> dict[str, Any]:
    """Of the model's settings what a reader asks for; of an adapter its base's, where that is on this machine."""
    config = _saved_config(folder)
    return load(family.card).model_facts(folder, config) if config else {}


def family_in(folder: Path) -> Family:
    """The family of the model that a folder holds, or of the one that its adapter is laid over.

    Raises:
        InputError: nothing there says which, or hf_clip knows no such family.
    """
    config = _saved_config(folder)
    if "model_type" in config:
        return family_of(config["model_type"])
    # Of an adapter whose base is away, or of none that has a name, its processor tells.
    saved_by = is_adapter(folder) and read_json(folder / "processor_config.json").get("processor_class")
    found = next((each for each in families() if load(each.processor).__name__ == saved_by), None)
    if found is None:
        raise InputError(
            f"{folder} does not say what kind of model it holds (no model_type in config.json; of an adapter, no "
            "processor of one that hf_clip knows): save model and processor there with save_pretrained"
        )
    return found


def _saved_config(folder: Path) -> dict[str, Any]:
    return read_json(folder / "config.json") or _base_config(folder)


def is_adapter(folder: str | Path) -> bool:
    return Path(folder, ADAPTER_CONFIG_NAME).is_file()


def adapter_base(folder: Path) -> str | None:
    """What an adapter is laid over; None of a whole model."""
    return read_json(folder / ADAPTER_CONFIG_NAME).get("base_model_name_or_path")


def _base_config(folder: Path) -> dict[str, Any]:
    base = adapter_base(folder)
    if not base:
        return {}
    cached = try_to_load_from_cache(base, "config.json") if is_hub_id(base) else None
    return read_json(Path(cached) if isinstance(cached, str) else Path(base, "config.json"))


def tensors_in(folder: Path) -> dict[str, int]:
    """Of the weights' tensors that are parameters: how many numbers each holds."""
    sizes: dict[str, int] = {}
    for file in folder.glob("model*.safetensors"):
        with safe_open(file, "np") as weights:
            sizes |= {name: math.prod(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118
    return {name: size for name, size in sizes.items() if not name.endswith(_BUFFERS)}
