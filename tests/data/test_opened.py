"""What `datasets` has opened is a source: its columns are found by what they hold, its splits by their names."""

import datasets
import numpy as np
import pytest
from PIL import Image

from hf_clip.core.errors import InputError
from hf_clip.data import CaptionedImages, StreamedPairs, TrainingPairs, split_by_image
from hf_clip.data.augmentation import Augmentation
from hf_clip.data.sources import open_source
from hf_clip.embeddings.provenance import data_facts
from hf_clip.models.image_processors import square_image_processor

PROCESSOR = square_image_processor(16)
IMAGES = [Image.fromarray(np.full((20, 20, 3), 40 * i, np.uint8)) for i in range(4)]
CAPTIONS = [[f"a {i}", f"the {i}"] for i in range(4)]
CLASSES = datasets.ClassLabel(names=["cat", "dog"])


def rows(**columns) -> datasets.Dataset:
    """Of images called `photo` and columns of one's own: values, and their feature where it is no plain one."""
    plain = datasets.Dataset.from_dict({"photo": IMAGES} | columns)
    return plain.cast_column("kind", CLASSES) if "kind" in columns else plain


def test_columns_are_found_by_what_they_hold():
    source = open_source(rows(number=[1, 2, 3, 4], words=CAPTIONS))
    assert (source.image_column, source.caption_column, source.label_column) == ("photo", "words", None)
    assert [source.captions(row) for row in range(4)] == CAPTIONS
    both = open_source(rows(text=["a"] * 4, kind=[0, 1, 0, 1]), labels_required=True)
    assert (both.caption_column, both.label_column, both.labels().tolist()) == ("text", "kind", [0, 1, 0, 1])
    classes = open_source(rows(kind=[0, 1, 0, 1]))
    assert (classes.caption_column, classes.captions(1)) == (None, ["dog"])


def test_images_in_memory_are_those_that_were_given():
    items = CaptionedImages(open_source(rows(words=CAPTIONS)), PROCESSOR)
    for row in range(4):
        expected = PROCESSOR(images=IMAGES[row], return_tensors="pt")["pixel_values"][0]
        assert (items[row]["pixel_values"] - expected).abs().max() < 1e-6
        assert (items[row]["captions"], items[row]["skipped"]) == (CAPTIONS[row], [])


@pytest.mark.parametrize("features", ["known", "unknown"])
def test_a_stream_draws_each_row_once_an_epoch(features):
    stream = rows(words=CAPTIONS).to_iterable_dataset(num_shards=2)
    if features == "unknown":
        stream = stream.map(lambda row: {"photo": row["photo"], "words": row["words"]})
        assert stream.features is None
    source = open_source(stream)
    assert (source.streaming, source.caption_column) == (True, "words")
    items = iter(StreamedPairs(source, PROCESSOR, Augmentation(crop_scale=1)))
    drawn = [next(items) for _ in range(4)]
    assert sorted(item["captions"][0][-1] for item in drawn) == ["0", "1", "2", "3"]
    assert sorted(int(item["pixel_values"].float().mean()) for item in drawn) == [0, 40, 80, 120]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda: rows(mask=IMAGES, words=CAPTIONS), "any of photo, mask may be the image: set image_column to one"),
        (lambda: rows(words=CAPTIONS, file=["x"] * 4), "any of words, file may be the caption: set caption_column to"),
        (
            lambda: rows(kind=[0, 1, 0, 1], other=[0] * 4).cast_column("other", CLASSES),
            "any of kind, other may be the label: set label_column to one of them",
        ),
        (lambda: rows(number=[1, 2, 3, 4]), "Dataset has its images in 'photo', and no captions in number: add a col"),
        (lambda: datasets.Dataset.from_dict({"x": ["a"]}), "Dataset has no column of images among x: make one with c"),
        (lambda: rows(words=["a", "", "b", "c"]), "Dataset: row 2 has an empty caption"),
        (lambda: rows(words=CAPTIONS).select([]), "Dataset has no rows"),
        (lambda: datasets.DatasetDict(), "DatasetDict has no splits"),
        (
            lambda: datasets.DatasetDict(mine=rows(words=CAPTIONS)),
            r"DatasetDict has the splits mine, but no train: for one give dataset\[\"mine\"\]",
        ),
        (lambda: rows(words=CAPTIONS).with_transform(lambda batch: batch), "Dataset has a transform, .*with_format"),
        (lambda: open_source(rows(words=CAPTIONS)), "Dataset is a source already: give it as it is"),
        (lambda: [{"photo": IMAGES[0]}], "a list is no source: open it with hf_clip.data.open_source"),
    ],
)
def test_what_cannot_be_told_is_refused(given, message):
    with pytest.raises(InputError, match=message) as raised:
        open_source(given())
    assert "\n" not in str(raised.value)


def test_the_way_out_where_two_columns_fit():
    two = rows(mask=IMAGES[::-1], words=CAPTIONS, file=["x", "y", "z", "w"])
    source = open_source(two, image_column="mask", caption_column="file")
    assert (source.captions(1), source.caption_column) == (["y"], "file")
    assert CaptionedImages(source, PROCESSOR)[0]["pixel_values"].mean() > 0, "the brightest is the first mask"
    with pytest.raises(TypeError, match="unexpected keyword argument 'imagecolumn'"):
        open_source(two, imagecolumn="mask")


def test_a_caption_column_of_an_unknown_name_is_said(caplog):
    open_source(rows(sentence=["a", "b", "c", "d"]))
    assert "captions are read from 'sentence', its only column of texts; for another set caption_column" in caplog.text


def test_texts_of_an_unknown_name_beside_classes_are_no_captions_by_themselves(caplog):
    """Such as the names of files."""
    both = rows(image_id=[f"IMG_{i}" for i in range(4)], kind=[0, 1, 0, 1])
    message = "Dataset: captions may be image_id, or the classes of kind: set caption_column or label_column"
    for labels_required in (False, True):
        with pytest.raises(InputError, match=message):
            open_source(both, labels_required=labels_required)
    assert open_source(both, label_column="kind").captions(1) == ["dog"]
    assert "captions are the classes of 'kind'; for texts set caption_column" in caplog.text
    assert open_source(both, caption_column="image_id").captions(1) == ["IMG_1"]
    assert open_source(both, caption_column="").captions(1) == ["dog"]
    assert open_source(both, label_column="").captions(1) == ["IMG_1"]
    assert open_source(both, captions_required=False, labels_required=True).caption_column is None


def test_the_splits_of_a_dict_are_chosen_as_those_of_a_folder():
    splits = datasets.DatasetDict(train=rows(words=CAPTIONS), test=rows(words=CAPTIONS).select([3]))
    assert (len(open_source(splits)), open_source(splits).split) == (4, "train")
    assert open_source(splits, split=("test", "validation")).captions(0) == CAPTIONS[3]
    assert len(open_source(splits, split="train+test")) == 5
    with pytest.raises(InputError, match="has no splits, so no 'test'"):
        open_source(splits["train"], split="test")


@pytest.mark.parametrize("setting", [{"streaming": True}, {"data_config": "small"}])
def test_what_is_open_already_cannot_be_opened_otherwise(setting):
    with pytest.raises(InputError, match=f"Dataset is open already, which {next(iter(setting))} cannot change"):
        open_source(rows(words=CAPTIONS), **setting)


def test_rows_in_another_format_and_order_are_rows():
    chosen = rows(words=CAPTIONS).with_format("numpy").select([2, 0])
    pairs = TrainingPairs(open_source(chosen), PROCESSOR, Augmentation())
    assert [pairs[row]["captions"][0][-1] for row in range(2)] == ["2", "0"]


def test_columns_that_a_format_hides_stay_hidden():
    """Of two columns of texts one is meant, then."""
    two = rows(words=CAPTIONS, file=["x"] * 4)
    assert open_source(two.with_format(None, columns=["photo", "words"])).caption_column == "words"
    assert open_source(two.select_columns(["photo", "file"]).with_format("numpy")).caption_column == "file"
    with pytest.raises(InputError, match="any of words, file may be the caption"):
        open_source(two.with_format(None, columns=["photo", "words"], output_all_columns=True))


def test_it_is_known_by_its_content():
    one, same, other = rows(words=CAPTIONS), rows(words=CAPTIONS), rows(words=CAPTIONS).select([0, 1, 2])
    facts = [data_facts(open_source(each)) for each in (one, same, other)]
    assert facts[0] == facts[1]
    assert facts[0]["fingerprint"] != facts[2]["fingerprint"]
    assert sorted(map(len, split_by_image(open_source(one), 0.25))) == [1, 3]


def test_paths_under_a_known_name_are_images_and_no_captions(tmp_path):
    IMAGES[3].save(tmp_path / "3.png")
    paths = datasets.Dataset.from_dict({"file_name": [str(tmp_path / "3.png")], "words": ["a 3"]})
    item = CaptionedImages(open_source(paths), PROCESSOR)[0]
    assert (item["captions"], item["skipped"]) == (["a 3"], [])
