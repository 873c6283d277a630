"""A loop of one's own over our data, as the README shows it, takes the steps that the Trainer takes."""

import pytest
import torch
from conftest import tiny_model, write_pictures
from torch.utils.data import DataLoader
from training_runs import make_trainer

from hf_clip import HFClipCollator
from hf_clip.data import Augmentation, TrainingPairs, open_source
from hf_clip.training.distributed import global_contrastive_loss


def train_in_a_loop(model, processor, train):
    pairs = TrainingPairs(train, processor.image_processor, Augmentation())
    collator = HFClipCollator(processor)
    loader = DataLoader(pairs, batch_size=4, shuffle=True, drop_last=True, collate_fn=collator)
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=5e-5)
    for epoch in range(2):
        pairs.set_epoch(epoch)  # other captions and crops
        for batch in loader:
            inputs = {name: batch[name] for name in ("pixel_values", *processor.tokenizer.model_input_names)}
            output = model(**inputs, return_logits=False)
            loss = global_contrastive_loss(output, model.get_loss(), batch["image_ids"], batch["caption_ids"])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            model.logit_scale.data.clamp_(max=model.config.logit_scale_max)
    return loss


def test_the_loop_of_the_readme_trains(tmp_path, processor):
    model = tiny_model()
    before = {name: value.clone() for name, value in model.named_parameters()}
    loss = train_in_a_loop(model, processor, open_source(write_pictures(tmp_path / "pictures")))
    assert loss.isfinite()
    assert not torch.equal(model.logit_scale, before["logit_scale"])
    assert not torch.equal(model.visual_projection.weight, before["visual_projection.weight"])


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
