"""A large batch in chunks (gradient cache) against a plain batch of one chunk's size."""

import statistics
import tempfile
from pathlib import Path

from hf_clip.data.augmentation import Augmentation

from .data import make_source
from .measuring import Measured, Peak, Row, in_fresh_process, progress
from .sides import Settings, our_model
from .trainer import run_trainer


def against_plain_batch(settings: Settings) -> list[Row]:
    chunk = settings.batch
    batch = settings.choose(1024, 64, 8)
    plain_seconds, plain_peak = in_fresh_process(train, settings, chunk, None, 6)
    progress(f"  batch {chunk}: {plain_seconds:.3g} s a picture, {plain_peak:.0f} MB")
    seconds, peak = in_fresh_process(train, settings, batch, chunk, 2)
    progress(f"  batch {batch} in chunks: {seconds:.3g} s a picture, {peak:.0f} MB")
    waiting = batch * 3 * settings.pixels**2 / 1e6  # 8-bit
    name = f"batch {batch:,} in chunks of {chunk} against batch {chunk}: {settings.towers}, {settings.pixels} px"
    return [
        Row(
            f"{name}, peak",
            Measured("gradient cache, less the waiting pixels", [peak - waiting], "MB"),
            Measured("plain batch", [plain_peak], "MB"),
            1.3,
            at_least=False,
            note=f"waiting pixels: {waiting:.0f} MB; peak of a fresh process, weights and optimiser among it",
        ),
        Row(
            f"{name}, time a picture",
            Measured("gradient cache", [seconds], "s"),
            Measured("plain batch", [plain_seconds], "s"),
            1.4,
            at_least=False,
            note="median step after the first, data among it",
        ),
    ]


def train(settings: Settings, batch: int, chunk: int | None, steps: int) -> tuple[float, float]:
    """Seconds a picture and MB at the peak of a training run."""
    cache = {} if chunk is None else {"gradient_cache_chunk_size": chunk}
    with tempfile.TemporaryDirectory() as folder:
        side = settings.pixels
        source = make_source(Path(folder, "pictures"), settings, steps * batch, (side, side), distinct=16)
        model = our_model(settings)
        peak = Peak(settings.device)
        _, watch = run_trainer(
            settings,
            model,
            source,
            folder + "/run",
            Augmentation(crop_scale=1.0),
            max_steps=steps,
            per_device_train_batch_size=batch,
            **cache,
        )
        return statistics.median(watch.steps[1:]) / batch, peak.megabytes()
