"""Batches of a collator of one's own: what they lack is taken from the items, or else from the pixels and tokens."""

import torch

from hf_clip.core.digests import content_id
from hf_clip.data.foreign import CompletedBatches, completed

SKIPPED = (3, "3.png", "cannot be decoded")


def item(row: int, image_id: int | None, skipped=()) -> dict:
    read = {} if image_id is None else {"image_id": image_id, "pixel_values": torch.rand(3, 4, 4)}
    return {"row": row, "captions": [f"caption {row}"], "skipped": list(skipped)} | read


def plain(items: list) -> dict:
    """As one is written that knows nothing of ours, and takes out what it does not know."""
    for each in items:
        each.pop("skipped")
    pixels = [each["pixel_values"] for each in items if "pixel_values" in each]
    return {"pixel_values": torch.stack(pixels), "input_ids": torch.tensor([[row, 1] for row in range(len(pixels))])}


def test_items_say_what_was_skipped_and_which_images_are_the_same():
    batch = CompletedBatches(plain)([item(0, 7), item(1, 8), item(2, 7, [SKIPPED])])
    assert batch["skipped"] == [SKIPPED]
    assert batch["image_ids"].tolist() == [7, 8, 7], "augmented pixels differ, and the file is one"


def test_an_image_that_cannot_be_read_has_no_id():
    batch = CompletedBatches(plain)([item(0, 7), item(3, None, [SKIPPED]), item(4, 9)])
    assert (batch["skipped"], batch["image_ids"].tolist()) == ([SKIPPED], [7, 9])


def test_what_the_collator_says_stays():
    said = {"image_ids": torch.tensor([1, 2]), "skipped": []}
    batch = CompletedBatches(lambda items: plain(items) | said)([item(0, 7), item(1, 8, [SKIPPED])])
    assert (batch["image_ids"].tolist(), batch["skipped"]) == ([1, 2], [])


def test_of_other_images_than_the_items_the_pixels_are_asked():
    pixels = torch.rand(1, 3, 4, 4)
    batch = CompletedBatches(lambda items: {"pixel_values": pixels, "input_ids": torch.ones(1, 2).long()})(
        [item(0, 7), item(1, 8, [SKIPPED])]
    )
    assert batch["image_ids"].tolist() == [content_id(pixels.numpy().tobytes())]
    assert batch["skipped"] == [SKIPPED]


def test_items_of_ones_own_may_call_anything_skipped():
    batch = CompletedBatches(lambda items: {"pixel_values": torch.rand(1, 3, 4, 4), "input_ids": torch.ones(1, 2)})(
        [{"skipped": True}]
    )
    assert batch["skipped"] == []


def test_pixels_that_numpy_has_no_kind_for():
    pixels = torch.tensor([1.0, 2.0, 1.0], dtype=torch.bfloat16)[:, None, None, None].expand(3, 3, 2, 2)
    one, two, three = completed({"pixel_values": pixels, "input_ids": torch.ones(3, 2).long()})["image_ids"].tolist()
    assert one == three != two
