"""The folder that is published: a model as others open it, its card, its figures; no secret, no path of a machine."""

import dataclasses
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import huggingface_hub
from PIL import Image
from safetensors.torch import load_file
from transformers.utils import CONFIG_NAME, SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, logging

from ..core.errors import InputError, first_line
from ..core.families import load
from ..core.json_files import read_json, write_json
from ..core.public import refuse_secrets, skipped_in_public, without_folders
from ..core.training_record import TRAINING, TrainingRecord
from ..evaluation.records import CHARTS, Results
from ..evaluation.report import PAGE, PICTURES, RESULTS, page
from ..evaluation.report_folder import FOLDER as EVALUATION
from .adapters import stage_adapter
from .card.facts import CardDetails, CardFacts, check_details
from .card.render import write_card
from .hub_contents import write_manifest
from .onnx.record import EXPORT, FILES, ONNX
from .saved_model import SavedModel

logger = logging.get_logger(__name__)

_EXAMPLE = f"{PICTURES}/example.png"
# These show figures; any other picture shows pictures of the data.
_FIGURES = ("training_curve", *CHARTS)


@dataclass
class PublishOptions:
    """What goes up beside model, processor and code.

    Args:
        details: what the publisher says, for the card.
        evaluations: folders that `hf-clip evaluate` wrote about this model, besides the run's own; one or several.
        pictures: whether pictures of the data go along, in grids of what the model finds; default: those of the run,
            as the run says, and none of `evaluations`.
        example_picture: what the card's examples look at.
        adapter_of: of an adapter, the Hub id of what it adapts.
        max_shard_size: of a file of weights, as "5GB".
        run_examples: whether the card's examples are run, and show what they print.
        training: what the run says of itself; default: the folder's `training.json`.
    """

    details: CardDetails = field(default_factory=CardDetails)
    evaluations: str | Path | Sequence[str | Path] = ()
    pictures: bool | None = None
    example_picture: str | Path | None = None
    adapter_of: str | None = None
    max_shard_size: str = "5GB"
    run_examples: bool = True
    training: TrainingRecord | None = None


def stage(
    saved: SavedModel, target: Path, options: PublishOptions, *, token: str | None = None, copy: bool = False
) -> CardFacts:
    """Fills an empty folder with all that is published of a run, or of any folder with a saved model.

    Nothing in the model's folder is changed.

    Args:
        token: the Hub's, which must be in none of the files; that of `hf auth login` or HF_TOKEN must not either.
        copy: weights are copied, for a folder that is kept; else they are linked where the disk allows it.

    Returns:
        What the card was filled with.

    Raises:
        InputError: a folder without a model; an evaluation of another model; a secret, or a path of this machine, in
            what would go up; a disk that is full.
    """
    check_details(options.details)
    with _one_line(saved.folder):
        target.mkdir(parents=True, exist_ok=True)
        details = _Staging(saved, target, options, copy).fill()
        facts = write_card(SavedModel(target), details, run_examples=options.run_examples)
        write_manifest(target)
        refuse_secrets(target, saved.folder, token)
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


@dataclass
class _Staging:
    """One folder on its way into another."""

    saved: SavedModel
    target: Path
    options: PublishOptions
    copy: bool

    def fill(self) -> CardDetails:
        """All but card and manifest; what the card is to say."""
        self.saved.check_holds_model()
        if self.saved.is_adapter:
            stage_adapter(self.saved, self.target, self.options.adapter_of)
        else:
            self._stage_model()
        training = self.options.training or self.saved.training
        if training:
            write_json(self.target / TRAINING, without_folders(training.to_json()))
        shown = bool(training and training.pictures_may_be_shown)
        shown = shown if self.options.pictures is None else self.options.pictures
        self._stage_results(shown)
        self._stage_pictures(shown)
        self._stage_onnx()
        return self._stage_example()

    def _place(self, file: Path, target: Path) -> None:
        if self.copy:
            shutil.copyfile(file, target)
        else:
            link_or_copy(file, target)

    # ---- the model ------------------------------------------------------------------------------------------------

    def _stage_model(self) -> None:
        source, target, family = self.saved.folder, self.target, self.saved.family
        try:
            config = load(family.config).from_pretrained(source)
            processor = load(family.processor).from_pretrained(source)
        except (OSError, ValueError, TypeError) as error:
            raise InputError(
                f"{source} is no folder of a whole {family.model_type} model: {first_line(error)}"
            ) from error
        if part := next((name for name in config.architectures or () if name in family.parts), None):
            raise InputError(f"{source} holds a part of a model ({part}): give the folder of the whole one")
        config.save_pretrained(target)
        write_json(target / CONFIG_NAME, without_folders(read_json(target / CONFIG_NAME)))
        processor.save_pretrained(target)
        self._stage_weights(self.saved.weights)
        if family.write_files:
            load(family.write_files)(source, target, config, processor)

    def _stage_weights(self, weights: list[Path]) -> None:
        """The files of weights, or the weights shared out anew where one file is too large."""
        if max(file.stat().st_size for file in weights) <= _bytes(self.options.max_shard_size):
            index = weights[0].with_name(SAFE_WEIGHTS_INDEX_NAME)
            for file in [*weights, *([index] if weights[0].name != SAFE_WEIGHTS_NAME else [])]:
                self._place(file, self.target / file.name)
            return
        tensors = {name: tensor for file in weights for name, tensor in load_file(file).items()}
        huggingface_hub.save_torch_state_dict(
            tensors,
            self.target,
            max_shard_size=self.options.max_shard_size,
            metadata={"format": "pt"},
            shared_tensors_to_discard=[],
        )

    # ---- figures and pictures -------------------------------------------------------------------------------------

    def _stage_results(self, shown: bool) -> None:
        """Those of the run under their own names, those that the publisher adds under the names of their folders."""
        source = self.saved.folder
        files = sorted(source.glob(f"{EVALUATION}/**/{RESULTS}"))
        own = {file.parent: file.parent.relative_to(source) for file in files}
        given = self.options.evaluations
        given = [given] if isinstance(given, str | Path) else given
        added = {Path(folder): Path(EVALUATION, Path(folder).resolve().name) for folder in given}
        for folder, place in added.items():
            if not (folder / RESULTS).is_file():
                raise InputError(f"{folder} holds no {RESULTS}: give a folder that `hf-clip evaluate --output` wrote")
            if [*own.values(), *added.values()].count(place) > 1:
                raise InputError(f"two evaluations would be {place}: give one of the folders another name")
        for folder, place in (own | added).items():
            found = Results.read(folder / RESULTS)
            model = next((model for model in found.models if model.digest == self.saved.digest), None)
            if model is None and folder in added:
                raise InputError(
                    f"{folder} measured another model: evaluate {source} with `hf-clip evaluate` once more"
                )
            if model is None:
                logger.warning(f"{folder / RESULTS} is of other weights than the model beside it, and is left out")
                continue
            every = shown if folder in own else bool(self.options.pictures)
            results = _in_public(found.of_model(model, self.options.details.name), every)
            results.write(self.target / place / RESULTS)
            (self.target / place / PAGE).write_text(page(results), encoding="utf-8")
            names = [Path(name).name for name in results.pictures]
            _copy([folder / PICTURES / name for name in names], self.target / place / PICTURES)

    def _stage_pictures(self, shown: bool) -> None:
        files = sorted((self.saved.folder / PICTURES).glob("*.png"))
        _copy([file for file in files if shown or file.name.startswith(_FIGURES)], self.target / PICTURES)

    def _stage_onnx(self) -> None:
        export, folder, target = self.saved.onnx, self.saved.folder / ONNX, self.target / ONNX
        if export is None:
            return
        if export.model.digest != self.saved.digest:
            logger.warning(
                f"{folder} was exported from other weights than the model's, and is left out: export it again"
            )
            return
        target.mkdir()
        for file in sorted(path for path in folder.iterdir() if path.name in FILES - {EXPORT}):
            self._place(file, target / file.name)
        write_json(target / EXPORT, without_folders(export.to_json()))

    def _stage_example(self) -> CardDetails:
        if not self.options.example_picture:
            return self.options.details
        image = _bare(Path(self.options.example_picture))
        (self.target / PICTURES).mkdir(exist_ok=True)
        image.save(self.target / _EXAMPLE)
        return dataclasses.replace(self.options.details, example_picture=_EXAMPLE)


def _bytes(size: str) -> int:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT])B", size.strip().upper())
    if not found:
        raise InputError(f"max_shard_size {size!r} is no size: give one such as 5GB or 500MB")
    return int(float(found[1]) * 1000 ** (1 + "KMGT".index(found[2])))


def _in_public(results: Results, every: bool) -> Results:
    """Without folders of this machine.

    Args:
        every: whether pictures of the data go along.
    """
    pictures = [name for name in results.pictures if every or name not in results.examples]
    skipped_of = {role: skipped_in_public(skipped) for role, skipped in results.skipped_of.items()}
    told = results.to_json() | {"pictures": pictures, "skipped_of": skipped_of}
    told["examples"] = [name for name in results.examples if every]
    return Results.from_json(without_folders(told | {"skipped": skipped_in_public(results.skipped)}))


def _copy(files: Sequence[Path], target: Path) -> None:
    """Copies: who changes one in a folder that is kept changes nothing of the run."""
    for file in files:
        target.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target / file.name)


def _bare(picture: Path) -> Image.Image:
    """Without what a camera wrote beside the pixels."""
    from ..data.images import UnreadableImage, read_image

    try:
        image, _ = read_image(str(picture))
    except UnreadableImage as error:
        raise InputError(f"example_picture {picture} cannot be read: {error}") from error
    bare = Image.new(image.mode, image.size)
    bare.paste(image)
    return bare


def link_or_copy(file: str | Path, target: str | Path) -> None:
    """The file under another name where the disk allows it, for weights are large; else a copy."""
    try:
        os.link(Path(file).resolve(), target)
    except OSError:
        shutil.copyfile(file, target)
