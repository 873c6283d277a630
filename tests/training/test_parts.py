"""What a user of Trainer tries first: rows, collators, arguments and processors of other kinds."""

import datasets
import pytest
import torch
from conftest import tiny_model, write_pictures
from training_runs import make_trainer
from transformers import CLIPConfig, CLIPModel, CLIPProcessor, Trainer, TrainingArguments

from hf_clip import HFClipCollator, HFClipProcessor, HFClipTrainer, HFClipTrainingArguments
from hf_clip.core.errors import InputError
from hf_clip.data import Augmentation, CaptionedImages, TrainingPairs, open_source
from hf_clip.data.foreign import completed
from hf_clip.models.image_processors import square_image_processor


@pytest.fixture
def data(tmp_path):
    return write_pictures(tmp_path / "pictures")


@pytest.fixture
def rows(data):
    return datasets.load_dataset("imagefolder", data_dir=str(data), split="train")


def weights_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


class Own:
    """A collator as a user writes it: pixels and tokens, and no more."""

    def __init__(self, processor, **more):
        self.processor, self.more, self.calls = processor, more, 0

    def __call__(self, items):
        self.calls += 1
        images, captions = [item["image"] for item in items], [item["caption"] for item in items]
        return dict(self.processor(images=images, text=captions, return_tensors="pt")) | self.more


class Unaugmented(TrainingPairs):
    """Our items of the same pixels: what is compared is the rest."""

    def __getitem__(self, row):
        item = CaptionedImages.__getitem__(self, row)
        return item | {"captions": item["captions"][:1]}


@pytest.mark.parametrize("more", [{}, {"return_loss": True}], ids=str)
def test_a_collator_of_one_s_own_trains_what_ours_trains(more, tmp_path, data, rows, processor):
    settings = {"train_sampling_strategy": "sequential", "num_train_epochs": 2, "eval_strategy": "epoch"}
    ours = make_trainer(tmp_path / "ours", data, **settings)
    ours.train_dataset = Unaugmented(ours.train_dataset.source, ours.train_dataset.image_processor, Augmentation())
    ours.train()
    own = make_trainer(
        tmp_path / "own", data, **settings,
        trainer={"train_dataset": rows, "eval_dataset": rows, "data_collator": Own(processor, **more)},
    )  # fmt: skip
    own.train()
    expected = weights_of(ours.model)
    for name, value in weights_of(own.model).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-6, msg=name)
    for one, other in zip(own.state.log_history, ours.state.log_history, strict=True):
        assert "captions_cut" not in one, "nobody has counted them"
        for name in other:
            if "retrieval" in name or name in ("loss", "eval_loss", "eval_images", "eval_captions"):
                assert one[name] == pytest.approx(other[name], rel=1e-4), name


def test_with_a_collator_of_ones_own_a_run_resumes_where_it_was(tmp_path, data, rows, processor):
    def trainer(name):
        own = {"train_dataset": rows, "eval_dataset": None, "data_collator": Own(processor)}
        return make_trainer(
            tmp_path / name, data, trainer=own, num_train_epochs=2, save_strategy="steps", save_steps=3
        )

    whole, resumed = trainer("whole"), trainer("resumed")
    whole.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
    expected = weights_of(whole.model)
    assert all(torch.equal(value, expected[name]) for name, value in weights_of(resumed.model).items())


def test_the_same_tokens_and_the_same_pixels_are_no_negatives():
    pixels, ids = torch.rand(4, 3, 8, 8), torch.tensor([[5, 6, 0], [5, 6, 7], [5, 6, 0], [0, 5, 6]])
    pixels[3] = pixels[1]
    batch = completed({"pixel_values": pixels, "input_ids": ids, "attention_mask": (ids != 0).long()})
    images, captions = batch["image_ids"].tolist(), batch["caption_ids"].tolist()
    assert (images[3], len(set(images))) == (images[1], 3)
    assert captions[0] == captions[2] == captions[3] != captions[1]
    assert (batch["caption_counts"].tolist(), batch["skipped"]) == ([1, 1, 1, 1], [])


def test_padding_is_no_part_of_a_caption():
    ids = torch.tensor([[5, 6]])
    longer = torch.nn.functional.pad(ids, (0, 3))
    one, other = (
        completed({"pixel_values": torch.rand(1, 3, 8, 8), "input_ids": i, "attention_mask": (i != 0).long()})
        for i in (ids, longer)
    )
    assert one["caption_ids"] == other["caption_ids"]


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"pixel_values": torch.rand(2, 3, 8, 8)}, "gives pixel_values: a batch needs input_ids, as a tensor"),
        ({}, "gives nothing: a batch needs pixel_values and input_ids"),
        (
            {"pixel_values": torch.rand(2, 3, 8, 8), "input_ids": [[1], [2]]},
            "gives pixel_values, input_ids: a batch needs input_ids",
        ),
        (
            {"pixel_values": torch.rand(2, 3, 8, 8), "input_ids": torch.ones(2, 3), "labels": torch.ones(2)},
            "gives labels, which nothing here takes",
        ),
        (
            {"pixel_values": torch.rand(2, 3, 8, 8), "input_ids": torch.ones(3, 3)},
            r"gives 3 captions of 2 images: say in caption_counts, \(images,\), whose they are",
        ),
        ([torch.rand(2, 3, 8, 8)], "gives a list: a batch is a dict of pixel_values, input_ids"),
    ],
)
def test_batches_that_cannot_be(batch, message):
    with pytest.raises(InputError, match=f"data_collator {message}"):
        completed(batch)


def test_a_batch_that_leaves_rows_out_must_say_which(tmp_path, data, rows, processor):
    own = Own(processor)
    trainer = make_trainer(
        tmp_path / "run", data, trainer={"eval_dataset": rows, "data_collator": lambda items: own(items[:1])}
    )
    with pytest.raises(InputError, match=r"data_collator gives 1 images of 8 rows: say in rows"):
        trainer.evaluate()


def clip():
    tiny = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return CLIPModel(CLIPConfig(text_config=tiny, vision_config=tiny | {"image_size": 8, "patch_size": 8}))


CLIP_PROCESSOR = CLIPProcessor.__new__(CLIPProcessor)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            lambda p: {"args": TrainingArguments("unused", use_cpu=True)},
            "args are TrainingArguments: give HFClipTrain",
        ),
        (lambda p: {"model": clip()}, "model is a CLIPModel: give an HFClipModel, which .* convert_model of CLIP"),
        (lambda p: {"model": torch.nn.Linear(1, 1)}, "model is a Linear: give an HFClipModel"),
        (lambda p: {"model": "my_clip"}, "model is 'my_clip': open it with AutoModel"),
        (
            lambda p: {"processing_class": None, "data_collator": None},
            "processing_class is missing: give the model's HFClipProcessor",
        ),
        (lambda p: {"processing_class": p.tokenizer}, "processing_class is a BertTokenizer.*: give the model's"),
        (lambda p: {"processing_class": CLIP_PROCESSOR}, "processing_class is a CLIPProcessor: give the model's"),
        (
            lambda p: {"processing_class": HFClipProcessor(square_image_processor(64), p.tokenizer)},
            "train_dataset and processing_class have different image processors",
        ),
        (
            lambda p: {"processing_class": HFClipProcessor(p.image_processor, more_words(p.tokenizer))},
            "processing_class has a tokenizer of 58 tokens, and the text tower knows 57: it is another model's",
        ),
        (
            lambda p: {"data_collator": HFClipCollator(HFClipProcessor(p.image_processor, more_words(p.tokenizer)))},
            "data_collator and processing_class read captions otherwise: leave data_collator out",
        ),
        (
            lambda p: {
                "data_collator": HFClipCollator(HFClipProcessor(p.image_processor, p.tokenizer, "max_length", 64))
            },
            "data_collator and processing_class read captions otherwise",
        ),
        (
            lambda p: {"data_collator": HFClipCollator(p, 20)},
            "data_collator and processing_class read captions otherwise",
        ),
    ],
)
def test_parts_of_another_kind_are_refused(parts, message, tmp_path, data, processor):
    source = open_source(data)
    given = {
        "model": tiny_model(),
        "args": HFClipTrainingArguments(str(tmp_path / "run"), use_cpu=True),
        "train_dataset": TrainingPairs(source, processor.image_processor, Augmentation()),
        "data_collator": HFClipCollator(processor),
        "processing_class": processor,
    } | parts(processor)
    with pytest.raises(InputError, match=message) as raised:
        HFClipTrainer(**given)
    assert "\n" not in str(raised.value)


def more_words(tokenizer):
    import copy

    more = copy.deepcopy(tokenizer)
    more.add_tokens(["unheard"])
    return more


def test_the_collator_of_a_processor_is_the_trainer_s(tmp_path, data, processor):
    """Also where it was given: pixels are normalized on the model's device, and its processor is saved."""
    for parts in ({"processing_class": processor}, {"data_collator": HFClipCollator(processor)}):
        args = HFClipTrainingArguments(str(tmp_path / "run"), use_cpu=True)
        trainer = HFClipTrainer(tiny_model(), args, train_dataset=data, **parts)
        assert trainer.processing_class is trainer.data_collator.processor is processor
        assert (trainer.data_collator.max_length, trainer.data_collator.normalize) == (64, False)


def test_arguments_by_their_places_as_the_trainer_takes_them(tmp_path, data):
    parts = make_trainer(tmp_path / "parts", data)
    names = ("data_collator", "train_dataset", "eval_dataset", "processing_class")
    args = HFClipTrainingArguments(str(tmp_path / "run"), use_cpu=True)
    trainer = HFClipTrainer(tiny_model(), args, *(getattr(parts, name) for name in names))
    assert [getattr(trainer, name) for name in names] == [getattr(parts, name) for name in names]
    assert isinstance(trainer, Trainer)


@pytest.mark.parametrize("entry", ["train", "evaluate"])
def test_rows_of_another_kind_say_what_to_do_with_them(entry, tmp_path, data):
    dataset = [{"image": 1, "caption": "a"}] * 8
    trainer = make_trainer(tmp_path / "run", data, trainer={"train_dataset": dataset, "eval_dataset": dataset})
    with pytest.raises(
        InputError, match=r"rows of image, caption: give them as a datasets\.Dataset, which the trainer"
    ):
        getattr(trainer, entry)()


def test_sets_of_what_is_no_source(rows, processor):
    for given in (rows, "pictures"):
        for make in (lambda given: TrainingPairs(given, processor.image_processor, Augmentation()),
                     lambda given: CaptionedImages(given, processor.image_processor)):  # fmt: skip
            with pytest.raises(
                InputError, match=rf"a {type(given).__name__} is no source: open it with hf_clip\.data"
            ):
                make(given)
