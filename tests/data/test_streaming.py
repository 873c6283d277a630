"""Streams: each row once an epoch over all readers, the same again from the same arguments, faults in one line."""

import itertools
import json
import shutil
from collections import Counter

import datasets
import pandas as pd
import pytest
import torch
from conftest import write_pictures
from tar_shards import picture, shards

from hf_clip.core.errors import InputError
from hf_clip.data.augmentation import Augmentation
from hf_clip.data.dataset import TrainingPairs
from hf_clip.data.sources import Source, open_source
from hf_clip.data.streaming import Part, StreamedImages, StreamedPairs
from hf_clip.models.image_processors import square_image_processor


def write_shards(folder, sizes: list[int], first: int = 0):
    """Parquet written by pandas, a file for each size; the caption of a row is its number over all files."""
    write_pictures(folder, count=8)
    (folder / "metadata.jsonl").unlink()
    numbers = itertools.count(first)
    for shard, size in enumerate(sizes):
        rows = [(f"{number % 8}.png", str(number)) for number in itertools.islice(numbers, size)]
        pd.DataFrame(rows, columns=["image", "caption"]).to_parquet(folder / f"{shard}.parquet")
    return folder


def streamed(*folders, augmentation: Augmentation | None = None, **settings) -> StreamedPairs:
    sources = [open_source(folder, streaming=True) for folder in folders]
    return StreamedPairs(sources, square_image_processor(16), augmentation or Augmentation(), **settings)


def numbers(stream, count: int) -> list[int]:
    return [int(item["captions"][0]) for item in itertools.islice(stream, count)]


def as_they_come(items: list[dict]) -> list[dict]:
    return items


def loaded(pairs, workers: int) -> torch.utils.data.DataLoader:
    return torch.utils.data.DataLoader(pairs, batch_size=1, num_workers=workers, collate_fn=as_they_come)


def epoch_of_readers(folder, world_size: int, workers: int, sizes: list[int]) -> list[list[int]]:
    """What each reader (worker of a process) has in its first epoch: it ends where a number comes again."""
    readers = []
    for rank in range(world_size):
        pairs = streamed(folder, part=Part(rank, world_size), shuffle_buffer=3)
        batches = itertools.islice(loaded(pairs, workers), 2 * sum(sizes) * max(workers, 1))
        seen = [[int(item["captions"][0]) for item in batch] for batch in batches]
        # torch takes a batch of each worker in turn
        readers += [list(itertools.chain(*seen[worker :: max(workers, 1)])) for worker in range(max(workers, 1))]
    return readers


@pytest.mark.parametrize("sizes", [[4, 5, 3, 6], [11], [7, 2, 5]])
@pytest.mark.parametrize(("world_size", "workers"), [(1, 0), (1, 2), (2, 2), (3, 0), (5, 0)])
def test_each_row_once_an_epoch_over_all_readers(sizes, world_size, workers, tmp_path):
    folder = write_shards(tmp_path / "data", sizes)
    readers = epoch_of_readers(folder, world_size, workers, sizes)
    # In the order of its own epoch a reader sees a row a first time and, only after all of its part, another.
    lengths = part_lengths(folder, len(readers))
    firsts = [reader[:length] for reader, length in zip(readers, lengths, strict=True)]
    assert sorted(itertools.chain(*firsts)) == list(range(sum(sizes)))


def part_lengths(folder, readers: int) -> list[int]:
    """Counted with the data set's own reading: how many rows each reader's first epoch has."""
    from hf_clip.data.streaming import part_of_epoch

    pairs = streamed(folder)
    return [
        sum(1 for _ in part_of_epoch(pairs.pools[0], reader, readers, 0, pairs._generator("shards", 0)))
        for reader in range(readers)
    ]


def test_epochs_follow_one_another_in_other_orders(tmp_path):
    seen = numbers(streamed(write_shards(tmp_path / "data", [5, 5, 5, 5])), 60)
    epochs = [seen[:20], seen[20:40], seen[40:]]
    assert all(sorted(epoch) == list(range(20)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert list(range(20)) not in epochs


def test_a_small_buffer_leaves_rows_near_their_shard_and_a_large_one_does_not(tmp_path):
    folder = write_shards(tmp_path / "data", [50, 50])
    small, large = (numbers(streamed(folder, shuffle_buffer=size), 50) for size in (1, 100))
    assert len({number // 50 for number in small}) == 1
    assert 15 < sum(number < 50 for number in large) < 35


def test_the_same_arguments_give_the_same_items(tmp_path):
    folder = write_shards(tmp_path / "data", [6, 5])
    augmentation = Augmentation(crop_scale=0.3, color_jitter=0.5)
    one, again, other = (
        list(itertools.islice(streamed(folder, augmentation=augmentation, seed=seed), 30)) for seed in (3, 3, 4)
    )
    assert [item["row"] for item in one] == [item["row"] for item in again] != [item["row"] for item in other]
    assert all(torch.equal(a["pixel_values"], b["pixel_values"]) for a, b in zip(one, again, strict=True))
    with_workers = [[item["row"] for (item,) in itertools.islice(loaded(streamed(folder), 2), 30)] for _ in range(2)]
    assert with_workers[0] == with_workers[1]


def test_items_are_those_of_training_pairs(tmp_path):
    folder = write_shards(tmp_path / "data", [9])
    pairs = TrainingPairs(open_source(folder), square_image_processor(16), Augmentation(color_jitter=0.5))
    for item in itertools.islice(streamed(folder, augmentation=Augmentation(color_jitter=0.5)), 9):
        expected = pairs[item["row"]]
        assert torch.equal(item.pop("pixel_values"), expected.pop("pixel_values"))
        assert item == expected


def test_two_workers_give_training_pairs_in_order(pictures):
    pairs = TrainingPairs(open_source(pictures), square_image_processor(16), Augmentation())
    assert [item["row"] for (item,) in loaded(pairs, 2)] == list(range(8))


def test_sources_without_weights_are_passed_through_together(tmp_path):
    folders = [write_shards(tmp_path / "a", [3, 4]), write_shards(tmp_path / "b", [6], first=100)]
    items = list(itertools.islice(streamed(*folders), 26))
    expected = [*range(7), *range(100, 106)]
    for epoch in (items[:13], items[13:]):
        assert sorted(int(item["captions"][0]) for item in epoch) == expected
        assert len({item["row"] for item in epoch}) == 13


def test_weights_are_the_shares_of_the_sources(tmp_path):
    folders = [write_shards(tmp_path / "a", [3]), write_shards(tmp_path / "b", [40], first=100)]
    seen = numbers(streamed(*folders, weights=[3, 1]), 400)
    counts = Counter(number >= 100 for number in seen)
    assert 60 < counts[True] < 140  # 100 expected; 4.6 standard deviations
    assert sorted([number for number in seen if number >= 100][:40]) == list(range(100, 140))


def test_a_broken_picture_is_named_with_the_next_good_one(tmp_path):
    folder = write_shards(tmp_path / "data", [4, 4])
    (folder / "5.png").write_bytes(b"")
    items = list(itertools.islice(streamed(folder), 14))
    assert sorted(int(item["captions"][0]) for item in items[:7]) == [0, 1, 2, 3, 4, 6, 7]
    skipped = [entry for item in items for entry in item["skipped"]]
    name = f"{folder / '1.parquet'}: row 2: 5.png"
    assert skipped[0] == (2**32 + 1, name, "the file is empty")
    assert 1 <= len(skipped) <= 2


@pytest.mark.parametrize("workers", [0, 1])
def test_without_one_readable_picture_the_stream_ends_in_a_line(tmp_path, workers):
    folder = write_shards(tmp_path / "data", [4, 4])
    for file in folder.glob("*.png"):
        file.write_bytes(b"no picture")
    with pytest.raises(
        InputError, match=r"^no picture of .*data can be read; the first, .*: row 1: \d.png: not a whole"
    ):
        next(iter(loaded(streamed(folder), workers)))


def test_a_reader_whose_part_is_broken_or_empty_goes_on(tmp_path):
    folder = write_shards(tmp_path / "data", [8])
    for broken in (0, 2, 4, 6):
        (folder / f"{broken}.png").write_bytes(b"")
    for rank in range(2):  # one of them has the broken half in an epoch
        assert set(numbers(streamed(folder, part=Part(rank, 2)), 40)) == {1, 3, 5, 7}
    for rank in (0, 5, 10):  # of 11, three have nothing in an epoch
        assert set(numbers(streamed(folder, part=Part(rank, 11)), 40)) == {1, 3, 5, 7}


@pytest.mark.parametrize("workers", [0, 1])
def test_faults_of_rows_arrive_as_one_line(tmp_path, workers):
    lines = [{"image": "0.png", "caption": caption} for caption in ["a", "b", " ", "c"]]
    folder = write_pictures(tmp_path / "data")
    (folder / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    stream = loaded(streamed(folder / "a.jsonl"), workers)
    with pytest.raises(InputError, match=r"^/.*a.jsonl: row 3 has an empty caption: fill or remove such rows$"):
        list(stream)


FAULTY_ROWS = {
    "null": ('{"image": "0.png", "caption": null}', "row 2 has an empty caption"),
    "no caption": ('{"image": "0.png", "caption": []}', "row 2 has (an empty caption|list)"),
    "a number": ('{"image": "0.png", "caption": 7}', "row 2 has int for a caption, not text"),
    "no json": ('{"image": "0.png", "caption', "cannot be read"),
}


@pytest.mark.parametrize("fault", FAULTY_ROWS)
def test_faulty_rows(fault, pictures, capfd):
    line, message = FAULTY_ROWS[fault]
    (pictures / "a.jsonl").write_text('{"image": "0.png", "caption": "a"}\n' + line + "\n")
    capfd.readouterr()
    with pytest.raises(InputError, match=message) as raised:
        next(iter(streamed(pictures / "a.jsonl")))
    assert "a.jsonl" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert capfd.readouterr() == ("", "")


def test_a_shard_that_cannot_be_read_is_named_when_it_is_reached(tmp_path, capfd):
    folder = write_shards(tmp_path / "data", [4, 4])
    (folder / "1.parquet").write_bytes((folder / "1.parquet").read_bytes()[:-20])
    capfd.readouterr()
    with pytest.raises(InputError, match=r"^/.*1.parquet cannot be read after row 0: "):
        list(itertools.islice(streamed(folder), 9))
    assert capfd.readouterr() == ("", "")


def kinds_of(tmp_path):
    folder = write_pictures(tmp_path / "pictures", count=6)
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    frame = pd.DataFrame({"image": [row["file_name"] for row in rows], "caption": [row["caption"] for row in rows]})
    frame.to_csv(folder / "a.csv", index=False)
    frame.to_json(folder / "a.jsonl", orient="records", lines=True)
    frame.to_parquet(folder / "b.parquet")
    inside = tmp_path / "inside"
    inside.mkdir()
    features = datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string")})
    contents = [{"bytes": (folder / name).read_bytes(), "path": name} for name in frame["image"]]
    with_bytes = datasets.Dataset.from_dict({"image": contents, "caption": list(frame["caption"])}, features=features)
    with_bytes.to_parquet(inside / "0.parquet")
    classes = tmp_path / "classes"
    for i, row in enumerate(rows):
        (classes / row["caption"]).mkdir(parents=True)
        shutil.copy(folder / f"{i}.png", classes / row["caption"] / "x.png")
    (tmp_path / "tar").mkdir()
    return {
        "metadata": folder, "csv": folder / "a.csv", "jsonl": folder / "a.jsonl", "parquet": folder / "b.parquet",
        "pattern": folder / "*.parquet", "bytes": inside, "classes": classes,
        "tar": shards(tmp_path / "tar", png=picture, txt=lambda color: f"{color} one".encode()),
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["metadata", "csv", "jsonl", "parquet", "pattern", "bytes", "classes", "tar"])
def test_all_kinds_stream_what_they_hold(kind, tmp_path):
    name = kinds_of(tmp_path)[kind]
    whole: Source = open_source(name)
    items = list(itertools.islice(streamed(name), len(whole)))
    expected = sorted(whole.captions(row)[0] for row in range(len(whole)))
    assert sorted(item["captions"][0] for item in items) == expected
    assert len(expected) == 6
    assert all(item["skipped"] == [] for item in items)


def test_what_is_no_stream_is_refused(tmp_path):
    folder = write_shards(tmp_path / "data", [4])
    whole, stream = open_source(folder), open_source(folder, streaming=True)
    with pytest.raises(InputError, match=r"is not streamed: open it with streaming=True, or use TrainingPairs"):
        StreamedPairs(whole, square_image_processor(16), Augmentation())
    with pytest.raises(InputError, match=r"is streamed, and its number of rows unknown"):
        len(stream)
    for settings, message in [
        ({"weights": [1, 2]}, "2 weights for 1 sources"),
        ({"weights": [-1]}, "weights must be positive"),
        ({"shuffle_buffer": 0}, "shuffle_buffer must be 1 or more"),
        ({"part": Part(2, 2)}, "rank must be from 0 to 1, not 2"),
    ]:
        with pytest.raises(InputError, match=message):
            StreamedPairs(stream, square_image_processor(16), Augmentation(), **settings)


def test_images_alone_are_streamed_as_with_captions(tmp_path):
    folder = write_shards(tmp_path / "data", [9])
    source, settings = open_source(folder, streaming=True, captions_required=False), Augmentation(color_jitter=0.5)
    images = StreamedImages(source, square_image_processor(16), settings)
    for plain, pair in zip(itertools.islice(images, 12), streamed(folder, augmentation=settings), strict=False):
        assert torch.equal(plain.pop("pixel_values"), pair.pop("pixel_values"))
        del pair["captions"]
        assert plain == pair
