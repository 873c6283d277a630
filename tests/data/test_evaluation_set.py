"""Evaluation sets: rows by their position, whatever the sets within call them; labels by their classes' names."""

import json
import re

import pytest
import torch
from conftest import write_labelled_pictures, write_pictures
from torch.utils.data import ConcatDataset, Dataset, Subset

from hf_clip.core.errors import InputError
from hf_clip.data.augmentation import Augmentation
from hf_clip.data.dataset import CaptionedImages, TrainingPairs
from hf_clip.data.evaluation_set import EvaluationSet, positions_of
from hf_clip.data.mixture import MixedPairs
from hf_clip.data.sources import open_source
from hf_clip.data.streaming import StreamedPairs
from hf_clip.models.image_processors import square_image_processor

PROCESSOR = square_image_processor(16)


def pictures(folder, labels=None, count=4, **columns) -> CaptionedImages:
    """With a label each, where given."""
    file = write_pictures(folder, count=len(labels or range(count)), captions_each=2) / "metadata.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    if labels:
        rows = [row | {"label": label} for row, label in zip(rows, labels, strict=True)]
        columns = {"label_column": "label"} | columns
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return CaptionedImages(open_source(folder, **columns), PROCESSOR)


def test_every_position_is_a_row_of_its_own(tmp_path):
    """Sets whose rows and files have the same names, and a row that comes three times."""
    a, b = pictures(tmp_path / "a"), pictures(tmp_path / "b")
    (tmp_path / "a" / "1.png").write_bytes(b"")
    (tmp_path / "b" / "1.png").write_bytes(b"")
    rows = EvaluationSet(Subset(ConcatDataset([a, Subset(b, [3, 1])]), [0, 1, 4, 5, 0, 1]))
    items = rows.__getitems__(range(6))
    assert [item["row"] for item in items] == list(range(6))
    assert [item["captions"][0] for item in items] == ["red a", "green b", "yellow d", "green b", "red a", "green b"]
    assert (items[2]["image_id"], rows[4]["image_id"]) == (b[3]["image_id"], a[0]["image_id"])
    assert [entry for item in items for entry in item["skipped"]] == [
        (position, f"{tmp_path / name}: row 2: 1.png", "the file is empty")
        for position, name in ((1, "a"), (3, "b"), (5, "a"))
    ]


def test_a_set_without_a_wrapper_is_what_it_is(tmp_path):
    one = CaptionedImages(open_source(write_labelled_pictures(tmp_path / "a"), label_column="label"), PROCESSOR)
    (tmp_path / "a" / "2.png").write_bytes(b"")
    rows = EvaluationSet(one)
    assert [item["skipped"] for item in rows.__getitems__([0, 2])] == [[], [(2, "2.png", "the file is empty")]]
    assert torch.equal(rows[1]["pixel_values"], one[1]["pixel_values"])
    assert (rows.class_names, rows.labels().tolist()) == (["blue", "red"], one.source.labels().tolist())
    assert EvaluationSet.of(rows) is rows


def test_classes_are_numbered_by_their_names(tmp_path):
    """Each source sorts its own: of `a` they are bird and cat, of `b` ant and cat."""
    a, b = pictures(tmp_path / "a", ["cat", "bird"]), pictures(tmp_path / "b", ["cat", "ant", "ant"])
    rows = EvaluationSet(Subset(ConcatDataset([a, b]), [0, 1, 2, 3, 3]))
    assert rows.class_names == ["bird", "cat", "ant"]
    assert [rows.class_names[label] for label in rows.labels()] == ["cat", "bird", "cat", "ant", "ant"]


def test_lists_of_classes_are_numbered_by_their_names(tmp_path):
    a, b = pictures(tmp_path / "a", [["cat", "bird"], ["bird"]]), pictures(tmp_path / "b", [["ant"], ["cat", "ant"]])
    rows = EvaluationSet(ConcatDataset([a, b]))
    found = [[rows.class_names[i] for i in range(3) if row[i]] for row in rows.labels()]
    assert found == [["bird", "cat"], ["bird"], ["ant"], ["cat", "ant"]]


def test_numbers_without_names_stay(tmp_path):
    a, b = pictures(tmp_path / "a", [3, 1]), pictures(tmp_path / "b", [1, 2])
    rows = EvaluationSet(Subset(ConcatDataset([a, b]), [3, 0]))
    assert (rows.class_names, rows.labels().tolist()) == (None, [2, 3])


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        (None, r".*a has labels, and .*b has none: set label_column for both, or evaluate them apart"),
        (
            [0, 1],
            r"classes of .*a have names, and those of .*b only numbers: give class names, or evaluate them apart",
        ),
        (
            [["bird"], ["cat", "bird"]],
            r"rows of .*a have one label, and those of .*b lists: make them alike, or .* apart",
        ),
    ],
)
def test_labels_that_not_all_have_are_none(labels, why, tmp_path):
    rows = EvaluationSet(ConcatDataset([pictures(tmp_path / "a", ["cat", "bird"]), pictures(tmp_path / "b", labels)]))
    assert (rows.label_column, rows.class_names) == (None, None)
    assert re.fullmatch(why, rows.without_labels)


@pytest.mark.parametrize("together", [lambda a: a, lambda a: ConcatDataset([a, a])])
def test_lists_of_numbers_are_no_classes(together, tmp_path):
    rows = EvaluationSet(together(pictures(tmp_path / "a", [[1], [2, 0]])))
    assert (rows.label_column, rows.has_classes, bool(rows.caption_column)) == (None, False, True)
    assert re.fullmatch(
        r"rows of .*a have lists of labels, which are only numbers: give class names", rows.without_labels
    )


def test_training_pairs_are_measured_plainly_and_whole(tmp_path):
    plain = pictures(tmp_path / "a")
    drawn = TrainingPairs(plain.source, PROCESSOR, Augmentation(crop_scale=0.1))
    item = EvaluationSet(Subset(drawn, [2]))[0]
    assert item["captions"] == plain[2]["captions"]
    assert torch.equal(item["pixel_values"], plain[2]["pixel_values"])


class Own(Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, position):
        return self.items[position]


def test_sets_of_ones_own(tmp_path):
    """What they call `row` is another thing, unless it is an item such as ours."""
    rows = EvaluationSet(ConcatDataset([Own(["a", {"row": 0}]), Own([{"row": 0, "skipped": []}])]))
    assert not rows.is_known
    assert rows.__getitems__([0, 1, 2]) == ["a", {"row": 0}, {"row": 2, "skipped": []}]


@pytest.mark.parametrize(
    ("said", "images", "positions"),
    [
        ([4, 6], 2, [4, 6]),  # one image could not be read
        ([], 0, []),
        ([6, 4, 5], 3, [6, 4, 5]),
        (None, 3, [4, 5, 6]),
        ([0, 1, 2], 3, [4, 5, 6]),  # of a set of one's own, within a ConcatDataset
        ([5, 5, 4], 3, [4, 5, 6]),
        (None, 2, "data_collator gives 2 images of 3 rows: say in rows"),
        ([0, 1], 2, "data_collator gives 2 images of 3 rows"),
    ],
)
def test_images_are_at_the_positions_that_were_asked_for(said, images, positions):
    batch = {"pixel_values": torch.zeros(images, 3, 1, 1)}
    batch |= {} if said is None else {"rows": torch.tensor(said, dtype=torch.long)}
    if isinstance(positions, str):
        with pytest.raises(InputError, match=positions):
            positions_of(batch, range(4, 7))
    else:
        assert positions_of(batch, range(4, 7)).tolist() == positions


def test_what_has_no_rows_of_its_own_is_refused(tmp_path):
    one = pictures(tmp_path / "a")
    drawn = TrainingPairs(one.source, PROCESSOR, Augmentation())
    stream = StreamedPairs(open_source(tmp_path / "a", streaming=True), PROCESSOR, Augmentation())
    for dataset, message in [
        (
            Own([one]),
            "a Own around CaptionedImages hides the rows, labels and epochs of what it holds: Subset",
        ),
        (Subset(Own([one]), [0]), "a Own around CaptionedImages hides"),
        (MixedPairs([drawn], [1]), "MixedPairs draw other rows in each epoch: evaluate CaptionedImages of their"),
        (Subset(MixedPairs([drawn], [1]), [0]), "MixedPairs draw other rows"),
        (stream, "a StreamedPairs has no rows to choose from"),
        (stream.sources[0].rows, "a IterableDataset has no rows to choose from"),
    ]:
        with pytest.raises(InputError, match=message):
            EvaluationSet(dataset)
