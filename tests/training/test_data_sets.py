"""What a trainer takes as data, and which data set it makes of it."""

import datasets
import pytest
import torch
from conftest import tiny_model, write_labelled_pictures, write_pictures
from torch.utils.data import Subset
from training_runs import make_processor

from hf_clip import HFClipCollator, HFClipTrainer, HFClipTrainingArguments
from hf_clip.core.errors import InputError
from hf_clip.data import Augmentation, CaptionedImages, MixedPairs, StreamedPairs, TrainingPairs, open_source
from hf_clip.models.image_processors import square_image_processor
from hf_clip.training.data_sets import Drawing, training_pairs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two splits, of 8 and 4 images."""
    folder = tmp_path_factory.mktemp("data")
    write_pictures(folder / "train")
    write_pictures(folder / "test", count=4)
    return folder


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    return make_processor(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def rows(folder):
    read = {
        name: datasets.load_dataset("imagefolder", data_dir=str(folder / name))["train"] for name in ("train", "test")
    }
    return datasets.DatasetDict(read)


@pytest.fixture
def make(tmp_path, processor):
    def make(train=None, evaluated=None, **changes) -> HFClipTrainer:
        parts = {name: changes.pop(name) for name in list(changes) if name.endswith(("_column", "_collator"))}
        settings = {"use_cpu": True, "disable_tqdm": True, "save_strategy": "no", "per_device_train_batch_size": 4}
        args = HFClipTrainingArguments(str(tmp_path / "run"), **(settings | changes))
        return HFClipTrainer(
            tiny_model(), args, train_dataset=train, eval_dataset=evaluated, processing_class=processor, **parts
        )

    return make


@pytest.mark.parametrize(
    "given",
    [
        lambda folder, rows: folder / "train",
        lambda folder, rows: str(folder / "train"),
        lambda folder, rows: str(folder),
        lambda folder, rows: open_source(folder / "train"),
        lambda folder, rows: rows["train"],
        lambda folder, rows: rows,
    ],
    ids=["path", "name", "of two splits", "source", "Dataset", "DatasetDict"],
)
def test_the_training_set_is_that_of_its_source(given, folder, rows, make, processor):
    """Item by item, in each epoch: the default augmentation, and the seed of the arguments."""
    made = make(given(folder, rows), seed=3).train_dataset
    expected = TrainingPairs(open_source(folder / "train"), processor.image_processor, Augmentation(), seed=3)
    assert (type(made), len(made)) == (TrainingPairs, 8)
    for epoch in range(2):
        made.set_epoch(epoch)
        expected.set_epoch(epoch)
        for row in (0, 5):
            assert torch.equal(made[row]["pixel_values"], expected[row]["pixel_values"])
            assert made[row]["captions"] == expected[row]["captions"]


@pytest.mark.parametrize("kind", ["folder", "DatasetDict"])
@pytest.mark.parametrize(("chooses", "rows_evaluated"), [(False, 4), (True, 8)])
def test_of_several_splits_evaluation_reads_test_or_what_chooses_a_checkpoint(
    kind, chooses, rows_evaluated, folder, rows, make, tmp_path
):
    if kind == "DatasetDict":
        several = datasets.DatasetDict(train=rows["test"], validation=rows["train"], test=rows["test"])
    else:
        several = tmp_path / "several"
        for name, count in (("train", 2), ("validation", 8), ("test", 4)):
            write_pictures(several / name, count=count)
    best = (
        {"load_best_model_at_end": True, "save_strategy": "epoch", "metric_for_best_model": "loss"} if chooses else {}
    )
    made = make(folder / "train", several, eval_strategy="epoch", **best).eval_dataset
    assert (type(made), len(made)) == (CaptionedImages, rows_evaluated)


def test_evaluation_takes_what_the_constructor_takes(folder, rows, make):
    trainer = make(folder / "train", {"all": folder / "test", "rows": rows["test"]})
    assert list(trainer.eval_dataset) == ["all", "rows"]
    figures = trainer.evaluate()
    assert figures["eval_all_loss"] == figures["eval_rows_loss"]
    for given in (folder / "test", str(folder), rows["test"], rows, open_source(folder / "test")):
        assert trainer.evaluate(given)["eval_loss"] == figures["eval_all_loss"]
        assert len(trainer.predict(given).predictions[0]) == 4
    assert trainer.evaluate("rows")["eval_loss"] == figures["eval_all_loss"]
    with pytest.raises(InputError, match="no data at 'cats'"):
        trainer.evaluate("cats")


def test_an_evaluation_set_of_another_image_size_is_refused_whenever_it_comes(folder, make):
    larger = CaptionedImages(open_source(folder / "test"), square_image_processor(64))
    message = "eval_dataset and processing_class have different image processors"
    for given in (larger, {"larger": larger}):
        with pytest.raises(InputError, match=message):
            make(folder / "train", given)
    trainer = make(folder / "train")
    for entry in (trainer.evaluate, trainer.predict):
        with pytest.raises(InputError, match=message):
            entry(larger)


def test_labels_are_opened_where_a_task_needs_them(tmp_path, folder, make):
    labelled = write_labelled_pictures(tmp_path / "labelled")
    assert make(folder / "train", labelled).eval_dataset.source.label_column is None
    made = make(folder / "train", labelled, eval_tasks=["zero-shot"]).eval_dataset
    assert made.source.label_column == "label"


def test_data_sets_are_left_as_they_are(folder, make, processor):
    pairs = TrainingPairs(open_source(folder / "train"), processor.image_processor, Augmentation())
    part = Subset(CaptionedImages(pairs.source, processor.image_processor), [1, 2])
    trainer = make(pairs, {"part": part})
    assert trainer.train_dataset is pairs
    assert trainer.eval_dataset == {"part": part}


def test_a_stream_trains_for_max_steps(rows, make):
    trainer = make(rows["train"].to_iterable_dataset(num_shards=2), rows["test"], max_steps=3, seed=1, data_seed=5)
    assert isinstance(trainer.train_dataset, StreamedPairs)
    assert trainer.train_dataset.draw.seed == 5
    assert trainer.train().global_step == 3


def own_collator(processor):
    """Of rows as `datasets` gives them."""

    def collate(items):
        images, texts = [item["image"] for item in items], [item["caption"] for item in items]
        return dict(processor(images=images, text=texts, return_tensors="pt"))

    return collate


def test_rows_go_into_a_collator_of_ones_own_as_they_are(rows, make, processor):
    trainer = make(rows, rows, data_collator=own_collator(processor))
    assert trainer.train_dataset[0].keys() == {"image", "caption"}
    assert (len(trainer.train_dataset), len(trainer.eval_dataset)) == (8, 4), "of the dict, train and test"
    assert trainer.evaluate()["eval_images"] == 4


@pytest.mark.parametrize("changed", ["with_format", "with_transform"])
def test_the_format_of_a_dict_s_rows_is_left_to_a_collator_of_ones_own(changed, rows, make, processor):
    collate, seen = own_collator(processor), []

    def note(items):
        seen.extend(sorted(item) for item in items)
        return collate(items)

    ways = {
        "with_format": lambda each: each.add_column("more", [0] * len(each)).with_format(None, ["image", "caption"]),
        "with_transform": lambda each: each.with_transform(lambda batch: batch | {"more": batch["caption"]}),
    }
    changed_rows = datasets.DatasetDict({name: ways[changed](each) for name, each in rows.items()})
    assert make(None, changed_rows, data_collator=note).evaluate()["eval_images"] == 4
    more = ["more"] if changed == "with_transform" else []
    assert seen == [["caption", "image", *more]] * 4


def test_a_name_is_opened_for_a_collator_of_ones_own_too(folder, make, processor):
    ours = HFClipCollator(processor)
    trainer = make(folder / "train", data_collator=lambda items: {
        name: value for name, value in ours(items).items() if name in ("pixel_values", "input_ids", "attention_mask")
    })  # fmt: skip
    assert trainer.train().global_step == 6


def test_columns_are_named_where_two_fit(rows, make):
    def two(name):
        images = list(rows[name]["image"])
        columns = {"image": images, "mask": images, "caption": rows[name]["caption"], "file": ["x"] * len(images)}
        return datasets.Dataset.from_dict(columns)

    with pytest.raises(InputError, match="Dataset: any of image, mask may be the image: set image_column to one"):
        make(two("train"))
    with pytest.raises(InputError, match="Dataset: any of caption, file may be the caption: set caption_column"):
        make(rows["train"], two("test"), image_column="image")
    trainer = make(two("train"), two("test"), image_column="mask", caption_column="file")
    assert trainer.train_dataset.source.image_column == "mask"
    assert trainer.eval_dataset[0]["captions"] == ["x"]
    with pytest.raises(InputError, match="image_column is of data that the trainer opens, and here are none"):
        make(open_source(rows["train"]), image_column="image")


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            lambda rows: (rows["train"].to_iterable_dataset(), None),
            r"\w+ is a stream, which has no length: set max_steps",
        ),
        (
            lambda rows: (rows["train"], rows["test"].to_iterable_dataset()),
            r"\w+ is a stream, and evaluation measures every row of a set once: give a Dataset, such as datasets\.",
        ),
        (
            lambda rows: (rows["train"].remove_columns("caption"), None),
            r"has its images in 'image', and no captions in another column",
        ),
        (
            lambda rows: (rows["train"], rows["test"].remove_columns("caption")),
            r"has its images in 'image', and no captions",
        ),
        (lambda rows: (rows["train"].remove_columns("image"), None), r"has no column of images among caption: make"),
        (
            lambda rows: (rows["train"], datasets.DatasetDict(train=rows["train"])),
            r"has the splits train, but no test or validation: for one give dataset\[\"train\"\]",
        ),
        (lambda rows: ("no/such/folder", None), "no data at 'no/such/folder'"),
        (
            lambda rows: (rows["train"].select([0]), None),
            "has one row: a pair learns from others, so give two or more",
        ),
        (lambda rows: ({"a": rows["train"]}, None), "train_dataset is a dict: give one data set, or several as Mixed"),
        (
            lambda rows: (["a/folder", rows["train"]], None),
            "train_dataset is a list: give one data set, or several as",
        ),
        (
            lambda rows: (rows["train"].to_pandas(), None),
            r"train_dataset is a DataFrame: give datasets\.Dataset",
        ),
        (lambda rows: (rows["train"], rows["test"].to_pandas()), "eval_dataset is a DataFrame: give datasets"),
        (lambda rows: (rows["train"], [rows["test"]]), r'eval_dataset is a list: give several as a dict, \{"name"'),
        (lambda rows: (rows["train"], {}), "eval_dataset is an empty dict: give a data set, or leave it out"),
    ],
)
def test_data_that_will_not_do_are_refused_in_a_line(parts, message, rows, make):
    train, evaluated = parts(rows)
    with pytest.raises(InputError, match=message) as raised:
        make(train, evaluated)
    assert "\n" not in str(raised.value)


def test_a_stream_to_evaluate_on_is_refused_with_a_collator_of_ones_own_too(rows, make, processor):
    with pytest.raises(InputError, match="is a stream, and evaluation measures every row of a set once: give a Data"):
        make(rows["train"], rows["test"].to_iterable_dataset(), data_collator=own_collator(processor))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image_column": "caption"}, "has its images in 'caption', and no captions in image: add a"),
        ({"caption_column": ["caption"]}, "caption_column is a list: give the name of one column"),
    ],
)
def test_columns_that_will_not_do_are_refused_in_a_line(columns, message, rows, make):
    with pytest.raises(InputError, match=message):
        make(rows["train"], **columns)


def test_data_to_open_need_a_processor(folder, tmp_path):
    args = HFClipTrainingArguments(str(tmp_path / "run"), use_cpu=True)
    with pytest.raises(InputError, match="processing_class is missing: give the model's HFClipProcessor"):
        HFClipTrainer(tiny_model(), args, train_dataset=folder / "train", data_collator=lambda items: {})


# ---- of several sources -------------------------------------------------------------------------------------------


def test_several_sources_are_drawn_by_their_weights(tmp_path, processor):
    """6 and 2 pictures at 1 to 3: of 8 items an epoch, 2 are of the first and 6 of the second."""
    sources = [open_source(write_pictures(tmp_path / name, count=n)) for name, n in (("many", 6), ("few", 2))]
    args = HFClipTrainingArguments(str(tmp_path / "run"), use_cpu=True)
    pairs = training_pairs(sources, processor, args, Drawing(weights=[1, 3]))
    assert isinstance(pairs, MixedPairs)
    assert sorted(pairs[position]["row"] >= 6 for position in range(8)) == [False] * 2 + [True] * 6
    assert training_pairs(sources, processor, args).shares == [6, 2]
