"""Ctrl-C ends a run at the end of its step, with a checkpoint."""

import signal
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback


class StopOnInterrupt(TrainerCallback):
    """On the first SIGINT asks the Trainer to save and stop; a second one interrupts at once.

    With several processes all must stop at the same step, so they agree where a step is logged.
    """

    def __init__(self) -> None:
        self.asked = False
        self._previous: Any = None

    def on_train_begin(self, args, state, control, **kwargs):
        self._previous = signal.signal(signal.SIGINT, self._note)

    def on_train_end(self, args, state, control, **kwargs):
        signal.signal(signal.SIGINT, self._previous)

    def on_step_end(self, args, state, control, **kwargs):
        if args.world_size > 1:
            if not control.should_log:
                return
            asked = torch.tensor(float(self.asked), device=args.device)
            torch.distributed.all_reduce(asked)
            self.asked = bool(asked > 0)
        if self.asked:
            control.should_save = True
            control.should_training_stop = True

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
