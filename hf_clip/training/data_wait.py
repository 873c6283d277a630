"""How much of a step the model waits for its data."""

import time
from collections.abc import Callable
from typing import TypeVar

from transformers import TrainerCallback

Batches = TypeVar("Batches")


class DataWait(TrainerCallback):
    """Measures the seconds from asking for a batch to having it, and to the end of its step."""

    def __init__(self) -> None:
        self.waited = self.total = 0.0
        self._asked = time.perf_counter()

    def fetch(self, fetch: Callable[[], Batches]) -> Batches:
        """What `fetch` gives, timed."""
        self._asked = time.perf_counter()
        batches = fetch()
        self.waited += time.perf_counter() - self._asked
        return batches

    def on_step_end(self, args, state, control, **kwargs):
        self.total += time.perf_counter() - self._asked

    def take(self) -> tuple[float, float]:
        """Seconds waited, and of whole steps, since the last time."""
        taken = self.waited, self.total
        self.waited = self.total = 0.0
        return taken
