"""Batches of rows of like length, and what tears batches apart."""

from types import SimpleNamespace

from hf_clip.training.loaders import ByLength


class Lengths:
    epoch = 0

    def __len__(self):
        return 1000

    def caption_lengths(self):
        return [row % 10 for row in range(1000)]


def order(seed=0, data_seed=None, epoch=0):
    rows = Lengths()
    rows.epoch = epoch
    args = SimpleNamespace(
        train_batch_size=5, world_size=2, gradient_accumulation_steps=2, seed=seed, data_seed=data_seed
    )
    return list(ByLength(rows, args))


def test_batches_of_all_processes_hold_rows_of_like_length():
    found = order()
    assert sorted(found) == list(range(1000))
    lengths = [row % 10 for row in found]
    spreads = [max(lengths[i : i + 20]) - min(lengths[i : i + 20]) for i in range(0, 1000, 20)]
    assert sum(spread <= 2 for spread in spreads) >= 45, "of 50"


def test_the_order_is_drawn_from_seed_and_epoch_alone():
    assert order() == order() != order(epoch=1)
    assert order(seed=1) == order(data_seed=1) == order(epoch=1)
