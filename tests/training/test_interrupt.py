"""Ctrl-C: a checkpoint at the end of the step, and a second one at once."""

import signal

import pytest
from training_runs import PressCtrlC, make_trainer

from hf_clip.training.interrupt import StopOnInterrupt


def test_stops_after_the_step_with_a_whole_checkpoint(tmp_path, pictures):
    before = signal.getsignal(signal.SIGINT)
    stop = StopOnInterrupt()
    trainer = make_trainer(tmp_path / "run", pictures, num_train_epochs=3, callbacks=[PressCtrlC(2), stop])
    with stop.listening():
        trainer.train()
    assert stop.stopped
    assert trainer.state.global_step == 3
    assert (tmp_path / "run" / "checkpoint-3" / "trainer_state.json").is_file()
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_one_interrupts_at_once_and_the_handler_is_given_back(tmp_path, pictures):
    stop = StopOnInterrupt()
    trainer = make_trainer(tmp_path / "run", pictures, callbacks=[PressCtrlC(1, times=2), stop])
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), stop.listening():
        trainer.train()
    assert signal.getsignal(signal.SIGINT) is before


def test_nothing_is_evaluated_and_a_finished_run_is_finished(tmp_path, pictures):
    settings = {"num_train_epochs": 2, "eval_strategy": "epoch", "save_strategy": "epoch"}
    stop = StopOnInterrupt()
    trainer = make_trainer(tmp_path / "cut", pictures, callbacks=[PressCtrlC(1), stop], **settings)
    with stop.listening():
        trainer.train()
    assert stop.stopped
    assert not any("eval_loss" in entry for entry in trainer.state.log_history)
    stop = StopOnInterrupt()
    trainer = make_trainer(tmp_path / "whole", pictures, callbacks=[PressCtrlC(3), stop], **settings)
    with stop.listening():
        trainer.train()  # pressed in the last step: there is nothing left to stop
    assert not stop.stopped
    assert trainer.state.global_step == 4
