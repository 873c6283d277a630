"""Seconds waited for data, by a clock that the test holds."""

from hf_clip.training import data_wait
from hf_clip.training.data_wait import DataWait


def test_waiting_is_from_asking_to_having_and_a_step_ends_with_its_optimizer(monkeypatch):
    clock = iter([0, 10, 13, 18, 20, 21, 30])
    monkeypatch.setattr(data_wait.time, "perf_counter", lambda: next(clock))
    wait = DataWait()
    assert wait.fetch(lambda: "batch") == "batch"  # asked at 10, there at 13
    wait.on_step_end(None, None, None)  # at 18
    wait.fetch(lambda: "batch")  # 20 to 21: what lay between, an evaluation for one, is no part of a step
    wait.on_step_end(None, None, None)  # at 30
    assert wait.take() == (3 + 1, 8 + 10)
    assert wait.take() == (0, 0)
