"""hf_clip's data sets in training loops of one's own: bare torch, accelerate, transformers' Trainer.

    python scripts/own_loops.py torch microsoft/resnet-50 google-bert/bert-base-uncased pictures/train

Each trains on whatever `open_source` opens and ends with the losses of its steps. `HFClipTrainer` does more: frozen
towers, rates by part, the gradient cache, retrieval while training, an exact resume. The batches are the same.
"""

import argparse
from collections.abc import Callable
from typing import Any

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments

from hf_clip import HFClipCollator, HFClipModel, HFClipProcessor, create_model_and_processor
from hf_clip.data import Augmentation, TrainingPairs, open_source
from hf_clip.training.distributed import global_contrastive_loss


def train_with_torch(
    model: HFClipModel, processor: HFClipProcessor, pairs: TrainingPairs, epochs: int = 2, batch_size: int = 64
) -> list[float]:
    """One process. Images and captions that come twice in a batch are no negatives of each other."""
    loader = DataLoader(
        pairs, batch_size=batch_size, shuffle=True, drop_last=True, collate_fn=HFClipCollator(processor)
    )
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=5e-5)
    losses = []
    for epoch in range(epochs):
        pairs.set_epoch(epoch)  # other captions and crops
        for batch in loader:
            inputs = {name: batch[name].to(model.device) for name in processor.model_input_names if name in batch}
            output = model(**inputs, return_logits=False)
            ids = (batch[name].to(model.device) for name in ("image_ids", "caption_ids"))
            loss = global_contrastive_loss(output, model.get_loss(), *ids)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            clamp_temperature(model)
            losses.append(loss.item())
    return losses


def train_with_accelerate(
    model: HFClipModel, processor: HFClipProcessor, pairs: TrainingPairs, epochs: int = 2, batch_size: int = 64
) -> list[float]:
    """Any number of processes, as `accelerate launch` starts them: negatives are the pairs of all of them."""
    accelerator = Accelerator()
    loader: Any = DataLoader(
        pairs, batch_size=batch_size, shuffle=True, drop_last=True, collate_fn=HFClipCollator(processor)
    )
    optimizer: Any = torch.optim.AdamW(model.train().parameters(), lr=5e-5)
    parallel, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    losses = []
    for epoch in range(epochs):
        pairs.set_epoch(epoch)
        for batch in loader:
            inputs = {name: batch[name] for name in processor.model_input_names if name in batch}
            output = parallel(**inputs, return_logits=False)
            loss = global_contrastive_loss(output, model.get_loss(), batch["image_ids"], batch["caption_ids"])
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            clamp_temperature(model)
            losses.append(loss.item())
    return losses


def train_with_transformers(
    model: HFClipModel, processor: HFClipProcessor, pairs: TrainingPairs, args: TrainingArguments
) -> list[float]:
    """The plain Trainer, of one process: the loss is the model's own, which counts every other pair as a negative.

    Args:
        args: with `remove_unused_columns=False`; without it the Trainer takes the captions out of the items.
    """
    trainer = Trainer(model, args, train_dataset=pairs, data_collator=with_loss(processor), processing_class=processor)
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def with_loss(processor: HFClipProcessor) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
    """Batches of what the model takes, which ask it for its loss."""
    collator = HFClipCollator(processor)

    def collate(items: list[dict[str, Any]]) -> dict[str, Any]:
        batch = collator(items)
        return {name: batch[name] for name in processor.model_input_names if name in batch} | {"return_loss": True}

    return collate


@torch.no_grad()
def clamp_temperature(model: HFClipModel) -> None:
    """Keeps 1/temperature at or below its cap, after a step."""
    if model.config.logit_scale_max is not None:
        model.logit_scale.clamp_(max=model.config.logit_scale_max)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("loop", choices=["torch", "accelerate", "transformers"])
    parser.add_argument("vision_model")
    parser.add_argument("text_model")
    parser.add_argument("data")
    given = parser.parse_args()
    model, processor = create_model_and_processor(given.vision_model, given.text_model)
    pairs = TrainingPairs(open_source(given.data), processor.image_processor, Augmentation())
    if given.loop == "transformers":
        losses = train_with_transformers(
            model, processor, pairs, TrainingArguments("own_loop", remove_unused_columns=False, logging_steps=1)
        )
    else:
        losses = {"torch": train_with_torch, "accelerate": train_with_accelerate}[given.loop](model, processor, pairs)
    print(f"loss: {losses[0]:.3f} at first, {losses[-1]:.3f} in the end")


if __name__ == "__main__":
    main()
