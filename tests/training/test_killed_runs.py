"""Runs that SIGKILL ends and that go on end with the weights, bit for bit, of one that was never cut."""

import contextlib
import json
import random
import re
import signal
import statistics
import time
from itertools import pairwise
from multiprocessing import connection
from pathlib import Path

import killed_run
import pytest
from conftest import write_pictures
from ready_processes import ready_context

from hf_clip.training.resumable import last_checkpoint

pytestmark = pytest.mark.slow

# 10 of 11 pictures are readable: an epoch has 2 steps, and the last one ends in its middle.
SETTINGS = {
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-3,
    "max_steps": 13,
    "logging_steps": 1,
    "save_steps": 1,
    "save_total_limit": 2,
}
WORKERS = {"dataloader_num_workers": 2, "dataloader_persistent_workers": True}
BEST = {
    "eval_strategy": "steps",
    "eval_steps": 1,
    "load_best_model_at_end": True,
    "metric_for_best_model": "loss",
    "early_stopping_patience": 5,
}
RUNS = {
    "workers": WORKERS,
    "stopped early": WORKERS | BEST | {"ema_decay": 0.5, "learning_rate": 1e-2},
    "accumulated": {"gradient_accumulation_steps": 2, "save_steps": 2, "max_steps": 7},
    "streamed": {"streaming": True},
    "streamed by workers": {"streaming": True, "dataloader_num_workers": 2, "save_steps": 2},
    "gradient cache": {"gradient_cache_chunk_size": 3, "gradient_cache_text_chunk_size": 2, "ema_decay": 0.9},
    "feature cache": {"cache_frozen_features": True, "freeze_text": True},
}


class Runs:
    """A run's lives, each a process of its own."""

    def __init__(self, folder: Path, data: Path, settings: dict):
        self.folder, self.data, self.settings = folder, data, SETTINGS | settings
        self.context = ready_context()

    def live(self, last_step: int | None = None, seconds: float = 0, last_event: int | None = None) -> list[int]:
        """Starts the run, or goes on with it, until its end or its death.

        Args:
            last_step: the step in which it is killed, so many `seconds` after it began.
            last_event: which of its doings with files it does not live to see.

        Returns:
            What it told, as `killed_run.run` says.
        """
        told, teller = self.context.Pipe(duplex=False)
        resume = {"resume_from_checkpoint": "true"} if last_checkpoint(self.folder) else {}
        process = self.context.Process(
            target=killed_run.run, args=(self.folder, self.data, self.settings | resume, last_event, teller)
        )
        process.start()
        teller.close()
        heard, times = [-1], []
        with contextlib.suppress(EOFError):
            while heard[-1] != last_step and connection.wait([told, process.sentinel]) and told.poll():
                heard.append(told.recv())
                times.append(time.monotonic())
        if heard[-1] == last_step:
            time.sleep(seconds)
            process.kill()
        process.join()
        self.seconds_a_step = statistics.median(b - a for a, b in pairwise(times)) if len(times) > 1 else 0.0
        assert process.exitcode in (0, -signal.SIGKILL)
        self.was_killed = process.exitcode != 0
        return heard[1:]

    def step(self) -> int:
        """From which it would go on."""
        return int(re.findall(r"-(\d+)$", last_checkpoint(self.folder) or "-0")[0])


@pytest.mark.parametrize("name", RUNS)
def test_a_killed_run_ends_with_the_bits_of_one_that_was_not(name, tmp_path):
    """Killed in two random steps, at two random doings with files, most of them a save's, and after the last step."""
    data = write_pictures(tmp_path / "pictures", count=11, captions_each=3)
    (data / "4.png").write_bytes(b"no picture")
    whole, cut = (Runs(tmp_path / folder, data, RUNS[name]) for folder in ("whole", "cut"))
    *steps, end, events = whole.live()
    draw = random.Random(name)
    for _ in range(2):
        cut.live(last_event=draw.randint(1, 2 * events // len(steps)))
        assert cut.was_killed
        cut.live(last_step=cut.step() + draw.randint(0, 1), seconds=draw.random() * whole.seconds_a_step)
        assert cut.was_killed
    cut.live(last_step=end)  # at once: what is left to do is soon done
    assert cut.was_killed
    gone_on_from = cut.step()
    *last_steps, _, _ = cut.live()
    assert last_steps == steps[gone_on_from:]
    assert (cut.folder / "model.safetensors").read_bytes() == (whole.folder / "model.safetensors").read_bytes()
    skipped = [
        json.loads((run.folder / "metrics.json").read_text())["skipped_training_images"] for run in (cut, whole)
    ]
    assert skipped[0] == skipped[1] != []
    assert {path.name for path in cut.folder.iterdir()} == {path.name for path in whole.folder.iterdir()}
