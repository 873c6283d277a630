"""A run in a process of its own, which `training/test_killed_runs.py` kills: at a step, or as it touches a file."""

import multiprocessing
import os
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from conftest import tiny_model, tiny_text_config
from training_runs import make_processor
from transformers import TrainerCallback

from hf_clip import HFClipTrainer, HFClipTrainingArguments
from hf_clip.data.augmentation import Augmentation
from hf_clip.data.sources import open_source
from hf_clip.training.data_sets import Drawing, training_pairs
from hf_clip.training.run import train

# What CPython's audit hooks tell before it happens; `open` of a file, too, is one of a save's steps.
_FILE_EVENTS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree")


class FileEvents:
    """Counts this process's doings in a folder, and ends it with SIGKILL before one of them."""

    def __init__(self, folder: Path, last: int | None):
        self.folder, self.last, self.count = str(folder), last, 0

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if event in _FILE_EVENTS and str(args[0]).startswith(self.folder):
            self.count += 1
            if self.count == self.last:
                os.kill(os.getpid(), signal.SIGKILL)


class TellSteps(TrainerCallback):
    """Tells each step that begins, and after the last one of all."""

    def __init__(self, teller: Connection):
        self.teller = teller

    def on_step_begin(self, args, state, control, **kwargs):
        self.teller.send(state.global_step)

    def on_train_end(self, args, state, control, **kwargs):
        self.teller.send(state.max_steps)


def run(folder: Path, data: Path, settings: dict[str, Any], last_event: int | None, teller: Connection) -> None:
    """Trains a tower with dropout and one with BatchNorm on random crops and drawn captions.

    Args:
        settings: of the trainer; `streaming` of the source.
        last_event: which of its doings with files it does not live to see.
        teller: is told each step that begins, max_steps when training has ended, and then how many doings there were.
    """
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # for its workers: it inherits its own, which is slow
    source = open_source(data, streaming=settings.pop("streaming", False))
    if settings.get("cache_frozen_features"):
        settings["feature_cache_dir"] = f"{folder}-features"
    evaluated = open_source(data) if "eval_strategy" in settings else None
    dropout = tiny_text_config(hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)
    events = FileEvents(folder, last_event)
    sys.addaudithook(events)
    processor = make_processor(data.parent / "tokenizer")
    args = HFClipTrainingArguments(output_dir=str(folder), use_cpu=True, disable_tqdm=True, **settings)
    drawing = Drawing(Augmentation(crop_scale=0.3), shuffle_buffer=3)
    trainer = HFClipTrainer(
        tiny_model(text_config=dropout),
        args,
        train_dataset=training_pairs([source], processor, args, drawing),
        eval_dataset=evaluated,
        processing_class=processor,
        callbacks=[TellSteps(teller)],
    )
    train(trainer, {"seed": 42})
    teller.send(events.count)
