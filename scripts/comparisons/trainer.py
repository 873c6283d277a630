"""`HFClipTrainer` on files, with its logging, against a bare loop on tensors that are ready."""

import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from hf_clip import HFClipTrainer, HFClipTrainingArguments
from hf_clip.data.augmentation import Augmentation
from hf_clip.data.dataset import TrainingPairs
from hf_clip.data.sources import Source

from .data import make_source
from .measuring import Measured, Row, alternate, progress
from .sides import Settings, in_turn, make_batches, our_model, our_step


class Stopwatch(TrainerCallback):
    """Seconds from the start of training, at its start and at the end of each step."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.times.append(time.perf_counter())

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.times.append(time.perf_counter())

    @property
    def whole(self) -> float:
        """Seconds, what comes before the first step among them: starting workers, opening caches."""
        return self.times[-1] - self.times[0]

    @property
    def steps(self) -> list[float]:
        return [after - before for before, after in zip(self.times, self.times[1:], strict=False)]


def run_trainer(
    settings: Settings, model: Any, source: Source, folder: str, augmentation: Augmentation, **args: Any
) -> tuple[HFClipTrainer, Stopwatch]:
    """Trains with the defaults of `HFClipTrainer` but for these arguments; nothing is evaluated or saved."""
    watch = Stopwatch()
    defaults = {
        "output_dir": folder,
        "per_device_train_batch_size": settings.batch,
        "save_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": settings.device.type == "cpu",
        "bf16": settings.precision == "bf16",
    }
    arguments = HFClipTrainingArguments(**(defaults | args))
    processor = settings.processor
    trainer = HFClipTrainer(
        model,
        arguments,
        train_dataset=TrainingPairs(source, processor.image_processor, augmentation, arguments.seed),
        processing_class=processor,
        callbacks=[watch],
    )
    trainer.train()
    return trainer, watch


def against_bare_loop(settings: Settings) -> list[Row]:
    """The Trainer is timed from the start of training to its last step, the workers' start among it."""
    steps = settings.choose(10, 4, 2)
    batches = make_batches(settings)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        size = settings.choose((640, 480), (640, 480), (48, 40))
        source = make_source(Path(folder, "pictures"), settings, steps * settings.batch, size)
        for workers in (0, settings.workers):
            model = our_model(settings)
            bare = in_turn(our_step(model, settings, clip=False), batches)

            def train(model=model, workers=workers) -> float:
                _, watch = run_trainer(
                    settings,
                    model,
                    source,
                    folder + "/run",
                    Augmentation(),
                    max_steps=steps,
                    dataloader_num_workers=workers,
                    dataloader_persistent_workers=False,  # there is one epoch; kept ones end late
                )
                return watch.whole

            def loop(bare=bare) -> None:
                for _ in range(steps):
                    bare()

            progress(f"  {workers} workers, {steps} steps a round")
            times = alternate({"ours": train, "peer": loop}, max(settings.rounds // 2, 1), settings.device)
            rows.append(_row(settings, workers, steps, size, times))
    return rows


def _row(settings: Settings, workers: int, steps: int, size: tuple[int, int], times: dict[str, list[float]]) -> Row:
    return Row(
        f"a step of the Trainer against a bare loop, {workers} workers: {settings.towers}, batch {settings.batch}, "
        f"{settings.precision}",
        Measured(
            f"HFClipTrainer: JPEG files of {size[0]} × {size[1]} decoded and augmented, norm clipped, logging",
            [seconds / steps for seconds in times["ours"]],
            "s",
        ),
        Measured(
            "same towers, loss, fused AdamW on tensors that are ready, norm not clipped",
            [seconds / steps for seconds in times["peer"]],
            "s",
        ),
        1.08,
        at_least=False,
        note=f"{steps} steps a round, the loader's start among them",
    )
