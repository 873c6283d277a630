"""Items of training and evaluation: drawn from (seed, epoch, row) alone; broken pictures are named and replaced."""

import dataclasses
import itertools
import json

import pytest
import torch
from conftest import write_pictures
from PIL import Image
from transformers import EfficientNetImageProcessor

from hf_clip.core.errors import InputError
from hf_clip.data.augmentation import Augmentation
from hf_clip.data.dataset import CaptionedImages, TrainingPairs
from hf_clip.data.images import read_image
from hf_clip.data.pixels import PixelNormalization
from hf_clip.data.sources import open_source
from hf_clip.models.image_processors import square_image_processor


def training_pairs(folder, seed: int = 0, **augmentation) -> TrainingPairs:
    return TrainingPairs(open_source(folder), square_image_processor(16), Augmentation(**augmentation), seed=seed)


def drawn(pairs: TrainingPairs, row: int, epoch: int = 0) -> tuple[str, torch.Tensor]:
    pairs.set_epoch(epoch)
    item = pairs[row]
    return item["captions"][0], item["pixel_values"]


def test_evaluation_items_hold_all_captions_and_the_plain_picture(tmp_path):
    item = CaptionedImages(open_source(write_pictures(tmp_path / "a", captions_each=2)), square_image_processor(16))[1]
    assert (item["row"], item["captions"], item["skipped"]) == (1, ["green b", "very green b"], [])
    # ImageNet's statistics; "green" is (0, 128, 0)
    expected = [(value / 255 - mean) / std for value, mean, std in
                zip((0, 128, 0), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)]  # fmt: skip
    torch.testing.assert_close(item["pixel_values"][:, 8, 8], torch.tensor(expected), atol=1e-3, rtol=0)
    assert item["pixel_values"].shape == (3, 16, 16)


def test_training_items_hold_the_bytes_of_the_evaluation_items(pictures):
    item = training_pairs(pictures, crop_scale=1)[1]
    assert item["pixel_values"].dtype == torch.uint8
    assert item["pixel_values"][:, 8, 8].tolist() == [0, 128, 0]
    evaluated = CaptionedImages(open_source(pictures), square_image_processor(16))[1]
    assert item["image_id"] == evaluated["image_id"]
    normalized = PixelNormalization.of(square_image_processor(16))(item["pixel_values"][None])[0]
    assert torch.equal(normalized, evaluated["pixel_values"])


def test_a_processor_with_an_end_of_its_own_is_left_to_it(pictures):
    image_processor = EfficientNetImageProcessor(size={"height": 16, "width": 16})  # moves pixels to -1 … 1 first
    item = TrainingPairs(open_source(pictures), image_processor, Augmentation(crop_scale=1))[1]
    evaluated = CaptionedImages(open_source(pictures), image_processor)[1]
    assert torch.equal(item["pixel_values"], evaluated["pixel_values"])
    assert item["pixel_values"].is_floating_point()


@pytest.mark.parametrize(("reduced", "height"), [(True, 40), (False, 320)])
def test_training_decodes_a_large_jpeg_at_reduced_size_and_evaluation_never(reduced, height, pictures, monkeypatch):
    Image.effect_noise((400, 320), 90).convert("RGB").save(pictures / "0.png", "JPEG")
    pairs = training_pairs(pictures, crop_scale=0.9, zoom=0.5, reduced_decode=reduced)
    decoded = []
    monkeypatch.setattr(pairs.draw, "augment", lambda image: decoded.append(image.size) or image)
    pairs[0]
    assert decoded == [(height * 5 // 4, height)]
    whole, _ = read_image(pictures / "0.png")
    expected = square_image_processor(16)(images=whole, return_tensors="pt")["pixel_values"][0]
    evaluated = CaptionedImages(open_source(pictures), square_image_processor(16))[0]
    assert torch.equal(evaluated["pixel_values"], expected)


@pytest.mark.parametrize("size", [(1, 1), (1, 3), (3, 1), (3, 3), (2, 40)])
def test_a_few_pixels_are_not_taken_for_channels(size, pictures):
    Image.new("RGB", size, (0, 128, 0)).save(pictures / "0.png")
    items = CaptionedImages(open_source(pictures), square_image_processor(16))
    torch.testing.assert_close(items[0]["pixel_values"][:, 8, 8], items[1]["pixel_values"][:, 8, 8])


def test_the_same_seed_epoch_and_row_draw_the_same(tmp_path):
    folder = write_pictures(tmp_path / "a", captions_each=5)
    settings = {"crop_scale": 0.3, "color_jitter": 0.5}
    first = drawn(training_pairs(folder, **settings), 3, epoch=2)
    again = training_pairs(folder, **settings)
    torch.rand(7), drawn(again, 5), drawn(again, 3, epoch=1)  # what went before makes no difference
    assert drawn(again, 3, epoch=2)[0] == first[0]
    assert torch.equal(drawn(again, 3, epoch=2)[1], first[1])


def test_another_epoch_row_or_seed_draws_otherwise(tmp_path):
    pairs = training_pairs(write_pictures(tmp_path / "a", captions_each=5), color_jitter=0.5)
    assert len({drawn(pairs, 3, epoch)[0] for epoch in range(40)}) == 5
    lengths = [len(drawn(pairs, row)[0].split()) for row in range(8)]
    assert len(set(lengths)) > 1
    brightness = {drawn(pairs, 3, epoch)[1].float().mean().item() for epoch in range(5)}
    brightness.add(drawn(training_pairs(tmp_path / "a", seed=1, color_jitter=0.5), 3)[1].float().mean().item())
    assert len(brightness) == 6


def test_drawing_leaves_the_global_generators_alone(pictures):
    pairs = training_pairs(pictures)
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    pairs[0], pairs[1]
    assert torch.equal(torch.rand(2), expected)


def test_workers_that_outlive_an_epoch_see_the_next_one(tmp_path):
    pairs = training_pairs(write_pictures(tmp_path / "a", captions_each=5))
    loader = torch.utils.data.DataLoader(
        pairs, batch_size=8, num_workers=1, persistent_workers=True, collate_fn=lambda items: items
    )
    epochs = []
    for epoch in range(2):
        pairs.set_epoch(epoch)
        (items,) = loader
        epochs.append([item["captions"] for item in items])
    assert epochs[1] == [pairs[row]["captions"] for row in range(8)]
    assert epochs[0] != epochs[1]


def test_the_next_readable_row_takes_the_place_of_a_broken_picture(pictures):
    (pictures / "2.png").write_bytes(b"")
    (pictures / "3.png").unlink()
    (pictures / "7.png").write_bytes((pictures / "6.png").read_bytes()[:50])
    pairs = training_pairs(pictures)
    item = pairs[2]
    assert (item["row"], item["captions"]) == (4, ["black e"])
    assert item["skipped"] == [(2, "2.png", "the file is empty"), (3, "3.png", "No such file or directory")]
    assert (pairs[7]["row"], pairs[7]["skipped"][0][:2]) == (0, (7, "7.png"))
    assert (pairs[1]["row"], pairs[1]["skipped"]) == (1, [])


def test_evaluation_names_a_broken_picture_and_goes_on(pictures):
    (pictures / "2.png").write_bytes(b"")
    item = CaptionedImages(open_source(pictures), square_image_processor(16))[2]
    assert "pixel_values" not in item
    assert item["skipped"] == [(2, "2.png", "the file is empty")]


def test_without_one_readable_picture_training_is_refused(pictures):
    for file in pictures.glob("*.png"):
        file.write_bytes(b"no picture")
    with pytest.raises(
        InputError, match=r"no picture of .*pictures can be read; the first, 5.png: not a whole picture"
    ):
        training_pairs(pictures)[5]


def test_iteration_ends(pictures):
    for items in (training_pairs(pictures), CaptionedImages(open_source(pictures), square_image_processor(16))):
        assert [item["row"] for item in itertools.islice(items, 20)] == list(range(8))


def test_a_picture_three_pixels_high_keeps_its_columns_apart(pictures):
    # (height 3, width 8): taken for channels first it would be 8 pixels by 3 of "channels" 3.
    stripes = Image.new("RGB", (8, 3), "red")
    stripes.paste("blue", (4, 0, 8, 3))
    stripes.save(pictures / "0.png")
    (left, right) = (
        CaptionedImages(open_source(pictures), square_image_processor(16))[0]["pixel_values"][:, 8, x] for x in (2, 13)
    )
    assert left[0] > 2 > 0 > left[2]  # red
    assert right[2] > 2 > 0 > right[0]  # blue


def test_caption_lengths_are_mean_characters(tmp_path):
    captions = [["ab", "abcd"], ["äöü"], ["", "abcdef"][1:], ["a" * 10, "", "b" * 5][:1]]
    rows = [{"image": "a.png", "caption": each} for each in captions]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert lengths(tmp_path / "a.jsonl") == [3, 3, 6, 10]
    (tmp_path / "b.csv").write_text("image,caption\na.png,abc\na.png,ä\n", encoding="utf-8")
    assert lengths(tmp_path / "b.csv") == [3, 1]
    for name in ("emu", "cow", "giraffe"):
        (tmp_path / "classes" / name).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "classes" / name / "0.png")
    assert lengths(tmp_path / "classes") == [3, 3, 7]


def lengths(name) -> list[int]:
    return training_pairs(name).caption_lengths()


def test_lengths_follow_the_rows_of_a_selection(tmp_path):
    (tmp_path / "a.csv").write_text("image,caption\na.png,a\na.png,bb\na.png,ccc\n")
    source = open_source(tmp_path / "a.csv")
    reversed_rows = dataclasses.replace(source, rows=source.rows.select([2, 0]))
    pairs = TrainingPairs(reversed_rows, square_image_processor(16), Augmentation())
    assert pairs.caption_lengths() == [3, 1]


def test_pictures_alone_cannot_be_trained_on(pictures):
    source = open_source(pictures, captions_required=False)
    with pytest.raises(InputError, match="was opened for its pictures alone: training needs captions, or labels"):
        TrainingPairs(source, square_image_processor(16), Augmentation())


def test_errors_of_workers_arrive_as_their_own_line(pictures):
    for file in pictures.glob("*.png"):
        file.write_bytes(b"no picture")
    loader = torch.utils.data.DataLoader(training_pairs(pictures), num_workers=1)
    with pytest.raises(InputError, match=r"^no picture of [^\n]*pictures can be read; the first, [^\n]*$"):
        next(iter(loader))
