"""Ctrl-C: a checkpoint at the end of the step, and a second one at once."""

import os
import signal

import pytest
from training_runs import make_trainer
from transformers import TrainerCallback

from hf_clip.training.interrupt import StopOnInterrupt


class PressCtrlC(TrainerCallback):
    def __init__(self, step: int, times: int = 1):
        self.step, self.times = step, times

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            for _ in range(self.times):
                os.kill(os.getpid(), signal.SIGINT)


def test_stops_after_the_step_with_a_whole_checkpoint(tmp_path, pictures):
    before = signal.getsignal(signal.SIGINT)
    stop = StopOnInterrupt()
    trainer = make_trainer(tmp_path / "run", pictures, num_train_epochs=3, callbacks=[PressCtrlC(2), stop])
    trainer.train()
    assert stop.asked
    assert trainer.state.global_step == 3
    assert (tmp_path / "run" / "checkpoint-3" / "trainer_state.json").is_file()
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_one_interrupts_at_once(tmp_path, pictures):
    trainer = make_trainer(tmp_path / "run", pictures, callbacks=[PressCtrlC(1, times=2), StopOnInterrupt()])
    before = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(KeyboardInterrupt):
            trainer.train()
    finally:
        signal.signal(signal.SIGINT, before)
