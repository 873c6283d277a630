"""8-bit pixels, normalised as a batch, are what the image processors of transformers give by themselves."""

import pytest
import torch
import transformers
from PIL import Image

from hf_clip.data.pixels import PixelNormalization, eight_bit_pixels, processed_pixels, shortest_side
from hf_clip.models.image_processors import square_image_processor

# What each has at least for the shorter side, before it crops.
PROCESSORS = {
    "clip": (transformers.CLIPImageProcessor(), 224),
    "vit": (transformers.ViTImageProcessor(), 224),
    "siglip": (transformers.SiglipImageProcessor(), 224),
    "bit": (transformers.BitImageProcessor(), 224),
    "convnext": (transformers.ConvNextImageProcessor(), 384),
    "convnext, cropped": (transformers.ConvNextImageProcessor(size={"shortest_edge": 224}, crop_pct=0.875), 256),
    "square": (square_image_processor(96), 96),
    "squeezed": (transformers.ViTImageProcessor(size={"height": 64, "width": 96}), 96),
    "without a mean": (transformers.CLIPImageProcessor(do_normalize=False), 224),
    "not rescaled": (transformers.CLIPImageProcessor(do_rescale=False, image_mean=[99] * 3, image_std=[50] * 3), 224),
    "another scale": (transformers.CLIPImageProcessor(rescale_factor=1 / 127.5, image_mean=[1] * 3), 224),
    "its own resizing": (transformers.LevitImageProcessor(), None),
    "not resized": (transformers.CLIPImageProcessor(do_resize=False), None),
}


def noise(width: int = 300, height: int = 410, seed: int = 1) -> Image.Image:
    pixels = torch.randint(256, (height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    return Image.fromarray(pixels.numpy())


@pytest.mark.parametrize("name", PROCESSORS)
def test_normalising_later_is_what_the_processor_does_at_once(name):
    image_processor, _ = PROCESSORS[name]
    normalize = PixelNormalization.of(image_processor)
    pictures = [noise(seed=seed) for seed in (1, 2)]
    pixels = torch.stack([eight_bit_pixels(image_processor, picture) for picture in pictures])
    assert pixels.dtype == torch.uint8
    expected = torch.stack([processed_pixels(image_processor, picture) for picture in pictures])
    torch.testing.assert_close(normalize(pixels), expected, rtol=0, atol=1e-6)
    channels_last = normalize(pixels.contiguous(memory_format=torch.channels_last))
    assert channels_last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(channels_last, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", PROCESSORS)
def test_pixels_are_to_the_bit_what_the_processor_gives(name):
    """They reach it without copies, in another layout; `PilBackend` and processors of other models' too."""
    image_processor, _ = PROCESSORS[name]
    for size in ((1, 1), (3, 2), (40, 36), (640, 427), (225, 224)):
        picture = noise(*size)
        settings = {"input_data_format": "channels_last", "return_tensors": "pt"}
        expected = image_processor(images=picture, **settings)["pixel_values"][0]
        found = processed_pixels(image_processor, picture)
        assert torch.equal(found, expected)
        assert (found.dtype, found.is_contiguous()) == (expected.dtype, True)
        eight_bit = image_processor(images=picture, do_rescale=False, do_normalize=False, **settings)
        assert torch.equal(eight_bit_pixels(image_processor, picture), eight_bit["pixel_values"][0])


def test_a_processor_that_reads_pixels_in_its_own_way_is_left_alone():
    class Red(transformers.CLIPImageProcessor):
        def process_image(self, image, **settings):
            return super().process_image(image, **settings)[:1].expand(3, -1, -1)

    expected = Red()(images=noise(), return_tensors="pt")["pixel_values"][0]
    assert torch.equal(processed_pixels(Red(), noise()), expected)
    assert torch.equal(
        processed_pixels(transformers.CLIPImageProcessorPil(), noise()),
        transformers.CLIPImageProcessorPil()(images=noise(), return_tensors="pt")["pixel_values"][0],
    )


def test_imagenet_by_hand():
    pixels = torch.tensor([255, 0, 51], dtype=torch.uint8).view(1, 3, 1, 1)
    found = PixelNormalization.of(square_image_processor(8))(pixels).flatten()
    expected = [(1 - 0.485) / 0.229, -0.456 / 0.224, (0.2 - 0.406) / 0.225]
    torch.testing.assert_close(found, torch.tensor(expected))
    assert PixelNormalization.of(square_image_processor(8))(pixels[:0]).shape == (0, 3, 1, 1)


class Brighter(transformers.CLIPImageProcessor):
    def rescale_and_normalize(self, images, *settings):
        return super().rescale_and_normalize(images, *settings) + (0.1 if settings[0] else 0)


@pytest.mark.parametrize(
    "image_processor",
    [
        Brighter(),
        transformers.EfficientNetImageProcessor(),  # moves pixels to -1 … 1
        transformers.Siglip2ImageProcessor(),  # gives patches
        transformers.CLIPImageProcessor(do_rescale=False, do_normalize=False),  # nothing is left to do
    ],
)
def test_what_ends_otherwise_is_not_taken_apart(image_processor):
    assert PixelNormalization.of(image_processor) is None


@pytest.mark.parametrize("name", PROCESSORS)
def test_the_side_that_a_processor_resizes_to(name):
    image_processor, side = PROCESSORS[name]
    assert shortest_side(image_processor) == side
