"""Training items of sources that are read as a stream: shuffled, and shared out between processes and workers."""

import itertools
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from transformers import BaseImageProcessor

from ..core.digests import content_id
from ..core.errors import InputError
from .augmentation import Augmentation
from .columns import Row
from .dataset import check_captioned
from .draws import CaptionDraw, ImageDraw
from .items import Item, Skipped
from .sources import Source
from .weights import check_weights

_ROWS_OF_A_SHARD = 2**32  # more than any has: shard and row make one number


@dataclass(frozen=True)
class Shard:
    """One of a source's, numbered through all sources."""

    source: Source
    index: int
    number: int


ShardRow = tuple[Shard, int, Row]  # where it stands, and what stands there


class Part(NamedTuple):
    """What a process reads of a stream that several share."""

    rank: int = 0
    world_size: int = 1


_WHOLE = Part()


class StreamedImages(torch.utils.data.IterableDataset):
    """The image of each row of sources, augmented anew in each epoch, epoch after epoch without an end.

    Each process and each of its `DataLoader` workers reads its own part: whole shards where there are enough, else
    every so many rows of a shard that it shares. In one epoch no row comes twice and none is left out; which part is
    whose changes with the epoch. The same arguments give the same sequence: to resume is to skip what was seen.
    Items are those of `TrainingImages`; an image that cannot be read is passed over, and `skipped` of the next good
    one names it. `row` counts shards in steps of 2**32.

    Args:
        sources: opened with `streaming=True`.
        weights: of the sources, for each item drawn; default: an epoch is one pass through all of them.
        shuffle_buffer: rows, undecoded, among which the next is drawn.
        part: this process's.

    Raises:
        InputError: sources that are not streamed; when reading, what `Source.read_shard` raises, and a stream without
            one readable image.
    """

    def __init__(
        self,
        sources: Sequence[Source] | Source,
        image_processor: BaseImageProcessor,
        augmentation: Augmentation,
        seed: int = 0,
        weights: Sequence[float] | None = None,
        shuffle_buffer: int = 1000,
        part: Part = _WHOLE,
    ):
        self.sources = [sources] if isinstance(sources, Source) else list(sources)
        self.draw = ImageDraw(image_processor, augmentation, seed)
        self.weights = weights
        self.shuffle_buffer = shuffle_buffer
        self.part = part
        self._check()
        counts = [source.num_shards for source in self.sources]
        firsts = [sum(counts[:i]) for i in range(len(counts))]
        pools = [
            [Shard(source, index, first + index) for index in range(count)]
            for source, first, count in zip(self.sources, firsts, counts, strict=True)
        ]
        # What is shuffled together: each source alone where it is drawn by weight, or else all.
        self.pools = pools if weights else [[shard for pool in pools for shard in pool]]

    def _check(self) -> None:
        for source in self.sources:
            if not source.streaming:
                raise InputError(f"{source.name} is not streamed: open it with streaming=True, or use TrainingPairs")
        if self.weights is not None:
            check_weights(self.weights, len(self.sources))
        if self.shuffle_buffer < 1:
            raise InputError(f"shuffle_buffer must be 1 or more, not {self.shuffle_buffer}")
        if not 0 <= self.part.rank < self.part.world_size:
            raise InputError(f"rank must be from 0 to {self.part.world_size - 1}, not {self.part.rank}")

    def __iter__(self) -> Iterator[Item]:
        worker = torch.utils.data.get_worker_info()
        workers, worker_id = (worker.num_workers, worker.id) if worker else (1, 0)
        reader, readers = self.part.rank * workers + worker_id, self.part.world_size * workers
        streams = [self._endless(pool, reader, readers) for pool in self.pools]
        if len(streams) == 1:
            yield from streams[0]
        generator = self._generator("mixture", reader)
        while True:
            yield next(generator.choices(streams, self.weights)[0])

    def _endless(self, pool: list[Shard], reader: int, readers: int) -> Iterator[Item]:
        skipped: list[Skipped] = []
        for epoch in itertools.count():
            readable = False
            rows = part_of_epoch(pool, reader, readers, epoch, self._generator("shards", epoch))
            for row in _shuffled(rows, self.shuffle_buffer, self._generator("rows", epoch, reader)):
                item = self._item(row, epoch)
                skipped += item["skipped"]
                if "pixel_values" in item:
                    yield item | {"skipped": skipped}
                    skipped, readable = [], True
            if not readable:
                self._look_for_a_readable_picture(pool)

    def _item(self, row: ShardRow, epoch: int) -> Item:
        shard, place, record = row
        item = self._drawn(shard.source, record, shard.number * _ROWS_OF_A_SHARD + place, epoch)
        where = f"{shard.source.shard_name(shard.index)}: row {place + 1}"
        return item | {"skipped": [(number, f"{where}: {name}", why) for number, name, why in item["skipped"]]}

    def _drawn(self, source: Source, record: Row, row: int, epoch: int) -> Item:
        return {"row": row} | self.draw(source, record, row, epoch)

    def _look_for_a_readable_picture(self, pool: list[Shard]) -> None:
        """This reader's part had none, which is a fault only where the others' have none either."""
        broken: list[Skipped] = []
        for row in part_of_epoch(pool, 0, 1, 0, random.Random(0)):
            item = self._item(row, 0)
            if "pixel_values" in item:
                return
            broken = broken or item["skipped"]
        first = f"; the first, {broken[0][1]}: {broken[0][2]}" if broken else ""
        raise InputError(f"no picture of {', '.join(source.name for source in self.sources)} can be read{first}")

    def _generator(self, *names: Any) -> random.Random:
        return random.Random(content_id("-".join(map(str, (self.draw.seed, *names))).encode()))


class StreamedPairs(StreamedImages):
    """The same with `captions`, one of each image, chosen anew in each epoch.

    Raises:
        InputError: also for sources without captions.
    """

    def _check(self) -> None:
        for source in self.sources:
            check_captioned(source)
        super()._check()
        self.choose = CaptionDraw(self.draw.seed)

    def _drawn(self, source: Source, record: Row, row: int, epoch: int) -> Item:
        caption = self.choose(source.captions_of(record), row, epoch)
        return {"captions": [caption]} | super()._drawn(source, record, row, epoch)


def part_of_epoch(
    pool: list[Shard], reader: int, readers: int, epoch: int, generator: random.Random
) -> Iterator[ShardRow]:
    """The rows of one of several readers; `generator` orders the shards, for all readers alike."""
    shards = pool.copy()
    generator.shuffle(shards)
    if len(shards) >= readers:
        mine, sharing, place = shards[reader::readers], 1, 0
    else:
        which = reader % len(shards)
        sharing = len(range(which, readers, len(shards)))  # how many read this shard
        mine, place = [shards[which]], (reader // len(shards) + epoch) % sharing
    for shard in mine:
        rows = enumerate(shard.source.read_shard(shard.index))
        for row, record in itertools.islice(rows, place, None, sharing):
            yield shard, row, record


def _shuffled(rows: Iterable[ShardRow], size: int, generator: random.Random) -> Iterator[ShardRow]:
    buffer: list[ShardRow] = []
    for row in rows:
        if len(buffer) < size:
            buffer.append(row)
            continue
        place = generator.randrange(size)
        yield buffer[place]
        buffer[place] = row
    generator.shuffle(buffer)
    yield from buffer
