"""Vectors read from a folder in place of captions and pictures: the same draws, and cheap to hand to a worker."""

import json
import os
import pickle

import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import write_pictures

from hf_clip.core.records import InvalidRecord
from hf_clip.data.augmentation import Augmentation
from hf_clip.data.collator import HFClipCollator
from hf_clip.data.dataset import TrainingPairs
from hf_clip.data.features import FeatureData, FeatureManifest, Features, FeatureTower, segments_of
from hf_clip.data.mixture import MixedPairs
from hf_clip.data.sources import open_source
from hf_clip.models.image_processors import square_image_processor

WIDTH = 3


def write_features(folder, positions, ids, notes=None, segment_size=4, dtype="float32", cut=None) -> Features:
    """Vector p is (p, p + 0.25, p + 0.5); `positions` are those of each row, and `cut` says which of them were."""
    folder.mkdir()
    manifest = FeatureManifest(
        format=3,
        hf_clip="0.1.0",
        side="text",
        tower=FeatureTower(type="bert", digest="w" * 8, pooling="mean", dtype=dtype),
        preprocessing={},
        data=FeatureData("x", "d" * 8),
        rows=len(positions),
        items=len(ids),
        width=WIDTH,
        segment_size=segment_size,
    )
    manifest.write(folder / "manifest.json")
    np.save(folder / "starts.npy", np.cumsum([0, *map(len, positions)]))
    np.save(folder / "positions.npy", np.concatenate(positions).astype(np.int64))
    if cut is not None:
        np.save(folder / "cut.npy", np.array(cut))
    vectors = np.arange(len(ids), dtype=np.float32)[:, None] + np.array([0, 0.25, 0.5], dtype=np.float32)
    segments = segments_of(folder, manifest)
    for rows in segments.ranges:
        texts = pa.array([(notes or {}).get(position) for position in rows], pa.string())
        table = pa.table({"id": ids[rows.start : rows.stop], "note": texts})
        segments.write(rows, table, {"vectors": vectors[rows.start : rows.stop]})
    return Features(folder)


def test_vectors_of_any_segments_in_the_order_asked_for(tmp_path):
    features = write_features(tmp_path / "a", [[9, 2], [5]], [100 + p for p in range(10)], notes={6: "why"})
    assert (len(features), features.of_row(0), features.of_row(1)) == (10, [9, 2], [5])
    assert features.take([9, 2, 3, 9, 0])[:, 1].tolist() == [9.25, 2.25, 3.25, 9.25, 0.25]
    assert features.take([7]).shape == (1, WIDTH)
    assert features.notes == {6: "why"}
    assert features.ids[[4, 9]].tolist() == [104, 109]


def test_in_the_type_that_the_tower_gives(tmp_path):
    assert write_features(tmp_path / "a", [[0]], [1], dtype="bfloat16").take([0]).dtype == torch.bfloat16


def test_what_a_worker_is_sent_is_a_name_and_no_file_stays_open(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    features = write_features(tmp_path / "a", [[0], [99]], list(range(100)), segment_size=1)
    assert len(os.listdir("/proc/self/fd")) <= before + 2
    sent = pickle.dumps(features)
    assert len(sent) < 500
    assert pickle.loads(sent).take([99]).tolist() == [[99, 99.25, 99.5]]


@pytest.fixture
def source(tmp_path):
    return open_source(write_pictures(tmp_path / "pictures", count=6, captions_each=3))


def training_pairs(source, seed=0, **features) -> TrainingPairs:
    pairs = TrainingPairs(source, square_image_processor(16), Augmentation(crop_scale=1), seed)
    vars(pairs).update(features)
    return pairs


def test_the_captions_drawn_are_those_that_are_drawn_without(source, processor, tmp_path):
    captions = [caption for row in range(6) for caption in source.captions(row)]
    order = np.random.default_rng(0).permutation(18)  # position of each caption in the store
    ids = (1000 + order.argsort()).tolist()
    cut = [place == 0 for place in range(18)]
    text = write_features(tmp_path / "text", np.split(order, 6), ids, segment_size=5, cut=cut)
    plain, pooled = training_pairs(source), training_pairs(source, text_features=text)
    collate = HFClipCollator(processor, normalize=False)
    for epoch in range(4):
        plain.set_epoch(epoch)
        pooled.set_epoch(epoch)
        items = pooled.__getitems__([4, 0, 3])
        drawn = [plain[row]["captions"][0] for row in (4, 0, 3)]
        batch = collate(items)
        assert batch["caption_ids"].tolist() == [1000 + captions.index(caption) for caption in drawn]
        assert batch["pooled_text"][:, 0].tolist() == [order[captions.index(caption)] for caption in drawn]
        assert batch["captions_cut"].tolist() == [caption == captions[0] for caption in drawn]
        assert batch["caption_counts"].tolist() == [1, 1, 1]
        assert "input_ids" not in batch
        assert torch.equal(batch["pixel_values"][0], plain[4]["pixel_values"])


def test_an_unreadable_picture_is_replaced_as_it_is_without(source, processor, tmp_path):
    image = write_features(
        tmp_path / "image", [[0], [1], [1], [2], [3], [4]], [10, 11, 12, 13, 14], notes={1: "empty", 4: "cut off"}
    )
    pairs = training_pairs(source, image_features=image)
    (item,) = pairs.__getitems__([1])
    assert (item["row"], item["image_id"], item["pooled_image"].tolist()) == (3, 12, [2, 2.25, 2.5])
    assert item["skipped"] == [(1, "1.png", "empty"), (2, "2.png", "empty")]
    assert item["captions"] == training_pairs(source)[3]["captions"]
    assert (pairs[5]["row"], pairs[5]["skipped"]) == (0, [(5, "5.png", "cut off")])
    batch = HFClipCollator(processor)([item | {"captions": []}])
    assert (batch["pooled_image"].tolist(), batch["image_ids"].tolist()) == ([[2, 2.25, 2.5]], [12])
    assert "pixel_values" not in batch


def test_a_mixture_asks_each_source_once_and_keeps_the_order(source, tmp_path):
    first = write_features(tmp_path / "first", [[p] for p in range(6)], list(range(6)))
    second = write_features(tmp_path / "second", [[p] for p in (5, 4, 3, 2, 1, 0)], list(range(100, 106)))
    mixture = MixedPairs(
        [training_pairs(source, image_features=first), training_pairs(source, 1, image_features=second)], [1, 1]
    )
    plain = MixedPairs([training_pairs(source), training_pairs(source, 1)], [1, 1])
    order = [11, 0, 7, 3, 3, 10]
    for epoch in range(2):
        mixture.set_epoch(epoch)
        plain.set_epoch(epoch)
        rows = [item["row"] for item in mixture.__getitems__(order)]
        assert rows == [plain[position]["row"] for position in order]
        for row, item in zip(rows, mixture.__getitems__(order), strict=True):
            assert item["image_id"] == (row if row < 6 else 105 - (row - 6))
            assert item["pooled_image"][0] == item["image_id"] % 100


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tower": "bert"}, "tower: str where a mapping belongs"),
        ({"tower": {"type": "bert"}}, "tower: 'digest' is missing"),
        ({"width": "3"}, "Field 'width'"),
        ({"rows": -3}, "'rows' is -3, and at least 0"),
        ({"segment_size": 0}, "'segment_size' is 0, and at least 1"),
        ({"preprocessing": [1]}, "Field 'preprocessing'"),
    ],
)
def test_a_manifest_of_another_kind_is_one_line_with_file_and_field(changes, said, tmp_path):
    write_features(tmp_path / "a", [[0]], [100])
    file = tmp_path / "a" / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(InvalidRecord, match=said) as refusal:
        Features(tmp_path / "a")
    assert str(file) in str(refusal.value)
    assert "\n" not in str(refusal.value)
