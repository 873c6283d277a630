"""Means over steps of unequal size, by hand."""

import torch

from hf_clip.training.meters import Meters


def test_means_are_of_items_not_of_steps():
    meters = Meters()
    meters.add("cut", torch.tensor(3), 4)
    meters.add("cut", torch.tensor(0.0), 1)
    meters.add("empty", torch.tensor(0.0), 0)
    two_processes = lambda sums: 2 * sums  # noqa: E731
    assert meters.take(two_processes) == {"cut": 3 / 5, "empty": 0.0}
    assert meters.take(two_processes) == {}
