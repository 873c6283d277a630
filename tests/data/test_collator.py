"""Batches: padded to their longest caption, cut captions counted, ids that agree in every process."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import SAME, write_pictures
from transformers import ByT5Tokenizer

from hf_clip import HFClipProcessor
from hf_clip.core.digests import content_id
from hf_clip.core.errors import InputError
from hf_clip.data.augmentation import Augmentation
from hf_clip.data.collator import HFClipCollator, ImageCollator
from hf_clip.data.dataset import CaptionedImages, TrainingPairs
from hf_clip.data.sources import open_source
from hf_clip.models.image_processors import square_image_processor


def collator(tokenizer, max_length: int | None = None, padding: str = "longest") -> HFClipCollator:
    return HFClipCollator(HFClipProcessor(square_image_processor(16), tokenizer, padding, max_length))


def item(row: int, *captions: str, image_id: int = 0) -> dict:
    return {"row": row, "pixel_values": torch.full((3, 2, 2), float(row)), "captions": list(captions),
            "image_id": image_id, "skipped": []}  # fmt: skip


def broken(row: int) -> dict:
    return {"row": row, "captions": ["x"], "skipped": [(row, f"{row}.png", "the file is empty")]}


def test_padded_to_the_longest_of_the_batch(tokenizer):
    # A letter is a token; [CLS] and [SEP] go around: 2 + 1, 2 + 4.
    batch = collator(tokenizer, max_length=40)([item(0, "a"), item(1, "abcd")])
    assert batch["input_ids"].shape == (2, 6)
    assert batch["attention_mask"].sum(1).tolist() == [3, 6]
    assert batch["captions_cut"].tolist() == [False, False]


@pytest.mark.parametrize(("max_length", "cut"), [(6, 0), (5, 1), (4, 3), (3, 3), (2, 4)])
def test_cut_captions_are_counted(tokenizer, max_length, cut):
    batch = collator(tokenizer, max_length)([item(0, "a", "abc"), item(1, "xyz", "abcd")])
    assert batch["captions_cut"].sum() == cut
    assert batch["input_ids"].shape == (4, max_length)


def test_counts_rows_and_what_was_left_out(tokenizer):
    batch = collator(tokenizer)([item(5, "a", "b"), broken(6), item(9, "c")])
    assert batch["rows"].tolist() == [5, 9]
    assert batch["caption_counts"].tolist() == [2, 1]
    assert batch["pixel_values"][:, 0, 0, 0].tolist() == [5, 9]
    assert tokenizer.batch_decode(batch["input_ids"], skip_special_tokens=True) == ["a", "b", "c"]
    assert batch["skipped"] == [(6, "6.png", "the file is empty")]


@pytest.mark.parametrize("items", [[], [broken(6), broken(7)]])
def test_a_batch_without_a_readable_picture_has_all_keys_and_no_rows(items, tokenizer):
    batch = collator(tokenizer)(items)
    full = collator(tokenizer)([item(0, "a")])
    assert batch.pop("skipped") == [entry for broken_item in items for entry in broken_item["skipped"]]
    assert full.pop("skipped") == []
    assert set(batch) == set(full)
    for name, values in batch.items():
        assert values.dtype == full[name].dtype
        assert values.shape == {"pixel_values": (0, 3, 1, 1)}.get(name, (0, 1)[: full[name].ndim])


def test_pictures_alone_have_no_tokens(tokenizer):
    batch = collator(tokenizer)([item(5), item(6)])
    assert set(batch).isdisjoint(tokenizer.model_input_names)
    assert (batch["rows"].tolist(), batch["caption_counts"].tolist(), batch["caption_ids"].tolist()) == (
        [5, 6],
        [0, 0],
        [],
    )
    assert "input_ids" in collator(tokenizer)([item(5), item(6, "a")])


def test_padded_to_the_full_length_where_the_tower_wants_it(tokenizer):
    batch = collator(tokenizer, max_length=9, padding="max_length")([item(0, "a", "abc")])
    assert batch["input_ids"].shape == (2, 9)
    assert batch["attention_mask"].sum(1).tolist() == [3, 5]


@pytest.mark.parametrize(("max_length", "cut"), [(6, 0), (5, 1), (4, 1), (3, 2)])
def test_cut_captions_are_counted_for_a_tokenizer_written_in_python(max_length, cut):
    # A byte is a token; one more at the end: 3, 4, 6.
    batch = collator(ByT5Tokenizer(), max_length)([item(0, "ab", "äc"), item(1, "abcde")])
    assert batch["captions_cut"].sum() == cut
    assert batch["input_ids"].shape == (3, max_length)


def test_ids_are_equal_for_equal_content_alone(tmp_path, tokenizer):
    folder = write_pictures(tmp_path / "a", count=4)
    (folder / "2.png").write_bytes((folder / "0.png").read_bytes())
    (folder / "metadata.jsonl").write_text(
        "".join(f'{{"file_name": "{i}.png", "caption": "{text}"}}\n' for i, text in enumerate("xyzx"))
    )
    items = CaptionedImages(open_source(folder), square_image_processor(16))
    batch = collator(tokenizer)([items[row] for row in range(4)])
    for ids, same in (("image_ids", (0, 2)), ("caption_ids", (0, 3))):
        values = batch[ids]
        assert values.dtype == torch.int64
        equal = {(a, b) for a in range(4) for b in range(a + 1, 4) if values[a] == values[b]}
        assert equal == {same}


def equal_ids(collator, captions) -> list[int]:
    """For each caption the place of the first one that is the same."""
    ids = collator.tokenize(captions).ids.tolist()
    return [ids.index(each) for each in ids]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("padding", ["longest", "max_length"])
@pytest.mark.parametrize("names", [["input_ids", "attention_mask", "token_type_ids"], ["input_ids"]])
def test_captions_are_the_same_where_the_tower_reads_the_same_tokens(side, padding, names, tokenizer):
    tokenizer.padding_side, tokenizer.model_input_names = side, names
    collate = collator(tokenizer, 9, padding)
    assert equal_ids(collate, [*SAME, "red b", "re da", "reda"]) == [0] * 8 + [8, 9, 10]
    # Beyond the cut: seven letters are read.
    assert equal_ids(collate, ["abcdefg", "abcdefgh", "abcdefg h", "abcdef", "abcdef g"]) == [0, 0, 0, 3, 4]
    assert collate.tokenize(["abcdefg", "abcdefgh"]).cut.tolist() == [False, True]
    # Whatever else is in the batch.
    assert collate.tokenize(["red a"]).ids.item() == collate.tokenize(["abcdefgh", "Red a"]).ids[1]
    read = collate.tokenize(["red a", "abcdefgh"])
    assert set(read.tokens) == set(names)
    assert read.lengths.tolist() == [6, 9]
    assert equal_ids(collate, ["1", "2"]) == [0, 0], "both are unknown"


def test_captions_that_a_tokenizer_written_in_python_reads_alike():
    # Bytes: nothing is dropped but what is beyond the cut.
    assert equal_ids(collator(ByT5Tokenizer(), 4), ["abc", "abcd", "Abc", "abc\n", "ab"]) == [0, 0, 2, 0, 4]


def test_a_case_that_the_tokenizer_keeps_makes_another_caption(tokenizer):
    tokenizer.backend_tokenizer.normalizer = None
    assert equal_ids(collator(tokenizer), ["red", "Red", "red "]) == [0, 1, 0]


def test_ids_are_equal_in_another_process(pictures, tokenizer, tmp_path):
    HFClipProcessor(square_image_processor(16), tokenizer).save_pretrained(tmp_path / "processor")
    code = f"""
from hf_clip import HFClipCollator, HFClipProcessor
from hf_clip.data.images import read_image
collator = HFClipCollator(HFClipProcessor.from_pretrained("{tmp_path / "processor"}"))
print(read_image("{pictures / "0.png"}")[1], *collator.tokenize(["kin", "kind"]).ids.tolist())
"""
    environment = os.environ | {"PYTHONHASHSEED": "123"}
    out = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout
    items = CaptionedImages(open_source(pictures), square_image_processor(16))
    batch = collator(tokenizer)([items[0] | {"captions": ["kind", "kin"]}])
    assert out.split() == [str(each) for each in (batch["image_ids"].item(), *batch["caption_ids"].tolist()[::-1])]
    # [CLS] k ##i ##n [SEP], by their places in the vocabulary.
    assert batch["caption_ids"][1] == content_id(np.array([2, 15, 39, 44, 3], "<i8").tobytes())


def test_a_caption_of_ten_thousand_words_is_cut_and_counted(tokenizer):
    batch = collator(tokenizer, max_length=16)([item(0, "a " * 10_000), item(1, "b")])
    assert batch["input_ids"].shape == (2, 16)
    assert batch["attention_mask"].sum(1).tolist() == [16, 3]
    assert batch["captions_cut"].tolist() == [True, False]


@pytest.mark.parametrize(
    ("captions", "message"),
    [
        (
            ["x", "a \ud83d"],
            r"row 4 has half of a surrogate pair \('.ud83d'\) in a caption, which no tokenizer takes: fix",
        ),
        (["x", "\ude00"], r"row 4 has half of a surrogate pair"),
        (["x", None], "row 4 has NoneType for a caption, not text"),
        ([["x"]], "row 4 has list for a caption, not text"),
        ([7], "row 4 has int for a caption, not text"),
        ("a cat", "row 4 has one text for its captions: give a list of texts"),
    ],
)
def test_captions_that_no_tokenizer_takes(captions, message, tokenizer):
    """Of a data set that somebody wrote; a text in place of a list would be as many captions as it has letters."""
    for each in (tokenizer, ByT5Tokenizer()):
        with pytest.raises(InputError, match=message):
            collator(each)([item(0, "a"), item(3) | {"captions": captions}])


def test_a_character_that_is_nothing_is_a_character(tokenizer):
    assert collator(tokenizer)([item(0, "a\0b")])["input_ids"].shape[0] == 1


def test_texts_that_no_tokenizer_takes(tokenizer):
    with pytest.raises(
        InputError, match=r"text 2 of 2 has half of a surrogate pair \('.udce9'\) in it, which no token"
    ):
        collator(tokenizer).tokenize(["a cat", "caf\udce9"])


# ---- the processor ------------------------------------------------------------------------------------------------


def test_it_reads_captions_as_its_processor_does(tokenizer):
    """Ids and masks, padded to the longest and to a fixed length."""
    captions = ["a", "abcdefgh", "xy"]
    for padding, length in (("longest", None), ("longest", 6), ("max_length", 12)):
        processor = HFClipProcessor(square_image_processor(16), tokenizer, padding, length)
        batch = HFClipCollator(processor)([item(0, *captions)])
        expected = processor(text=captions, return_tensors="pt")
        for name in tokenizer.model_input_names:
            assert torch.equal(batch[name], expected[name]), (padding, length, name)


def test_its_8_bit_pixels_are_normalized_as_its_processor_does(pictures, tokenizer):
    processor = HFClipProcessor(square_image_processor(16), tokenizer)
    pairs = TrainingPairs(open_source(pictures), processor.image_processor, Augmentation(crop_scale=1))
    items = [pairs[row] for row in range(2)]
    expected = [CaptionedImages(pairs.source, processor.image_processor)[row]["pixel_values"] for row in range(2)]
    torch.testing.assert_close(HFClipCollator(processor)(items)["pixel_values"], torch.stack(expected))
    assert HFClipCollator(processor, normalize=False)(items)["pixel_values"].dtype == torch.uint8


def test_a_tower_that_reads_fewer_tokens_is_asked_too(tokenizer):
    processor = HFClipProcessor(square_image_processor(16), tokenizer, max_text_length=12)
    assert [HFClipCollator(processor, length).max_length for length in (8, 40)] == [8, 12]
    assert HFClipCollator(processor).max_length == 12


def test_a_tokenizer_is_no_processor(tokenizer):
    with pytest.raises(InputError, match=r"is given a BertTokenizer\w*: give the model's HFClipProcessor"):
        HFClipCollator(tokenizer)


# ---- images alone -------------------------------------------------------------------------------------------------


def test_a_batch_of_images_is_that_of_pairs_without_the_texts(tokenizer):
    items = [item(0, "a", image_id=3), broken(1), item(2, "b", image_id=4)]
    batch, pairs = ImageCollator()(items), collator(tokenizer)(items)
    assert batch.keys() == {"pixel_values", "image_ids", "rows", "skipped"}
    assert batch["image_ids"].tolist() == [3, 4]
    assert batch["rows"].tolist() == [0, 2]
    assert batch["skipped"] == [(1, "1.png", "the file is empty")]
    assert all(torch.equal(batch[name], pairs[name]) for name in ("pixel_values", "image_ids", "rows"))
    assert ImageCollator()([broken(1)])["pixel_values"].shape == (0, 3, 1, 1)


def test_items_that_a_collator_cannot_take_are_named(tokenizer):
    with pytest.raises(InputError, match=r"ImageCollator gets rows of image, label: wrap them in TrainingImages"):
        ImageCollator()([{"image": 0, "label": 1}])
    bare = item(0)
    del bare["captions"]
    with pytest.raises(InputError, match="gets items without captions, as TrainingImages have: give TrainingPairs"):
        collator(tokenizer)([item(1, "a"), bare])
