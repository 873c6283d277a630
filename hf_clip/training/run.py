"""A whole run: trains, evaluates, and leaves a folder that others can open."""

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.trainer import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging

from ..data.augmentation import Augmentation
from ..data.collator import HFClipCollator
from ..data.dataset import CaptionedImages, TrainingPairs
from ..data.sources import Source
from ..embedding import embed_source, max_caption_length
from ..errors import InputError
from ..modeling_hf_clip import HFClipModel
from ..processing_hf_clip import HFClipProcessor
from ..publishing.readme import write_readme
from .arguments import HFClipTrainingArguments
from .checkpoints import staged
from .distributed import gather_objects
from .interrupt import StopOnInterrupt
from .trainer import HFClipTrainer, last_checkpoint

logger = logging.get_logger(__name__)


class Interrupted(KeyboardInterrupt):
    """The run was stopped by the user; the message says how to go on."""


def check_output_folder(args: HFClipTrainingArguments) -> str | None:
    """The checkpoint to go on from, or None for a new run.

    Raises:
        InputError: the folder holds a run that was not asked to go on, or no checkpoint to go on from.
    """
    folder = Path(args.output_dir)
    asked = args.resume_from_checkpoint
    if asked is not None and str(asked).lower() != "false":
        checkpoint = last_checkpoint(folder) if str(asked).lower() == "true" else str(asked)
        if checkpoint is None or not Path(checkpoint, "trainer_state.json").is_file():
            raise InputError(f"no whole checkpoint at {checkpoint or folder}: leave out --resume_from_checkpoint")
        return checkpoint
    if folder.is_file():
        raise InputError(f"output_dir {folder} is a file: give a folder")
    if (folder / "config.json").exists() or list(folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*")):
        raise InputError(
            f"{folder} already holds a run: give another --output_dir, or --resume_from_checkpoint true to go on"
        )
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty: give another --output_dir, so that nothing in it is overwritten")
    above = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise InputError(f"output_dir {folder} cannot be made: {above} is no folder that can be written to")
    return None


def train(
    model: HFClipModel,
    processor: HFClipProcessor,
    args: HFClipTrainingArguments,
    train_source: Source,
    eval_source: Source | None = None,
    *,
    augmentation: Augmentation | None = None,
    max_length: int | None = None,
    towers: tuple[str, str] = ("", ""),
    data: str | None = None,
    credit: str = "",
    callbacks: list[TrainerCallback] | None = None,
) -> dict[str, Any]:
    """Trains a model and fills `args.output_dir`: model, processor, code, README, metrics, arguments, pictures.

    Args:
        max_length: tokens of a caption; default 77, or fewer where the tower has fewer positions.
        towers: names of image and text tower, for the README.
        data: what the pictures are, for the README; default: the source's name.
        credit: attribution that the pictures' licence asks for.

    Returns:
        What `metrics.json` holds: retrieval metrics of the evaluation source, speed, and the pictures skipped.

    Raises:
        Interrupted: after Ctrl-C, once a checkpoint is saved.
    """
    checkpoint = check_output_folder(args)
    if len(train_source) < args.train_batch_size * args.world_size:
        args.dataloader_drop_last = False
    max_length = max_caption_length(model, processor, max_length or 77)
    processor.tokenizer.model_max_length = max_length  # saved with it: whoever evaluates cuts where training did
    pairs = TrainingPairs(train_source, processor.image_processor, augmentation or Augmentation(), seed=args.seed)
    pairs[0]  # a source without one readable picture is refused here, not in a worker
    stop = StopOnInterrupt()
    trainer = HFClipTrainer(
        model,
        args,
        train_dataset=pairs,
        eval_dataset=eval_source and CaptionedImages(eval_source, processor.image_processor),
        data_collator=HFClipCollator(processor.tokenizer, max_length),
        processing_class=processor,
        callbacks=[stop, *(callbacks or [])],
    )
    with stop.listening():
        result = trainer.train(resume_from_checkpoint=checkpoint)
    if stop.stopped:
        raise Interrupted(
            f"stopped after step {trainer.state.global_step}; go on with "
            f"--resume_from_checkpoint {last_checkpoint(args.output_dir)} and the same settings"
        )
    trainer.save_model()  # before anything else can go wrong
    metrics = _without_prefix(trainer.evaluate()) if eval_source else {}
    metrics["train_samples_per_second"] = result.metrics["train_samples_per_second"]
    skipped = {row: why for part in gather_objects(trainer.skipped_images) for row, why in part.items()}
    metrics["skipped_training_images"] = [[row, *why] for row, why in sorted(skipped.items())]
    if args.should_save:
        _write_report(trainer, processor, metrics, eval_source, towers, data or train_source.name, credit)
    return metrics


def _without_prefix(metrics: dict[str, Any]) -> dict[str, Any]:
    return {name.removeprefix("eval_"): value for name, value in metrics.items() if name != "epoch"}


def _write_report(
    trainer: HFClipTrainer,
    processor: HFClipProcessor,
    metrics: dict[str, Any],
    eval_source: Source | None,
    towers: tuple[str, str],
    data: str,
    credit: str,
) -> None:
    with staged(trainer.args.output_dir) as folder:
        (folder / "metrics.json").write_text(json.dumps(metrics, indent=2, ensure_ascii=False))
        (folder / "arguments.json").write_text(trainer.args.to_json_string())
        if importlib.util.find_spec("matplotlib") is None:
            logger.warning('no pictures without matplotlib: pip install "hf_clip[eval]"')
        else:
            _draw(trainer, processor, eval_source, folder / "pictures", credit)
        write_readme(
            folder,
            trainer.model.config,
            metrics,
            name=Path(trainer.args.output_dir).resolve().name,
            towers=towers,
            data=data,
            credit=credit,
        )


def _draw(
    trainer: HFClipTrainer, processor: HFClipProcessor, eval_source: Source | None, folder: Path, credit: str
) -> None:
    from ..evaluation.pictures import draw_retrieval_grid, draw_training_curve

    draw_training_curve(trainer.state.log_history, folder / "training_curve.png")
    if eval_source is not None:
        embeddings = embed_source(trainer.model, processor, eval_source, batch_size=trainer.args.eval_batch_size)
        draw_retrieval_grid(eval_source, embeddings, folder / "retrieval.png", credit=credit)
