"""Small trainers for the tests."""

import os
import signal
from pathlib import Path
from typing import Any

from conftest import VOCABULARY, tiny_model
from transformers import BertTokenizer, TrainerCallback

from hf_clip import HFClipModel, HFClipProcessor, HFClipTrainer, HFClipTrainingArguments
from hf_clip.data.augmentation import Augmentation
from hf_clip.data.dataset import CaptionedImages, TrainingPairs
from hf_clip.data.sources import open_source
from hf_clip.models.image_processors import square_image_processor
from hf_clip.training.feature_cache import UseFrozenFeatures


def make_processor(folder: Path) -> HFClipProcessor:
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = folder / f"vocab-{os.getpid()}.txt"  # several processes write and read at the same time
    vocabulary.write_text("\n".join(VOCABULARY))
    tokenizer = BertTokenizer(vocab=str(vocabulary), model_max_length=64)
    return HFClipProcessor(image_processor=square_image_processor(32), tokenizer=tokenizer)


def make_trainer(
    folder: Path,
    data: Path,
    *,
    model=None,
    augmentation=None,
    callbacks=None,
    label_column=None,
    trainer=None,
    **args: Any,
):
    """A trainer of the tiny model on a folder of pictures, which it is also evaluated on.

    Args:
        trainer: arguments of the trainer, on top of or in place of these.
    """
    processor = make_processor(folder.parent / "tokenizer")
    processor.max_text_length = 16
    source = open_source(data, label_column=label_column)
    defaults = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 4,
        "num_train_epochs": 1,
        "learning_rate": 1e-3,
        "save_strategy": "no",
        "disable_tqdm": True,
        "logging_steps": 1,
        "use_cpu": True,
    }
    training = HFClipTrainingArguments(**(defaults | args))
    parts: dict[str, Any] = {
        "train_dataset": TrainingPairs(
            source, processor.image_processor, augmentation or Augmentation(), training.seed
        ),
        "eval_dataset": CaptionedImages(source, processor.image_processor),
        "processing_class": processor,
        "callbacks": callbacks,
    }
    parts |= trainer or {}
    if model is None and "model_init" not in parts:
        model = tiny_model()
    return HFClipTrainer(model, training, **parts)


def cached_trainer(folder: Path, data: Path, name: str = "cached", segment_size: int = 4, **settings: Any):
    """A trainer of heads alone, with their features kept in `folder/cache`, and what `count_runs` gives."""
    defaults = {
        "freeze_text": True,
        "freeze_vision": True,
        "cache_frozen_features": True,
        "feature_cache_dir": str(folder / "cache"),
        "augmentation": Augmentation(crop_scale=1),
    }
    trainer = make_trainer(folder / name, data, **(defaults | settings))
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, UseFrozenFeatures):
            callback.segment_size = segment_size
    return trainer, count_runs(trainer.model)


def count_runs(model: HFClipModel) -> dict[str, int]:
    """How many captions and pictures the towers are given from now on."""
    seen = {"captions": 0, "pictures": 0}

    def count(name, argument):
        def hook(module, args, kwargs):
            seen[name] += len(kwargs[argument])

        return hook

    model.text_model.register_forward_pre_hook(count("captions", "input_ids"), with_kwargs=True)
    model.vision_model.register_forward_pre_hook(count("pictures", "pixel_values"), with_kwargs=True)
    return seen


class PressCtrlC(TrainerCallback):
    def __init__(self, step: int, times: int = 1):
        self.step, self.times = step, times

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            for _ in range(self.times):
                os.kill(os.getpid(), signal.SIGINT)
