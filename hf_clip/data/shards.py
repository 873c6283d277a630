"""The shards of a stream that `datasets` has opened, where together they are all of it; or else all of it as one."""

from collections.abc import Iterator

import datasets
import numpy as np

from ..core.errors import InputError
from .folders import say_once

# What a stream may be made of so that shard after shard gives the rows of the stream. Of `take`, `skip`, `repeat` and
# `interleave_datasets` a shard is something else: the first rows of each, say, and not of all. `datasets` has no
# public way to ask; where its own names change, a stream is read as one shard, which is slower and never wrong.
_ROW_BY_ROW = {
    *("ExamplesIterable", "ArrowExamplesIterable", "RebatchedArrowExamplesIterable", "FormattedExamplesIterable"),
    *("SelectColumnsIterable", "MappedExamplesIterable", "FilteredExamplesIterable", "BufferShuffledExamplesIterable"),
    *("InterleavedShardsExamplesIterable", "VerticallyConcatenatedMultiSourcesExamplesIterable"),
}
_OF_MORE_THAN_A_ROW = ("with_indices", "batched", "drop_last_batch")  # a row's number, or what stands beside it
_LARGEST_SEED = 2**64  # what numpy draws where no seed is given has 128 bits


def count_shards(rows: datasets.IterableDataset) -> int:
    """How many of them can be read one by one."""
    return rows.num_shards if _adds_up(rows) else 1


def shard_of(rows: datasets.IterableDataset, shard: int) -> datasets.IterableDataset:
    """
    Args:
        shard: below `count_shards`.
    """
    return rows.shard(rows.num_shards, shard) if _adds_up(rows) else rows


def say_if_one(rows: datasets.IterableDataset, name: str) -> None:
    """What is slower is said."""
    if rows.num_shards > count_shards(rows):
        say_once(
            f"{name}: its {rows.num_shards} shards are read as one, because of a take, skip, repeat, interleaving, or "
            "map by batch or number: each process and worker reads all rows, and keeps its share of them"
        )


def check_order(rows: datasets.IterableDataset, name: str) -> None:
    """
    Raises:
        InputError: rows in an order that no other process and no resumed run has; those of one process alone.
    """
    if any(map(_is_unseeded, _parts(rows))):
        raise InputError(
            f"{name} is shuffled without a seed, so that processes and resumed runs read other rows: give "
            "shuffle(seed=…), or leave it out, for training shuffles"
        )
    if getattr(rows, "_distributed", None) is not None:
        raise InputError(
            f"{name} is the part of one process: give it without split_dataset_by_node, for training shares it out"
        )


def _adds_up(rows: datasets.IterableDataset) -> bool:
    return all(
        type(part).__name__ in _ROW_BY_ROW and not any(getattr(part, name, False) for name in _OF_MORE_THAN_A_ROW)
        for part in _parts(rows)
    )


def _parts(made: object) -> Iterator[object]:
    """What a stream is made of, from the last step to the files."""
    inner = [*getattr(made, "ex_iterables", ()), getattr(made, "ex_iterable", getattr(made, "_ex_iterable", None))]
    for part in inner:
        if part is not None:
            yield part
            yield from _parts(part)


def _is_unseeded(part: object) -> bool:
    generator = getattr(part, "generator", None)
    if not isinstance(generator, np.random.Generator):
        return False
    entropy = getattr(getattr(generator.bit_generator, "seed_seq", None), "entropy", None)
    return isinstance(entropy, int) and entropy >= _LARGEST_SEED
