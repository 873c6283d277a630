"""Augmentation: each setting does what it says, and the same seed draws the same."""

import numpy as np
import pytest
import torch
from PIL import Image

from hf_clip.core.errors import InputError
from hf_clip.data.augmentation import Augmentation, replayable


def gradient(width: int = 40, height: int = 30) -> Image.Image:
    """A pixel's value is its place."""
    return Image.fromarray(np.stack(np.broadcast_arrays(*np.ogrid[:height, :width], 7), axis=-1).astype(np.uint8))


def draw(seed: int, image: Image.Image | None = None, **settings) -> np.ndarray:
    augment = Augmentation(**{"crop_scale": 1} | settings).build()
    return np.asarray(replayable(augment, image or gradient(), seed))


def test_everything_off_changes_nothing():
    assert (draw(0) == np.asarray(gradient())).all()


def test_a_crop_is_a_window_of_the_picture_at_its_resolution():
    shapes = set()
    for seed in range(20):
        drawn = draw(seed, crop_scale=0.5)
        (top, left, _), (height, width, _) = drawn[0, 0], drawn.shape
        assert (drawn == np.asarray(gradient())[top : top + height, left : left + width]).all()
        assert 0.45 * 1200 <= height * width <= 1200
        shapes.add((height, width))
    assert len(shapes) > 5


def test_flip_mirrors_left_and_right():
    assert (draw(0, flip=1) == np.asarray(gradient())[:, ::-1]).all()
    mirrored = [(draw(seed, flip=0.5)[0, 0, 1] > 0).item() for seed in range(40)]
    assert 10 <= sum(mirrored) <= 30


@pytest.mark.parametrize("setting", [{"rotation": 45}, {"translation": 0.5}, {"zoom": 0.6}])
def test_what_moves_in_from_outside_is_white(setting):
    black = Image.new("RGB", (40, 30))
    assert max(draw(seed, black, **setting).max() for seed in range(5)) == 255
    assert draw(0, Image.new("RGB", (40, 30), "white"), **setting).min() == 255


def test_colour_jitter_changes_colours_in_place():
    drawn = draw(1, Image.new("RGB", (40, 30), (100, 150, 200)), color_jitter=0.5)
    assert drawn.shape == (30, 40, 3)
    assert (drawn == drawn[0, 0]).all()
    assert tuple(drawn[0, 0]) != (100, 150, 200)


def test_grayscale_takes_the_colour_by_its_probability():
    green = Image.new("RGB", (4, 3), (0, 255, 0))
    # ITU-R 601 luma: 0.587 of green
    assert (draw(0, green, grayscale=1) == round(0.587 * 255)).all()
    grey = [draw(seed, green, grayscale=0.5)[0, 0, 0] > 0 for seed in range(40)]
    assert 10 <= sum(grey) <= 30


def test_erasing_blanks_a_rectangle_by_its_probability():
    black = Image.new("RGB", (40, 30))
    drawn = draw(0, black, erasing=1)
    rows, columns = np.nonzero(drawn[:, :, 0])
    top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    assert (drawn[top:bottom, left:right] == 255).all()
    assert drawn.sum() == 3 * 255 * (bottom - top) * (right - left)
    assert 0.01 * 1200 < (bottom - top) * (right - left) < 0.4 * 1200
    erased = [draw(seed, black, erasing=0.5).any() for seed in range(40)]
    assert 10 <= sum(erased) <= 30
    assert len({tuple(draw(seed, black, erasing=1).flat) for seed in range(5)}) == 5


EVERYTHING = {"crop_scale": 0.5, "rotation": 20, "translation": 0.1, "zoom": 0.1, "color_jitter": 0.3, "flip": 0.5,
              "grayscale": 0.5, "erasing": 0.5}  # fmt: skip


def test_the_same_seed_draws_the_same_and_another_draws_otherwise():
    assert (draw(-3, **EVERYTHING) == draw(-3, **EVERYTHING)).all()
    other = draw(4, **EVERYTHING)
    assert other.shape != draw(-3, **EVERYTHING).shape or (other != draw(-3, **EVERYTHING)).any()


def test_global_generators_are_left_alone(monkeypatch):
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    torch.default_generator.manual_seed(5)
    expected = torch.rand(3)
    torch.default_generator.manual_seed(5)
    draw(1, **EVERYTHING)
    with pytest.raises(ZeroDivisionError):
        replayable(lambda image: 1 / 0, gradient(), 1)
    assert (torch.rand(3) == expected).all()
    assert seeded == [], "the GPU's generator drives dropout: seeding it for each picture would repeat the same masks"


def test_small_pictures_survive():
    for size in ((1, 1), (1, 50), (3, 2)):
        assert min(draw(0, Image.new("RGB", size), **EVERYTHING).shape) >= 1


@pytest.mark.parametrize(
    "setting",
    [
        {"crop_scale": 0},
        {"crop_scale": 1.5},
        {"flip": 2},
        {"zoom": 1},
        {"rotation": -1},
        {"flip": float("nan")},
        {"erasing": 1.1},
        {"grayscale": -0.1},
    ],
)
def test_impossible_settings_are_refused(setting):
    name = next(iter(setting))
    with pytest.raises(InputError, match=f"{name} must be from .* to .*, not {setting[name]}"):
        Augmentation(**setting)


@pytest.mark.parametrize(
    ("settings", "side"),
    [
        ({"crop_scale": 1}, 100),
        ({"crop_scale": 1, "zoom": 0.5}, 150),
        ({"crop_scale": 1, "rotation": 90, "translation": 0.5}, 100),
        # Of a square of side s, a crop of 12/100 of the area, 3 : 4, has the sides 0.3 s and 0.4 s.
        ({"crop_scale": 0.12}, 334),
        ({"crop_scale": 0.12, "zoom": 0.2}, 400),
        ({"crop_scale": 0.12, "reduced_decode": False}, None),
    ],
)
def test_enough_of_a_picture_is_decoded_for_the_smallest_crop(settings, side):
    assert Augmentation(**settings).side_to_decode(100) == side
    assert Augmentation(**settings).side_to_decode(None) is None


@pytest.mark.parametrize(("shape", "largest"), [((1, 1), 70), ((4, 3), 80), ((3, 4), 80), ((5, 1), 150)])
def test_no_crop_is_smaller_than_what_was_decoded_for_it(shape, largest):
    settings = Augmentation(crop_scale=0.2)
    side = settings.side_to_decode(60)
    image = Image.new("RGB", (shape[0] * side // min(shape), shape[1] * side // min(shape)))
    crop = settings.build()
    least = min(min(replayable(crop, image, seed).size) for seed in range(300))
    assert 59 <= least < largest  # a side is rounded
