"""torch's wrappers lead where torch itself leads, and what is within keeps its epochs, names and lengths."""

import dataclasses
import random

import pytest
import torch
from conftest import write_pictures
from torch.utils.data import ChainDataset, ConcatDataset, Dataset, StackDataset, Subset, random_split

from hf_clip.core.errors import InputError
from hf_clip.data.augmentation import Augmentation
from hf_clip.data.dataset import CaptionedImages, TrainingPairs
from hf_clip.data.mixture import MixedPairs, sets_within
from hf_clip.data.sources import open_source
from hf_clip.data.split import rows_of
from hf_clip.data.streaming import StreamedPairs
from hf_clip.data.wrappers import as_pairs, layout_of
from hf_clip.models.image_processors import square_image_processor

PROCESSOR = square_image_processor(16)


def pairs(folder, count: int = 4, captions_each: int = 6, seed: int = 0, **augmentation) -> TrainingPairs:
    source = open_source(write_pictures(folder, count, captions_each))
    return TrainingPairs(source, PROCESSOR, Augmentation(**(augmentation or {"color_jitter": 0.5})), seed)


def what(items) -> list:
    return [(item["captions"], item["image_id"], item["pixel_values"].tolist()) for item in items]


class Letters(Dataset):
    def __init__(self, letters):
        self.letters = letters

    def __len__(self):
        return len(self.letters)

    def __getitem__(self, row):
        return self.letters[row]


def nested(generator: random.Random, depth: int) -> Dataset:
    if depth == 0:
        return generator.choice([Letters("abcd"), Letters("efg")])
    inner = nested(generator, depth - 1)
    if generator.random() < 0.5:
        return ConcatDataset([inner, nested(generator, depth - 1), inner])
    return Subset(inner, [generator.randrange(-len(inner), len(inner)) for _ in range(5)])


@pytest.mark.parametrize("seed", range(20))
def test_positions_lead_where_torch_leads(seed):
    dataset = nested(random.Random(seed), depth=3)
    layout = layout_of(dataset)
    found = [layout.sets[which][row] for which, row in zip(layout.which, layout.rows, strict=True)]
    assert found == [dataset[position] for position in range(len(dataset))]
    assert len({id(each) for each in layout.sets}) == len(layout.sets)


def test_a_part_draws_what_the_whole_draws(tmp_path):
    whole = pairs(tmp_path / "a")
    part = as_pairs(Subset(ConcatDataset([Subset(whole, torch.tensor([3, 1, 0]))]), [2, 0, 0]))
    captions = set()
    for epoch in range(6):
        part.set_epoch(epoch)
        assert whole.epoch == part.epoch == epoch
        assert what(part.__getitems__([0, 1, 2])) == what(whole.__getitems__([0, 3, 3]))
        assert what([part[1]]) == what([whole[3]])
        captions |= {item["captions"][0] for item in part.__getitems__([0])}
    assert len(captions) > 2


def test_workers_that_stay_hear_of_the_epoch(tmp_path):
    whole = pairs(tmp_path / "a")
    both = as_pairs(ConcatDataset([whole, pairs(tmp_path / "b", seed=1)]))
    loader = torch.utils.data.DataLoader(
        both, batch_size=8, num_workers=1, persistent_workers=True, collate_fn=lambda items: items
    )
    for epoch in range(3):
        both.set_epoch(epoch)
        (items,) = loader
        assert what(items) == what(both.__getitems__(range(8)))
        assert what(items[:4]) == what(whole.__getitems__(range(4)))


def test_what_is_skipped_names_its_source_and_a_row_that_was_left_out_stands_in_for_none(tmp_path):
    a, b = pairs(tmp_path / "a"), pairs(tmp_path / "b")
    for name in "ab":
        (tmp_path / name / "1.png").write_bytes(b"")
    both = as_pairs(ConcatDataset([a, Subset(b, [1, 3]), Subset(a, [1])]))
    items = both.__getitems__(range(len(both)))
    assert [item["row"] for item in items] == [0, 2, 2, 3, 7, 7, 0]
    assert [entry for item in items for entry in item["skipped"]] == [
        (1, f"{tmp_path / 'a'}: row 2: 1.png", "the file is empty"),
        (5, f"{tmp_path / 'b'}: row 2: 1.png", "the file is empty"),
        (1, f"{tmp_path / 'a'}: row 2: 1.png", "the file is empty"),
    ]
    (item,) = as_pairs(Subset(a, [1, 3])).__getitems__([0])
    assert (item["row"], item["skipped"]) == (3, [(1, "1.png", "the file is empty")])
    with pytest.raises(InputError, match=r"no picture of .*b can be read; the first, 1.png: the file is empty"):
        as_pairs(Subset(b, [1, 1]))[0]


def test_parts_of_one_source_have_rows_of_their_own(tmp_path):
    """A part's rows keep the numbers that they had in the whole, which are more than it has rows."""
    source = open_source(write_pictures(tmp_path / "a", 8))
    parts = [
        TrainingPairs(rows_of(source, rows), PROCESSOR, Augmentation())
        for rows in (torch.tensor([0, 7]).numpy(), torch.tensor([2, 5]).numpy())
    ]
    for name in ("7.png", "5.png"):  # 2 rows of the first part, and 5, were 7 again
        (tmp_path / "a" / name).write_bytes(b"")
    for both in (as_pairs(ConcatDataset(parts)), MixedPairs(parts, [1, 1])):
        skipped = {entry for position in range(4) for entry in both[position]["skipped"]}
        assert {name.partition(": row ")[2] for _, name, _ in skipped} == {"8: 7.png", "6: 5.png"}
        assert len({row for row, *_ in skipped}) == 2


def test_caption_lengths_are_those_of_the_items(tmp_path):
    a, b = pairs(tmp_path / "a", captions_each=1), pairs(tmp_path / "b", 6, captions_each=1)
    both = as_pairs(Subset(ConcatDataset([a, MixedPairs([b, Subset(a, [1, 2])], [1, 1])]), [11, 3, 3, 4, 8]))
    for epoch in range(3):
        both.set_epoch(epoch)
        assert both.caption_lengths() == [len(item["captions"][0]) for item in both.__getitems__(range(5))]


def test_mixtures_within_and_around(tmp_path):
    a, b = pairs(tmp_path / "a"), pairs(tmp_path / "b", 6)
    mixture = MixedPairs([a, b], [2, 1])
    part = as_pairs(Subset(mixture, [7, 0, 9]))
    around = MixedPairs([Subset(a, range(4)), ConcatDataset([b])], [2, 1])
    for epoch in range(3):
        for each in (part, around):
            each.set_epoch(epoch)
        assert what(part.__getitems__(range(3))) == what(mixture.__getitems__([7, 0, 9]))
        assert what(around.__getitems__(range(10))) == what(mixture.__getitems__(range(10)))
    assert sets_within(Subset(around, [0])) == [a, b]
    with pytest.raises(InputError, match="MixedPairs mixes TrainingPairs, not a CaptionedImages"):
        MixedPairs([a, CaptionedImages(b.source, PROCESSOR)], [1, 1])


def test_a_subclass_that_gives_other_items_gives_them_in_batches_too(tmp_path):
    class Loud(TrainingPairs):
        def __getitem__(self, row):
            return super().__getitem__(row) | {"captions": ["LOUD"]}

    whole = pairs(tmp_path / "a")
    loud = Loud(whole.source, PROCESSOR, Augmentation())
    for each, positions in ((loud, [1]), (Subset(loud, [2, 1]), [0]), (ConcatDataset([whole, loud]), [5])):
        assert as_pairs(each).__getitems__(positions)[0]["captions"] == ["LOUD"]


# ---- what is refused ----------------------------------------------------------------------------------------------


class Hiding(Dataset):
    def __init__(self, *inner):
        self.inner = inner

    def __len__(self):
        return sum(map(len, self.inner))

    def __getitem__(self, position):
        return self.inner[0][position]


class Announcing(Hiding):
    def set_epoch(self, epoch):
        self.inner[0].set_epoch(epoch)


class Augmented(Subset):
    def __getitem__(self, position):
        return super().__getitem__(position) | {"captions": ["x"]}

    def __getitems__(self, positions):
        return [self[position] for position in positions]


def test_other_wrappers_are_refused_by_name(tmp_path):
    one = pairs(tmp_path / "a")
    stream = StreamedPairs(open_source(tmp_path / "a", streaming=True), PROCESSOR, Augmentation())
    for wrapper, name in [
        (Hiding(one), "Hiding around TrainingPairs"),
        (Hiding(Hiding(Subset(one, [0]))), "Hiding around TrainingPairs"),
        (Subset(Hiding(one), [0]), "Hiding around TrainingPairs"),
        (Augmented(one, [0]), "Augmented around TrainingPairs"),
        (StackDataset(image=one, text=one), "StackDataset around TrainingPairs"),
        (ChainDataset([stream, stream]), "ChainDataset around StreamedPairs"),
    ]:
        with pytest.raises(InputError, match=f"a {name} hides the rows, .*: Subset, ConcatDataset, random_split and"):
            as_pairs(wrapper)
    with pytest.raises(InputError, match="a StreamedPairs has no rows to choose from"):
        as_pairs(Subset(stream, [0]))


def test_a_wrapper_of_ones_own_may_hand_the_epoch_on(tmp_path):
    one = pairs(tmp_path / "a")
    announcing = Announcing(one)
    assert as_pairs(announcing) is announcing
    as_pairs(ConcatDataset([one, Announcing(one)])).set_epoch(3)
    assert one.epoch == 3
    own = Subset(Letters("abc"), [1])
    assert as_pairs(own) is own


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([True, False, True, False], "1-dimensional bool: give row numbers"),
        ([0.0, 1.0], "1-dimensional float64: give row numbers"),
        ([0, 4], "a Subset of 4 rows has the indices 0 to 4"),
        ([-5], "a Subset of 4 rows has the indices -5 to -5"),
    ],
)
def test_indices_that_choose_no_rows_are_refused(indices, message, tmp_path):
    with pytest.raises(InputError, match=message):
        as_pairs(Subset(pairs(tmp_path / "a"), indices))


def test_a_part_without_rows_is_refused(tmp_path):
    for empty in (Subset(pairs(tmp_path / "a"), []), ConcatDataset([Subset(pairs(tmp_path / "a"), range(0))])):
        with pytest.raises(InputError, match=r"of .*a holds no rows to train on"):
            MixedPairs([pairs(tmp_path / "a"), empty], [1, 1])


def test_lengths_that_a_set_of_ones_own_does_not_know(tmp_path):
    with pytest.raises(InputError, match="group_by_length asks how long captions are, and Letters does not know"):
        as_pairs(ConcatDataset([pairs(tmp_path / "a"), Letters("ab")])).caption_lengths()


def test_random_split_leaves_no_row_of_one_part_in_the_other(tmp_path):
    whole = pairs(tmp_path / "a", 8)
    for row in range(0, 8, 3):
        (tmp_path / "a" / f"{row}.png").write_bytes(b"")
    parts = [as_pairs(part) for part in random_split(whole, [5, 3], torch.Generator().manual_seed(1))]
    rows = [{item["row"] for item in part.__getitems__(range(len(part)))} for part in parts]
    assert not rows[0] & rows[1]
    assert dataclasses.asdict(parts[0].layout)["rows"].tolist() != [0, 1, 2, 3, 4]
