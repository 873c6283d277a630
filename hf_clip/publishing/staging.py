"""The folder that is published: a model as others open it, its card, its figures; no secret, no path of a machine."""

import dataclasses
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import huggingface_hub
from PIL import Image
from safetensors.torch import load_file
from transformers.utils import logging

from ..core.digests import weights_digest
from ..core.errors import InputError, first_line
from ..core.families import Family, load
from ..core.json_files import read_json, write_json
from ..core.public import refuse_secrets, skipped_in_public, without_folders
from ..evaluation.records import Results
from ..evaluation.report import PAGE, PICTURES, RESULTS, page
from .adapters import stage_adapter
from .card.facts import as_written, check_details, family_in, is_adapter
from .card.render import CardDetails, write_card
from .hub_contents import write_manifest
from .onnx.export import FACTS as EXPORT
from .onnx.export import FILES as ONNX_FILES

logger = logging.get_logger(__name__)

TRAINING, EVALUATION, ONNX = "training.json", "evaluation", "onnx"
_EXAMPLE = f"{PICTURES}/example.png"
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
# These show figures; any other picture shows pictures of the data.
_CHARTS = ("training_curve", "recall_", "similarities_", "reliability_", "confusion_")


@dataclass
class PublishOptions:
    """What goes up beside model, processor and code.

    Args:
        details: what the publisher says, for the card.
        evaluations: folders that `hf-clip evaluate` wrote about this model, besides the run's own.
        pictures: whether pictures of the data go along, in grids of what the model finds; default: those of the run,
            as the run says, and none of `evaluations`.
        example_picture: what the card's examples look at.
        adapter_of: of an adapter, the Hub id of what it adapts.
        max_shard_size: of a file of weights, as "5GB".
        run_examples: whether the card's examples are run, and show what they print.
        facts: of the training; default: the folder's `training.json`.
    """

    details: CardDetails = field(default_factory=CardDetails)
    evaluations: Sequence[str | Path] = ()
    pictures: bool | None = None
    example_picture: str | Path | None = None
    adapter_of: str | None = None
    max_shard_size: str = "5GB"
    run_examples: bool = True
    facts: dict[str, Any] | None = None


def stage(
    source: str | Path, target: Path, content: PublishOptions, *, token: str | None = None, copy: bool = False
) -> dict[str, Any]:
    """Fills an empty folder with all that is published of a run, or of any folder with a saved model.

    Nothing in `source` is changed.

    Args:
        token: the Hub's, which must be in none of the files; that of `hf auth login` or HF_TOKEN must not either.
        copy: weights are copied, for a folder that is kept; else they are linked where the disk allows it.

    Returns:
        What the card was filled with.

    Raises:
        InputError: a folder without a model; an evaluation of another model; a secret, or a path of this machine, in
            what would go up; a disk that is full.
    """
    source, place = Path(source), shutil.copyfile if copy else link_or_copy
    check_details(content.details)
    with _one_line(source):
        target.mkdir(parents=True, exist_ok=True)
        family = _stage_model(source, target, content, place)
        shown = _stage_facts(source, target, content)
        digest = cache(lambda: weights_digest(load(family.open_model)(str(source))[0]))
        _stage_results(source, target, content, shown, digest)
        _stage_pictures(source / PICTURES, target / PICTURES, shown)
        _stage_onnx(source / ONNX, target / ONNX, digest, place)
        details = content.details
        if content.example_picture:
            _stage_example(Path(content.example_picture), target / _EXAMPLE)
            details = dataclasses.replace(details, example_picture=_EXAMPLE)
        facts = write_card(target, details, run_examples=content.run_examples)
        write_manifest(target)
        refuse_secrets(target, source, token)
    return facts


@contextmanager
def _one_line(source: Path) -> Iterator[None]:
    """What is wrong with the disk, in one line."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{source} could not be made ready ({first_line(error)}): mend that, then run again"
        ) from error


def check_holds_model(source: Path) -> None:
    """
    Raises:
        InputError: the folder has neither a whole model nor an adapter.
    """
    if not is_adapter(source) and not ((source / "config.json").is_file() and _weights(source)):
        raise InputError(f"{source} holds no model (config.json, {_WEIGHTS}): give the folder of a trained one")


def _stage_model(source: Path, target: Path, content: PublishOptions, place: Callable[..., Any]) -> Family:
    if is_adapter(source):
        stage_adapter(source, target, content.adapter_of)
        return family_in(target)
    check_holds_model(source)
    family = family_in(source)
    try:
        config = load(family.config).from_pretrained(source)
        processor = load(family.processor).from_pretrained(source)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{source} is no folder of a whole {family.model_type} model: {first_line(error)}") from error
    if part := next((name for name in config.architectures or () if name in family.parts), None):
        raise InputError(f"{source} holds a part of a model ({part}): give the folder of the whole one")
    config.save_pretrained(target)
    write_json(target / "config.json", without_folders(read_json(target / "config.json")))
    processor.save_pretrained(target)
    _stage_weights(_weights(source), target, content.max_shard_size, place)
    if family.write_files:
        load(family.write_files)(source, target, config, processor)
    return family


def _weights(source: Path) -> list[Path]:
    """One file, or those that the index names; no other that may lie there."""
    if (source / _WEIGHTS).is_file():
        return [source / _WEIGHTS]
    return [source / name for name in sorted(set(read_json(source / _INDEX).get("weight_map", {}).values()))]


def _stage_weights(weights: list[Path], target: Path, max_shard_size: str, place: Callable[..., Any]) -> None:
    """The files of weights, or the weights shared out anew where one file is too large."""
    if max(file.stat().st_size for file in weights) <= _bytes(max_shard_size):
        index = weights[0].with_name(_INDEX)
        for file in [*weights, *([index] if len(weights) > 1 or weights[0].name != _WEIGHTS else [])]:
            place(file, target / file.name)
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


def _stage_facts(source: Path, target: Path, content: PublishOptions) -> bool:
    """Whether pictures of the run's data may be shown."""
    facts = content.facts or read_json(source / TRAINING)
    if facts:
        write_json(target / TRAINING, without_folders(facts))
    return bool(facts.get("pictures_may_be_shown")) if content.pictures is None else content.pictures


# ---- figures and pictures -----------------------------------------------------------------------------------------


def _stage_results(
    source: Path, target: Path, content: PublishOptions, shown: bool, digest: Callable[[], str]
) -> None:
    """Those of the run under their own names, those that the publisher adds under the names of their folders."""
    own = {file.parent: file.parent.relative_to(source) for file in sorted(source.glob(f"{EVALUATION}/**/{RESULTS}"))}
    added = {Path(folder): Path(EVALUATION, Path(folder).resolve().name) for folder in content.evaluations}
    for folder, place in added.items():
        if not (folder / RESULTS).is_file():
            raise InputError(f"{folder} holds no {RESULTS}: give a folder that `hf-clip evaluate --output` wrote")
        if [*own.values(), *added.values()].count(place) > 1:
            raise InputError(f"two evaluations would be {place}: give one of the folders another name")
    for folder, place in (own | added).items():
        found, own_digest = Results.read(folder / RESULTS), digest()
        model = next((model for model in found.models if model.digest == own_digest), None)
        if model is None and folder in added:
            raise InputError(f"{folder} measured another model: evaluate {source} with `hf-clip evaluate` once more")
        if model is None:
            logger.warning(f"{folder / RESULTS} is of other weights than the model beside it, and is left out")
            continue
        every = shown if folder in own else bool(content.pictures)
        results = _in_public(found.of_model(model, content.details.name), every)
        results.write(target / place / RESULTS)
        (target / place / PAGE).write_text(page(results), encoding="utf-8")
        _copy([folder / PICTURES / Path(name).name for name in results.pictures], target / place / PICTURES)


def _in_public(results: Results, every: bool) -> Results:
    """Without folders of this machine.

    Args:
        every: whether pictures of the data go along.
    """
    pictures = [name for name in results.pictures if every or name.startswith(_CHARTS)]
    skipped_of = {role: skipped_in_public(skipped) for role, skipped in results.skipped_of.items()}
    told = results.to_json() | {"pictures": pictures, "skipped_of": skipped_of}
    return Results.from_json(without_folders(told | {"skipped": skipped_in_public(results.skipped)}))


def _stage_pictures(folder: Path, target: Path, shown: bool) -> None:
    _copy([file for file in sorted(folder.glob("*.png")) if shown or file.name.startswith(_CHARTS)], target)


def _copy(files: Sequence[Path], target: Path) -> None:
    """Copies: who changes one in a folder that is kept changes nothing of the run."""
    for file in files:
        target.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target / file.name)


def _stage_onnx(folder: Path, target: Path, digest: Callable[[], str], place: Callable[..., Any]) -> None:
    if not (folder / EXPORT).is_file():
        return
    facts = read_json(folder / EXPORT)
    with as_written(folder / EXPORT):
        exported_from = facts["model"]["digest"]
    if exported_from != digest():
        logger.warning(f"{folder} was exported from other weights than the model's, and is left out: export it again")
        return
    target.mkdir()
    for file in sorted(path for path in folder.iterdir() if path.name in ONNX_FILES - {EXPORT}):
        place(file, target / file.name)
    write_json(target / EXPORT, without_folders(facts))


def _stage_example(picture: Path, target: Path) -> None:
    from ..data.images import UnreadableImage, read_image

    try:
        image, _ = read_image(str(picture))
    except UnreadableImage as error:
        raise InputError(f"--example_picture {picture} cannot be read: {error}") from error
    bare = Image.new(image.mode, image.size)  # what a camera wrote beside the pixels stays here
    bare.paste(image)
    target.parent.mkdir(exist_ok=True)
    bare.save(target)


def link_or_copy(file: str | Path, target: str | Path) -> None:
    """The file under another name where the disk allows it, for weights are large; else a copy."""
    try:
        os.link(Path(file).resolve(), target)
    except OSError:
        shutil.copyfile(file, target)
