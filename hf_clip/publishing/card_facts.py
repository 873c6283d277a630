"""What a model card is made of: all that a folder with a saved model says of it, fit to be shown to anybody."""

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from huggingface_hub import try_to_load_from_cache
from safetensors import safe_open

from ..embedding_store import public_name
from ..errors import InputError
from .usage import Example

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{16,}")
# Of a path in a sentence, what comes before the last name; an address (https://…) is none.
_PATH = re.compile(r"(?:file://|(?<![\w/.~]))~?/(?:[\w.@+-]+/)+|\b[A-Za-z]:\\(?:[^\\\s]+\\)*")
_SECRETS = ("token", "password", "secret")
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked", "position_ids")


@dataclass
class CardDetails:
    """What the publisher says of a model.

    Args:
        name: "user/name", or a folder's name.
        license: as the Hub calls it, such as "apache-2.0".
        language: of the captions; codes such as "en".
        datasets: Hub ids of what the model was trained on, beside those that the run names.
        base_model: Hub ids; default: those of the towers.
        description: a paragraph of the publisher's own.
        credit: attribution that the training pictures' licence asks for; default: as the run has it.
        example_picture: path inside the folder; default: the examples draw one.
        example_labels: what that picture may show.
    """

    name: str
    license: str | None = None
    language: list[str] = field(default_factory=list)
    datasets: list[str] = field(default_factory=list)
    base_model: list[str] = field(default_factory=list)
    description: str = ""
    credit: str = ""
    example_picture: str | None = None
    example_labels: list[str] = field(default_factory=list)


def card_facts(folder: Path, details: CardDetails, examples: Sequence[Example]) -> dict[str, Any]:
    """All that the template is filled with, as JSON: no path of a machine, no token."""
    facts = {
        "details": asdict(details),
        "adapter_of": _name(_adapter_base(folder)),
        "sentence_transformers": (folder / "modules.json").is_file(),
        "model": model_facts(folder),
        "training": _training(folder),
        "evaluations": list(_evaluations(folder)),
        "onnx": _read(folder / "onnx" / "export.json"),
        "pictures": sorted(f"pictures/{file.name}" for file in folder.glob("pictures/*.png")),
    }
    # What an example says has been run, and stays as it is.
    return _public(facts) | {"examples": [asdict(example) for example in examples]}


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    except ValueError as error:
        raise InputError(f"{file} is no JSON ({error}): write it again, or remove it") from error


def _public(value: Any) -> Any:
    """The same without tokens and without where things lay on a machine."""
    if isinstance(value, dict):
        return {name: _public(inner) for name, inner in value.items() if not name.endswith(_SECRETS)}
    if isinstance(value, list):
        return [_public(inner) for inner in value]
    if isinstance(value, str):
        return _TOKEN.sub("…", _PATH.sub("", _last_part(value)))
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _last_part(text: str) -> str:
    """Of a text that is a path, and may hold spaces."""
    for kind in (PurePosixPath, PureWindowsPath):
        if kind(text).is_absolute() and "\n" not in text:
            return kind(text).name
    return text


def _name(name: str | None) -> str | None:
    """A Hub id as it is; of a path its last part, for a card must not tell about a machine."""
    if not name:
        return None
    before = "scratch/" if name.startswith("scratch/") else ""
    rest = name.removeprefix(before)
    return before + (Path(rest).expanduser().resolve().name if rest.startswith((".", "~")) else public_name(rest))


def _training(folder: Path) -> dict[str, Any]:
    training = _read(folder / "training.json") or {}
    names = {key: _name(training.get(key)) for key in ("vision_model", "text_model", "started_from")}
    data = [entry | {"name": _name(entry.get("name"))} for entry in training.get("data") or []]
    return training | names | {"data": data}


def model_facts(folder: Path) -> dict[str, Any]:
    """Of the model's settings what a reader asks for; of an adapter its base's, where that is on this machine."""
    config = _read(folder / "config.json") or _base_config(folder)
    if not config:
        return {}
    processor = _read(folder / "processor_config.json") or {}
    tensors = _tensors(folder)
    size = processor.get("image_processor", {})
    size = size.get("crop_size") or size.get("size") or {}
    longest = processor.get("max_text_length")
    return {
        "vision": _tower_facts("vision", config, tensors),
        "text": _tower_facts("text", config, tensors),
        "projection": config["projection"],
        "projection_dim": config["projection_dim"],
        "loss": config["loss"],
        "parameters": sum(tensors.values()) or None,
        "temperature": _temperature(folder),
        "image_size": [size["height"], size["width"]] if "height" in size else None,
        "max_text_length": longest,
        "fixed_length": longest if processor.get("text_padding") == "max_length" else None,
    }


def _adapter_base(folder: Path) -> str | None:
    return (_read(folder / "adapter_config.json") or {}).get("base_model_name_or_path")


def _base_config(folder: Path) -> dict[str, Any] | None:
    base = _adapter_base(folder)
    if not base:
        return None
    cached = try_to_load_from_cache(base, "config.json") if _HUB_ID.fullmatch(base) else None
    return _read(Path(cached) if isinstance(cached, str) else Path(base, "config.json"))


def _tower_facts(side: str, config: dict[str, Any], tensors: dict[str, int]) -> dict[str, Any]:
    tower = config[f"{side}_config"]
    tag = (tower.get("pretrained_cfg") or {}).get("tag")
    return {
        "type": tower["model_type"],
        "timm": f"timm/{tower['architecture']}.{tag}" if tower.get("architecture") and tag else None,
        "pooling": config[f"{side}_pooling"],
        "width": config[f"{side}_width"],
        "parameters": sum(size for name, size in tensors.items() if name.startswith(f"{side}_model.")) or None,
    }


def _tensors(folder: Path) -> dict[str, int]:
    """Of the weights' tensors that are parameters: how many numbers each holds."""
    sizes: dict[str, int] = {}
    for file in folder.glob("model*.safetensors"):
        with safe_open(file, "np") as weights:
            sizes |= {name: math.prod(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118
    return {name: size for name, size in sizes.items() if not name.endswith(_BUFFERS)}


def _temperature(folder: Path) -> float | None:
    for file in folder.glob("model*.safetensors"):
        with safe_open(file, "pt") as weights:
            if "logit_scale" in weights.keys():  # noqa: SIM118
                return math.exp(-weights.get_tensor("logit_scale").item())
    return None


def _evaluations(folder: Path) -> Iterator[dict[str, Any]]:
    """What each report under `evaluation` says of its first model."""
    for file in sorted(folder.glob("evaluation/**/results.json")):
        results, place = _read(file), file.parent.relative_to(folder).as_posix()
        first = results["models"][0]["name"]
        yield {
            "data": results["data"],
            "intervals": results["intervals"],
            "figures": [figure for figure in results["figures"] if figure["model"] == first],
            "notes": {where: said for where, said in results["notes"].items() if where.startswith(f"{first} / ")},
            "skipped": len(results["skipped"]),
            "page": f"{place}/report.md" if (file.parent / "report.md").is_file() else None,
            "pictures": [
                f"{place}/pictures/{name}"
                for name in results["pictures"]
                if (file.parent / "pictures" / name).is_file()
            ],
        }


def is_hub_id(name: str | None) -> bool:
    """Whether a name, of which `card_facts` has taken the paths, can be that of a repository."""
    return bool(name and _HUB_ID.fullmatch(name) and not name.startswith(("scratch/", "torchvision/")))
