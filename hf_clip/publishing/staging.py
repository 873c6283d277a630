"""The folder that is published: a model as others open it, its card, its figures; no secret, no path of a machine."""

import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
from safetensors.torch import load_file
from transformers.utils import logging

from ..configuration_hf_clip import HFClipConfig
from ..embedding_store import public_name, weights_digest
from ..errors import InputError
from ..evaluation.report import PAGE, PICTURES, RESULTS, page
from ..processing_hf_clip import HFClipProcessor
from ..towers import open_model_and_processor
from .adapters import is_adapter, stage_adapter
from .card import CardDetails, write_card
from .sentence_transformers_files import write_sentence_transformers_files

logger = logging.get_logger(__name__)

TRAINING, EVALUATION, ONNX = "training.json", "evaluation", "onnx"
_EXAMPLE = "example.png"
_WEIGHTS = "model*.safetensors"
# These show figures; any other picture shows pictures of the data.
_CHARTS = ("training_curve", "recall_", "similarities_", "reliability_", "confusion_")
_TEXTS = (".json", ".jsonl", ".md", ".py", ".txt", ".yaml")
_VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "merges.txt")  # where "/home/" is a word like others
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{30,}")


@dataclass
class Content:
    """What goes up beside model, processor and code.

    Args:
        details: what the publisher says, for the card.
        evaluations: folders that `hf-clip evaluate` wrote about this model, besides the run's own.
        pictures: whether pictures of the data go along, in grids of what the model finds; default: as the run says.
        example_picture: what the card's examples look at.
        base_model: of an adapter, the Hub id of what it adapts.
        max_shard_size: of a file of weights, as "5GB".
        run_examples: whether the card's examples are run, and show what they print.
        facts: of the training; default: the folder's `training.json`.
    """

    details: CardDetails
    evaluations: Sequence[str | Path] = ()
    pictures: bool | None = None
    example_picture: str | Path | None = None
    base_model: str | None = None
    max_shard_size: str = "5GB"
    run_examples: bool = True
    facts: dict[str, Any] | None = None


def stage(source: str | Path, target: Path, content: Content) -> dict[str, Any]:
    """Fills an empty folder with all that is published of a run, or of any folder with a saved model.

    Nothing in `source` is changed.

    Returns:
        What the card was filled with.

    Raises:
        InputError: a folder without a model; an evaluation of another model; a secret, or a path of this machine, in
            what would go up.
    """
    source = Path(source)
    target.mkdir(parents=True, exist_ok=True)
    _stage_model(source, target, content)
    shown = _stage_facts(source, target, content)
    _stage_results(source, target, content, shown)
    _stage_pictures(source / PICTURES, target / PICTURES, shown)
    if (source / ONNX).is_dir():
        shutil.copytree(source / ONNX, target / ONNX, copy_function=_link)
    if content.example_picture:
        _stage_example(Path(content.example_picture), target)
        content.details.example_picture = f"{PICTURES}/{_EXAMPLE}"
    facts = write_card(target, content.details, run_examples=content.run_examples)
    refuse_secrets(target, source)
    return facts


def _stage_model(source: Path, target: Path, content: Content) -> None:
    if is_adapter(source):
        stage_adapter(source, target, content.base_model)
        return
    weights = sorted(source.glob(_WEIGHTS))
    if not (source / "config.json").is_file() or not weights:
        raise InputError(f"{source} holds no model (config.json, model.safetensors): give the folder of a trained one")
    try:
        config = HFClipConfig.from_pretrained(source)
        processor = HFClipProcessor.from_pretrained(source)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{source} is no folder of a whole hf_clip model: {error}") from error
    config.save_pretrained(target)
    processor.save_pretrained(target)
    _stage_weights(weights, target, content.max_shard_size)
    write_sentence_transformers_files(target, config, processor)


def _stage_weights(weights: list[Path], target: Path, max_shard_size: str) -> None:
    """Links the files of weights, or shares them out anew where one is too large."""
    if max(file.stat().st_size for file in weights) <= _bytes(max_shard_size):
        index = weights[0].with_name("model.safetensors.index.json")
        for file in [*weights, *([index] if index.is_file() else [])]:
            _link(file, target / file.name)
        return
    tensors = {name: tensor for file in weights for name, tensor in load_file(file).items()}
    huggingface_hub.save_torch_state_dict(
        tensors, target, max_shard_size=max_shard_size, metadata={"format": "pt"}, shared_tensors_to_discard=[]
    )


def _bytes(size: str) -> int:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT])B", size.strip().upper())
    if not found:
        raise InputError(f"max_shard_size {size!r} is no size: give one such as 5GB or 500MB")
    return int(float(found[1]) * 1000 ** (1 + "KMGT".index(found[2])))


def _stage_facts(source: Path, target: Path, content: Content) -> bool:
    """Whether pictures of the data may be shown."""
    facts = content.facts or _read_json(source / TRAINING)
    if facts:
        _write_json(target / TRAINING, facts)
    return bool(facts.get("pictures_may_be_shown")) if content.pictures is None else content.pictures


def _read_json(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except ValueError as error:
        raise InputError(f"{file} is no JSON ({error}): write it again, or remove it") from error


def _write_json(file: Path, value: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


# ---- figures and pictures -----------------------------------------------------------------------------------------


def _stage_results(source: Path, target: Path, content: Content, shown: bool) -> None:
    """Those of the run under their own names, those that the publisher adds under the names of their folders."""
    own = {file.parent: file.parent.relative_to(source) for file in sorted(source.glob(f"{EVALUATION}/**/{RESULTS}"))}
    added = {Path(folder): Path(EVALUATION, Path(folder).resolve().name) for folder in content.evaluations}
    for folder in added:
        if not (folder / RESULTS).is_file():
            raise InputError(f"{folder} holds no {RESULTS}: give a folder that `hf-clip evaluate --output` wrote")
    if not own and not added:
        return
    digest = weights_digest(open_model_and_processor(str(source))[0])
    for folder, place in (own | added).items():
        results = _of_this_model(_read_json(folder / RESULTS), digest, content.details.name)
        if results is None and folder in added:
            raise InputError(f"{folder} measured another model: evaluate {source} with `hf-clip evaluate` once more")
        if results is None:
            logger.warning(f"{folder / RESULTS} is of other weights than the model beside it, and is left out")
            continue
        names = [name for name in results["pictures"] if shown or name.startswith(_CHARTS)]
        results["pictures"] = names
        _write_json(target / place / RESULTS, results)
        (target / place / PAGE).write_text(page(results), encoding="utf-8")
        for name in names:
            _link(folder / PICTURES / name, target / place / PICTURES / name)


def _of_this_model(results: dict[str, Any], digest: str, name: str) -> dict[str, Any] | None:
    """The part of a report that is about the model with these weights, under the name that it is published by."""
    model = next((model for model in results.get("models", ()) if model["digest"] == digest), None)
    if model is None:
        return None
    called = model["name"]
    notes = {
        where.replace(called, name, 1): said
        for where, said in results["notes"].items()
        if where.startswith(f"{called} /")
    }
    return results | {
        "models": [model | {"name": name}],
        "figures": [figure | {"model": name} for figure in results["figures"] if figure["model"] == called],
        "differences": [],
        "notes": notes,
        "skipped": _without_folders(results["skipped"]),
        "skipped_of": {role: _without_folders(skipped) for role, skipped in results["skipped_of"].items()},
    }


def _without_folders(skipped: list[list[Any]]) -> list[list[Any]]:
    """What could not be read, by names that say nothing of the machine; the reason may hold the path once more."""
    return [[row, public_name(name), reason.replace(name, public_name(name))] for row, name, reason in skipped]


def _stage_pictures(folder: Path, target: Path, shown: bool) -> None:
    for file in sorted(folder.glob("*.png")):
        if shown or file.name.startswith(_CHARTS):
            _link(file, target / file.name)


def _stage_example(picture: Path, target: Path) -> None:
    from ..data.images import UnreadableImage, read_image

    try:
        image, _ = read_image(str(picture))
    except UnreadableImage as error:
        raise InputError(f"--example_picture {picture} cannot be read: {error}") from error
    (target / PICTURES).mkdir(exist_ok=True)
    image.save(target / PICTURES / _EXAMPLE)  # anew: what a camera wrote beside the pixels stays here


def _link(file: str | Path, target: str | Path) -> None:
    """The file under another name where the disk allows it, for weights are large; else a copy."""
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(file, target)
    except OSError:
        shutil.copyfile(file, target)


# ---- what must not go up ------------------------------------------------------------------------------------------


def refuse_secrets(folder: Path, source: Path) -> None:
    """
    Raises:
        InputError: a token, or a path of this machine, in one of the folder's texts.
    """
    token = huggingface_hub.get_token()
    here = {path for path in (Path.home(), Path.cwd(), source.resolve().parent) if len(path.parts) > 1}
    path = re.compile(r"(?<![\w./:-])(" + "|".join(re.escape(f"{folder}{os.sep}") for folder in sorted(here)) + ")")
    for file in sorted(each for each in folder.rglob("*") if each.suffix in _TEXTS):
        text, name = file.read_text(encoding="utf-8", errors="replace"), file.relative_to(folder)
        if (token and token in text) or _TOKEN.search(text):
            raise InputError(f"{name} would hold an access token: take it out of what the card or the run says")
        if file.name not in _VOCABULARIES and here and (found := path.search(text)):
            raise InputError(f"{name} would tell of the folder {found[1]} of this machine: name it otherwise")
