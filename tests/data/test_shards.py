"""Whatever a stream was made of, training reads the rows that it has: those of `list(stream)`, each once."""

from collections import Counter

import datasets
import numpy as np
import pytest
from PIL import Image

from hf_clip.core.errors import InputError
from hf_clip.data import StreamedPairs, open_source
from hf_clip.data.augmentation import Augmentation
from hf_clip.data.folders import say_once
from hf_clip.data.streaming import Part
from hf_clip.models.image_processors import square_image_processor

IMAGE = Image.fromarray(np.full((8, 8, 3), 40, np.uint8))


def stream(start: int, stop: int, shards: int) -> datasets.IterableDataset:
    rows = {"image": [IMAGE] * (stop - start), "caption": [f"n{number}" for number in range(start, stop)]}
    return datasets.Dataset.from_dict(rows).to_iterable_dataset(num_shards=shards)


def interleaved(**settings) -> datasets.IterableDataset:
    return datasets.interleave_datasets([stream(0, 5, 2), stream(5, 12, 3)], **settings)


# What it is made of, and how many shards may be read one by one.
MADE = {
    "take": (lambda: stream(0, 12, 4).take(5), 1),
    "skip": (lambda: stream(0, 12, 4).skip(5), 1),
    "interleaved": (interleaved, 1),
    "interleaved to the end": (lambda: interleaved(stopping_strategy="all_exhausted"), 1),
    "interleaved by chance": (lambda: interleaved(probabilities=[0.9, 0.1], seed=0), 1),
    "take in a concatenation": (
        lambda: datasets.concatenate_datasets([stream(0, 8, 4).take(3), stream(8, 12, 2)]),
        1,
    ),
    "repeated": (lambda: stream(0, 6, 2).repeat(2), 1),
    "a column by number": (
        lambda: stream(0, 6, 2).remove_columns("caption").add_column("caption", [*"abcdef"]),
        1,
    ),
    "mapped by batch": (lambda: stream(0, 6, 2).map(lambda rows: rows, batched=True), 1),
    "concatenated": (lambda: datasets.concatenate_datasets([stream(0, 5, 2), stream(5, 12, 3)]), 5),
    "filtered": (lambda: stream(0, 12, 4).filter(lambda row: row["caption"] != "n3"), 4),
    "mapped": (lambda: stream(0, 12, 4).map(lambda row: {"caption": row["caption"] + "x"}), 4),
    "renamed": (lambda: stream(0, 12, 4).rename_column("caption", "text"), 4),
    "shuffled": (lambda: stream(0, 12, 4).shuffle(seed=0, buffer_size=3), 4),
    "shuffled, then taken": (lambda: stream(0, 12, 4).shuffle(seed=0, buffer_size=3).take(5), 1),
}


@pytest.mark.parametrize(("make", "shards"), MADE.values(), ids=MADE)
def test_the_shards_are_all_of_a_stream(make, shards, caplog):
    say_once.cache_clear()
    source = open_source(make())
    captions = [row[source.caption_column] for row in make()]
    read = [row[source.caption_column] for shard in range(source.num_shards) for row in source.read_shard(shard)]
    assert (Counter(read), source.num_shards) == (Counter(captions), shards)
    assert ("shards are read as one, because of a take" in caplog.text) == (shards == 1)


@pytest.mark.parametrize("made", ["skip", "interleaved by chance"])
def test_processes_share_what_is_read_as_one(made):
    make, _ = MADE[made]
    captions = [row["caption"] for row in make()]
    processor, read = square_image_processor(8), []
    for rank in range(3):
        items = iter(StreamedPairs(open_source(make()), processor, Augmentation(), part=Part(rank, 3)))
        read += [next(items)["captions"][0] for _ in range(len(captions[rank::3]))]
    assert Counter(read) == Counter(captions)


@pytest.mark.parametrize(
    "make",
    [
        lambda: stream(0, 6, 2).shuffle(buffer_size=3),
        lambda: stream(0, 6, 2).shuffle(generator=np.random.default_rng()).take(3),
        lambda: interleaved(probabilities=[0.5, 0.5]),
    ],
    ids=["shuffle", "generator", "interleave"],
)
def test_an_order_that_no_other_process_has_is_refused(make):
    with pytest.raises(InputError, match=r"IterableDataset is shuffled without a seed, .* give shuffle\(seed=…\)"):
        open_source(make())


def test_the_part_of_one_process_is_refused():
    from datasets.distributed import split_dataset_by_node

    with pytest.raises(InputError, match="is the part of one process: give it without split_dataset_by_node"):
        open_source(split_dataset_by_node(stream(0, 6, 2), 0, 2))
