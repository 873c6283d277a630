"""Processes that were started with other settings, or do not know of each other, are refused in a line."""

import processes
import pytest
import torch

from hf_clip import HFClipTrainingArguments
from hf_clip.core.errors import InputError
from hf_clip.training.processes import check_processes, check_ranks


def test_processes_with_different_settings_are_told_which(pictures, tmp_path):
    others = [
        {},
        {"lr_scheduler_kwargs": {"num_cycles": 2}},
        {"seed": 1},
        {"per_device_train_batch_size": 2},
        {"loss": "sigmoid"},
        {"dataloader_num_workers": 1},
    ]
    processes.run(processes.train_with_other_settings, 2, str(tmp_path), str(pictures), others)
    said, of_the_other = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert said == of_the_other
    mend = ": start all processes with the same settings and data"
    assert said == [
        "",
        "lr_scheduler_kwargs.num_cycles is None in process 0 and 2 in process 1" + mend,
        "seed is 42 in process 0 and 1 in process 1" + mend,
        "per_device_train_batch_size is 4 in process 0 and 2 in process 1" + mend,
        "loss is 'infonce' in process 0 and 'sigmoid' in process 1" + mend,
        "",
    ]


@pytest.mark.parametrize(
    ("found", "cause"),
    [
        ({"RANK": "2", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, "RANK=2 WORLD_SIZE=2 LOCAL_RANK=0: ranks count from 0"),
        ({"RANK": "1", "LOCAL_RANK": "0"}, "RANK=1 LOCAL_RANK=0: ranks count from 0"),
        ({"RANK": "one", "WORLD_SIZE": "2"}, "RANK=one WORLD_SIZE=2: these must be numbers"),
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}, "LOCAL_RANK=1: a rank on one machine"),
    ],
)
def test_ranks_that_do_not_fit_are_refused(found, cause, monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    check_ranks()
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=f"{cause}.*torchrun"):
        check_ranks()


def test_ranks_that_fit_pass(monkeypatch):
    for name, value in {"RANK": "9", "WORLD_SIZE": "16", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    check_ranks()


def test_processes_that_do_not_know_of_each_other_are_refused(pictures, tmp_path, monkeypatch):
    """As `torchrun` leaves them on a machine without GPUs, unless they are told to use the CPU."""
    args = HFClipTrainingArguments(str(tmp_path / "run"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="2 processes were started, but this one trains with 1: "):
        check_processes(args)
