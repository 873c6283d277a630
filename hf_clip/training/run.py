"""A whole run: trains, evaluates, and leaves a folder that others can open."""

import contextlib
import copy
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout
from torch.utils.data import Dataset
from transformers.trainer import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging

from ..core.atomic import STAGING, put_back, staged
from ..core.errors import InputError, NotFinite, first_line
from ..data.collator import HFClipCollator
from ..data.dataset import CaptionedImages
from ..data.images import skipped_line
from ..data.sources import Source
from ..embeddings.encode import Embeddings
from ..embeddings.provenance import data_facts
from ..evaluation.outcome import Outcome
from ..evaluation.records import DataFacts, ModelFacts
from ..evaluation.report import PICTURES, Measured, Report, can_draw, draw, model_facts
from ..models.processing_hf_clip import HFClipProcessor
from ..models.towers import open_model_and_processor
from ..publishing.staging import EVALUATION
from .arguments import HFClipTrainingArguments
from .contrastive import HFClipTrainer
from .facts import MeasureEmissions, Origin, can_measure_emissions
from .interrupt import StopOnInterrupt
from .resumable import last_checkpoint

logger = logging.get_logger(__name__)

SETTINGS = "settings.yaml"
_LOCK = ".lock"
_LOGS = "runs"  # TensorBoard's, from the first step


class Interrupted(KeyboardInterrupt):
    """The run was stopped by the user; the message says how to go on."""


def check_output_folder(args: HFClipTrainingArguments) -> str | None:
    """The checkpoint to go on from, or None for a new run.

    Raises:
        InputError: the folder holds a run that was not asked to go on, or no checkpoint to go on from.
    """
    folder = Path(args.output_dir)
    put_back(folder)
    asked = args.resume_from_checkpoint
    if asked is not None and str(asked).lower() != "false":
        checkpoint = last_checkpoint(folder) if str(asked).lower() == "true" else str(asked)
        if checkpoint is None or not Path(checkpoint, "trainer_state.json").is_file():
            raise InputError(f"no whole checkpoint at {checkpoint or folder}: leave out --resume_from_checkpoint")
        if folder.resolve() in Path(checkpoint).resolve().parents:
            return checkpoint
    else:
        checkpoint = None
    if args.should_save:  # the first process alone: it may have begun to write before the others look
        _check_new_folder(folder)
    return checkpoint


def _check_new_folder(folder: Path) -> None:
    if folder.is_file():
        raise InputError(f"output_dir {folder} is a file: give a folder")
    if (folder / "config.json").exists() or list(folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*")):
        raise InputError(
            f"{folder} already holds a run: give another --output_dir, or --resume_from_checkpoint true to go on"
        )
    if folder.is_dir() and any(entry.name not in (_LOCK, _LOGS, SETTINGS, STAGING) for entry in folder.iterdir()):
        raise InputError(f"{folder} is not empty: give another --output_dir, so that nothing in it is overwritten")
    above = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise InputError(f"output_dir {folder} cannot be made: {above} is no folder that can be written to")


@contextlib.contextmanager
def _sole_run(args: HFClipTrainingArguments) -> Iterator[None]:
    """Holds the output folder; a lock of the operating system's, so it goes with a process that is killed.

    Raises:
        InputError: another run holds it.
    """
    if not args.should_save:
        yield
        return
    folder = Path(args.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise InputError(f"another run is writing into {folder}: wait for it, or give another --output_dir") from error
    try:
        check_output_folder(args)  # a run that ended between the first look and the lock has filled it
        shutil.rmtree(folder / STAGING, ignore_errors=True)  # what a run that was killed has left
        yield
    finally:
        (folder / _LOCK).unlink(missing_ok=True)
        lock.release()


def train(trainer: HFClipTrainer, settings: dict[str, Any] | None = None) -> dict[str, Any]:
    """Has a trainer train, evaluate and fill its `args.output_dir`: model, processor, code, card, figures, arguments,
    pictures; with `args.push_to_hub` it is published. Of several evaluation sets the pictures show the first.

    Args:
        trainer: that has not trained yet, or goes on from `args.resume_from_checkpoint`.
        settings: kept in the folder as `settings.yaml`, from the start.

    Returns:
        What `metrics.json` holds: retrieval metrics of the evaluation source, speed, and the pictures skipped.

    Raises:
        InputError: for settings, data or a folder that will not do. In one process, what was trained until then is
            saved; of several, the last checkpoint is there.
        Interrupted: after Ctrl-C, once a checkpoint is saved.
    """
    args = trainer.args
    checkpoint = check_output_folder(args)
    trainer.processing_class = _cut_where_training_did(trainer)
    stop = StopOnInterrupt()
    trainer.add_callback(stop)
    if args.should_save and can_measure_emissions():
        trainer.add_callback(MeasureEmissions())
    with _sole_run(args):
        if settings is not None and args.should_save:
            with staged(args.output_dir) as folder:
                (folder / SETTINGS).write_text(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))
        result = _run_trainer(trainer, stop, checkpoint)
        trainer.check_finite()
        trainer.save_model(_internal_call=True)  # before anything else can go wrong
        sets = _evaluation_sets(trainer)
        embedded = {name: trainer.embed(trainer.get_eval_dataloader(name or None)) for name in sets}
        outcomes = {name: trainer.measure(embedded[name], trainer.tasks_of(each)) for name, each in sets.items()}
        metrics = _logged(trainer, embedded, outcomes)
        metrics["train_samples_per_second"] = result.metrics["train_samples_per_second"]
        metrics["skipped_training_images"] = trainer.skipped_images.in_all_processes()
        if args.should_save:
            _write_report(trainer, metrics, _sources_of(sets), embedded, outcomes)
        if args.push_to_hub:
            trainer.push_to_hub()
    return metrics


def _logged(
    trainer: HFClipTrainer, embedded: dict[str, Embeddings], outcomes: dict[str, dict[str, Outcome]]
) -> dict[str, Any]:
    """The figures of all sets, and a line in the log for each image that was skipped."""
    metrics: dict[str, Any] = {}
    for name, embeddings in embedded.items():
        metrics |= _log(trainer, trainer.figures(embeddings, outcomes[name]), name)
        for entry in embeddings.skipped:
            logger.warning(f"skipped in evaluation: {skipped_line(*entry)}")
    return metrics


def _cut_where_training_did(trainer: HFClipTrainer) -> HFClipProcessor:
    """A processor of the run's own: who opens it, or its tokenizer alone, cuts texts as the trainer."""
    processor: Any = copy.deepcopy(trainer.processing_class)
    collator = trainer.data_collator
    if isinstance(collator, HFClipCollator) and collator.max_length < sys.maxsize:  # as much as nothing is cut after
        processor.max_text_length = processor.tokenizer.model_max_length = collator.max_length
    return processor


def _evaluation_sets(trainer: HFClipTrainer) -> dict[str, Dataset[Any]]:
    """By name; that of a single one is empty."""
    sets: Any = trainer.eval_dataset
    return sets if isinstance(sets, dict) else {} if sets is None else {"": sets}


def _sources_of(sets: dict[str, Dataset[Any]]) -> dict[str, Source]:
    """Of those that have one, whose rows a report can name and draw; of the others it is said that there is none."""
    sources = {name: each.source for name, each in sets.items() if isinstance(each, CaptionedImages)}
    for name in sets.keys() - sources.keys():
        what = f"eval_dataset {name!r}" if name else "eval_dataset"
        logger.warning(
            f"no results.json and no images of {what}, a {type(sets[name]).__name__} whose rows have no one source: "
            "its figures are in metrics.json"
        )
    return sources


def _run_trainer(trainer: HFClipTrainer, stop: StopOnInterrupt, checkpoint: str | None) -> Any:
    try:
        with stop.listening():
            result = trainer.train(resume_from_checkpoint=checkpoint)
    except NotFinite as error:
        newest = last_checkpoint(trainer.args.output_dir)
        raise NotFinite(f"{error}; the last checkpoint is {newest}" if newest else str(error)) from error
    except InputError as error:
        if trainer.args.world_size > 1 or trainer.state.global_step == 0:
            raise
        with contextlib.suppress(
            InputError
        ):  # of a disk that is full, say, which is what was wrong in the first place
            trainer.save_checkpoint()
        newest = last_checkpoint(trainer.args.output_dir)
        raise InputError(f"{error}; what was trained so far is in {newest}" if newest else str(error)) from error
    if stop.stopped:
        raise Interrupted(
            f"stopped after step {trainer.state.global_step}; go on with "
            f"--resume_from_checkpoint {last_checkpoint(trainer.args.output_dir)} and the same settings"
        )
    return result


def _log(trainer: HFClipTrainer, figures: dict[str, float], name: str) -> dict[str, float]:
    named = {f"{name}_{figure}" if name else figure: value for figure, value in figures.items()}
    trainer.log({f"eval_{figure}": value for figure, value in named.items()})
    return named


def _write_report(
    trainer: HFClipTrainer,
    metrics: dict[str, Any],
    sources: dict[str, Source],
    embedded: dict[str, Embeddings],
    outcomes: dict[str, dict[str, Outcome]],
) -> None:
    """What was measured first; no figure, picture or card after it is worth losing a run that has ended."""
    with staged(trainer.args.output_dir) as folder:
        (folder / "metrics.json").write_text(json.dumps(metrics, indent=2, ensure_ascii=False))
        (folder / "arguments.json").write_text(trainer.args.to_json_string())
    with _forgiven("results and pictures"), staged(trainer.args.output_dir) as folder:
        run = trainer.args.output_dir
        model = model_facts(open_model_and_processor(run)[0], Path(run).resolve().name) if sources else None
        for name, source in sources.items():
            data = _facts_of_evaluation(source, trainer.origin, name if len(embedded) > 1 else "")
            _write_results(model, data, embedded[name], outcomes[name], folder / EVALUATION / name)
        if not can_draw():
            logger.warning('no pictures without matplotlib: pip install "hf_clip[eval]"')
        else:
            shown = next(iter(sources), "")
            _draw(trainer, shown, sources.get(shown), embedded.get(shown), folder / PICTURES)
    with _forgiven("the card"):
        trainer.create_model_card()


@contextlib.contextmanager
def _forgiven(what: str) -> Iterator[None]:
    """The model is saved: a full disk or a foreign file is a line in the log, a fault of the program its traceback."""
    try:
        yield
    except (InputError, OSError) as error:
        said = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {first_line(error)}"
        logger.warning(f"{what} could not be written, and the run is whole without: {said}")
    except Exception:
        logger.exception(f"{what} could not be written, by a fault of the program; the run is whole without:")


def _facts_of_evaluation(source: Source, origin: Origin, name: str) -> DataFacts:
    """`data_facts` of a source.

    Args:
        name: of one of several sets.
    """
    facts = data_facts(source)
    called = origin.eval_data or facts["name"]
    return DataFacts.from_json(facts | {"name": f"{name}: {called}" if name else called})


def _write_results(
    model: ModelFacts, data: DataFacts, embeddings: Embeddings, outcomes: dict[str, Outcome], folder: Path
) -> None:
    """What `hf-clip evaluate` would write of the saved model."""
    measured = [Measured(model, task, outcome) for task, outcome in outcomes.items()]
    if not measured:  # of a run that looks at the loss alone
        return
    report = Report(data, measured, embeddings.skipped)
    folder.mkdir(parents=True)
    if can_draw():
        report.pictures = draw(measured, folder / PICTURES)
    report.write(folder)


def _draw(
    trainer: HFClipTrainer, shown: str, eval_source: Source | None, embeddings: Embeddings | None, folder: Path
) -> None:
    from ..evaluation.pictures import draw_retrieval_grid, draw_training_curve

    history = [
        {name.replace(f"eval_{shown}_", "eval_") if shown else name: value for name, value in entry.items()}
        for entry in trainer.state.log_history
        if not shown or not any(name.startswith("eval_") and not name.startswith(f"eval_{shown}_") for name in entry)
    ]
    draw_training_curve(history, folder / "training_curve.png", trainer.loss_label)
    if eval_source is not None:
        draw_retrieval_grid(eval_source, embeddings, folder / "retrieval.png", credit=trainer.origin.credit)
