"""Loops of one's own over our data, as `scripts/own_loops.py` has them, take the steps that a trainer takes."""

import pytest
import torch
from conftest import tiny_model, write_pictures
from own_loops import train_with_accelerate, train_with_torch, train_with_transformers
from training_runs import make_trainer
from transformers import TrainingArguments

from hf_clip import HFClipCollator
from hf_clip.data import Augmentation, TrainingPairs, open_source
from hf_clip.training.distributed import global_contrastive_loss


@pytest.fixture
def pairs(tmp_path, processor):
    source = open_source(write_pictures(tmp_path / "pictures"))
    return TrainingPairs(source, processor.image_processor, Augmentation(crop_scale=1))


def first_loss(model, processor, pairs) -> float:
    """By hand: CLIP's of all 8 pairs, from what `model` gives for what the processor makes of images and captions."""
    inputs = processor(
        images=[str(pairs.source.folder / record["file_name"]) for record in pairs.source.rows],
        text=[pairs.source.captions(row)[0] for row in range(8)],
        return_tensors="pt",
    )
    scores = model(**inputs).logits_per_image.double()
    matching = torch.arange(8)
    both = [torch.nn.functional.cross_entropy(each, matching) for each in (scores, scores.T)]
    return (sum(both) / 2).item()


def trained(loop, model, processor, pairs, tmp_path) -> list[float]:
    torch.manual_seed(0)
    if loop is not train_with_transformers:
        return loop(model, processor, pairs, epochs=6, batch_size=8)
    args = TrainingArguments(
        str(tmp_path / "run"), remove_unused_columns=False, logging_steps=1, num_train_epochs=6, use_cpu=True,
        per_device_train_batch_size=8, save_strategy="no", disable_tqdm=True, learning_rate=5e-5, weight_decay=0.01,
        lr_scheduler_type="constant", max_grad_norm=0,
    )  # fmt: skip
    return train_with_transformers(model, processor, pairs, args)


@pytest.mark.parametrize("loop", [train_with_torch, train_with_accelerate, train_with_transformers])
def test_it_begins_with_the_loss_by_hand_and_learns(loop, processor, pairs, tmp_path):
    model = tiny_model().train()
    expected = first_loss(model, processor, pairs)
    losses = trained(loop, tiny_model(), processor, pairs, tmp_path)
    assert losses[0] == pytest.approx(expected, abs=1e-4)
    assert (len(losses), losses[-1] < losses[0] - 0.05) == (6, True), losses


def test_its_pixels_and_its_loss_are_the_trainer_s(tmp_path, processor):
    trainer = make_trainer(tmp_path / "run", write_pictures(tmp_path / "pictures"))
    items = [trainer.train_dataset[row] for row in range(4)]
    eight_bit = trainer.data_collator(items)
    collator = HFClipCollator(processor)
    batch = collator(items)
    assert (eight_bit["pixel_values"].dtype, batch["pixel_values"].dtype) == (torch.uint8, torch.float32)
    torch.testing.assert_close(batch["pixel_values"], trainer.normalized(eight_bit)["pixel_values"])
    inputs = {name: batch[name] for name in ("pixel_values", *processor.tokenizer.model_input_names)}
    model = trainer.model.eval()
    loss = global_contrastive_loss(
        model(**inputs, return_logits=False),
        model.get_loss(),
        image_ids=batch["image_ids"],
        caption_ids=batch["caption_ids"],
    )
    torch.testing.assert_close(trainer.compute_loss(model, dict(eight_bit)), loss)
    torch.testing.assert_close(trainer.compute_loss(model, dict(batch)), loss)  # the Trainer takes such batches too


def test_the_model_says_how_to_get_there(tmp_path, processor):
    pixels = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"pixel_values are torch\.uint8: .*HFClipCollator\(processor\) does"):
        tiny_model()(pixel_values=pixels)
