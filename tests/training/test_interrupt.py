"""Ctrl-C: a checkpoint at the end of the step, and a second one at once."""

import signal

import pytest
from training_runs import PressCtrlC, make_trainer

from hf_clip.training.interrupt import StopOnInterrupt


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
