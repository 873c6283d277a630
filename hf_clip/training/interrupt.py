"""Ctrl-C ends a run at the end of its step, with a checkpoint."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import torch
from transformers import TrainerCallback


class StopOnInterrupt(TrainerCallback):
    """On the first SIGINT asks the Trainer to save and stop; a second one interrupts at once.

    Several processes agree at every step whether one of them was asked, so that all stop at the same one.
    """

    def __init__(self) -> None:
        self.asked = False
        self.stopped = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Takes SIGINT for itself; outside the main thread Python allows no handlers, and nothing changes."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = signal.signal(signal.SIGINT, self._note)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)

    def on_step_end(self, args, state, control, **kwargs):
        if args.world_size > 1:
            asked = torch.tensor(float(self.asked), device=args.device)
            torch.distributed.all_reduce(asked)
            self.asked = bool(asked > 0)
        if self.asked and state.global_step < state.max_steps:
            self.stopped = True
            control.should_evaluate = False  # nobody waits for it, and it could overrule the saving
            control.should_save = True
            control.should_training_stop = True

    def on_epoch_end(self, args, state, control, **kwargs):
        if self.stopped:
            control.should_evaluate = control.should_save = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
