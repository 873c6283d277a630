"""A draw of images and a draw of captions: apart, each is what both are together."""

import random

import pytest
import torch
from conftest import write_pictures

from hf_clip.core.digests import content_id
from hf_clip.data.augmentation import Augmentation
from hf_clip.data.dataset import CaptionedImages, ImageRows, TrainingImages, TrainingPairs
from hf_clip.data.draws import CaptionDraw, number_of
from hf_clip.data.sources import open_source
from hf_clip.models.image_processors import square_image_processor


@pytest.fixture
def source(tmp_path):
    return open_source(write_pictures(tmp_path / "pictures", captions_each=3))


def same_but_for_captions(plain: dict, captioned: dict) -> bool:
    assert "captions" not in plain
    assert torch.equal(plain.pop("pixel_values"), captioned.pop("pixel_values"))
    del captioned["captions"]
    return plain == captioned


def test_images_alone_are_drawn_as_with_captions(source):
    """And as the evaluation sees them, without either draw."""
    parts = (source, square_image_processor(16))
    settings = Augmentation(flip=0.5, color_jitter=0.4)
    images, pairs = TrainingImages(*parts, settings, seed=3), TrainingPairs(*parts, settings, seed=3)
    seen = set()
    for epoch in range(3):
        images.set_epoch(epoch)
        pairs.set_epoch(epoch)
        seen.add(images[2]["pixel_values"].float().mean().item())
        assert same_but_for_captions(images[2], pairs[2])
    assert len(seen) > 1
    assert same_but_for_captions(ImageRows(*parts)[2], CaptionedImages(*parts)[2])


def test_a_caption_is_drawn_from_seed_epoch_and_row():
    choose, captions = CaptionDraw(7), ["a", "b", "c"]
    drawn = [choose(captions, row=5, epoch=epoch) for epoch in range(20)]
    assert set(drawn) == set(captions)
    assert drawn == [random.Random(content_id(f"7-{epoch}-5".encode())).choice(captions) for epoch in range(20)]
    assert choose(["only"], 5, 0) == "only"
    assert len({number_of(*key) for key in ((7, 5, 0), (7, 0, 5), (8, 5, 0), (7, 5, 1))}) == 4


def test_images_need_no_captions_and_pairs_do(tmp_path):
    folder = write_pictures(tmp_path / "bare")
    (folder / "metadata.jsonl").unlink()
    bare = open_source(folder, captions_required=False)
    parts = (bare, square_image_processor(16), Augmentation())
    assert TrainingImages(*parts)[0].keys() == {"row", "pixel_values", "image_id", "skipped"}
    with pytest.raises(ValueError, match="was opened for its pictures alone: training needs captions"):
        TrainingPairs(*parts)
