"""Mixtures: exact shares an epoch, every row in its turn, and items that say where they come from."""

from collections import Counter

import pytest
import torch
from conftest import write_pictures

from hf_clip.core.errors import InputError
from hf_clip.data.augmentation import Augmentation
from hf_clip.data.dataset import TrainingPairs
from hf_clip.data.mixture import MixedPairs, shares_of
from hf_clip.data.sources import open_source
from hf_clip.models.image_processors import square_image_processor


def pairs(folder, count: int, seed: int = 0, captions_each: int = 1) -> TrainingPairs:
    source = open_source(write_pictures(folder, count, captions_each))
    return TrainingPairs(source, square_image_processor(16), Augmentation(color_jitter=0.5), seed)


def rows(mixture: MixedPairs, epoch: int) -> list[int]:
    mixture.set_epoch(epoch)
    return [mixture[position]["row"] for position in range(len(mixture))]


@pytest.mark.parametrize(
    ("total", "weights", "shares"),
    [
        (10, [1, 1], [5, 5]),
        (10, [1, 3], [3, 7]),  # 2.5 and 7.5: of equal remainders the first
        (10, [0.2, 0.3, 0.5], [2, 3, 5]),
        (7, [1, 1, 1], [3, 2, 2]),
        (11, [5, 3, 1], [6, 4, 1]),  # 6.11, 3.67, 1.22
        (3, [1e-9, 1], [0, 3]),
    ],
)
def test_shares_by_largest_remainders(total, weights, shares):
    assert shares_of(total, weights) == shares


def test_an_epoch_holds_each_source_by_its_share(tmp_path):
    mixture = MixedPairs([pairs(tmp_path / "a", 4), pairs(tmp_path / "b", 8)], [2, 1])
    assert len(mixture) == 12
    for epoch in range(5):
        assert sum(row < 4 for row in rows(mixture, epoch)) == 8


def test_a_source_moves_on_through_its_rows_or_begins_again(tmp_path):
    mixture = MixedPairs([pairs(tmp_path / "a", 4), pairs(tmp_path / "b", 8)], [2, 1])
    first, second, third = (rows(mixture, epoch) for epoch in range(3))
    assert sorted(first[8:] + second[8:]) == list(range(4, 12))
    assert third[8:] == first[8:] != list(range(4, 8))
    assert Counter(first[:8]) == dict.fromkeys(range(4), 2)
    mixture.set_epoch(0)
    once, twice = (next(mixture[p] for p in places if first[p] == 0) for places in (range(4), range(4, 8)))
    assert not torch.equal(once["pixel_values"], twice["pixel_values"]), "a repeated row is drawn anew"


def test_orders_come_from_the_seeds(tmp_path):
    def order(seed):
        return rows(MixedPairs([pairs(tmp_path / "a", 8, seed)], [1]), 0)

    assert order(0) == order(0) != order(1)
    assert sorted(order(1)) == list(range(8))


def test_rows_are_unique_and_skipped_pictures_named_after_their_source(tmp_path):
    mixture = MixedPairs([pairs(tmp_path / "a", 3), pairs(tmp_path / "b", 3)], [1, 1])
    (tmp_path / "b" / "1.png").write_bytes(b"")
    items = [mixture[position] for position in range(6)]
    assert {item["row"] for item in items} == {0, 1, 2, 3, 5}
    skipped = [entry for item in items for entry in item["skipped"]]
    assert skipped == [(4, f"{tmp_path / 'b'}: row 2: 1.png", "the file is empty")]


def test_caption_lengths_are_those_of_the_items(tmp_path):
    mixture = MixedPairs([pairs(tmp_path / "a", 3), pairs(tmp_path / "b", 5)], [3, 1])
    for epoch in range(3):
        mixture.set_epoch(epoch)
        assert mixture.caption_lengths() == [len(mixture[position]["captions"][0]) for position in range(8)]


def test_set_epoch_reaches_the_sources_and_workers(tmp_path):
    one = pairs(tmp_path / "a", 4)
    mixture = MixedPairs([one, pairs(tmp_path / "b", 8)], [2, 1])
    loader = torch.utils.data.DataLoader(
        mixture, batch_size=12, num_workers=1, persistent_workers=True, collate_fn=lambda items: items
    )
    for epoch in range(2):
        expected = rows(mixture, epoch)
        (items,) = loader
        assert [item["row"] for item in items] == expected
        assert one.epoch == epoch


def test_impossible_weights_are_refused(tmp_path):
    one = pairs(tmp_path / "a", 3)
    for weights, message in [([1], "1 weights for 2 sources"), ([1, 0], "must be positive"),
                             ([1, float("nan")], "must be positive")]:  # fmt: skip
        with pytest.raises(InputError, match=message):
            MixedPairs([one, one], weights)
    with pytest.raises(IndexError):
        MixedPairs([one], [1])[3]
