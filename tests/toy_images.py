"""A toy family of models of images alone, for what trainers, cards and publishing do for every family."""

from pathlib import Path
from typing import Any

import torch
from toy_hf_clip import ToyAutoencoder, ToyConfig
from transformers import AutoImageProcessor

from hf_clip.core.families import Family, register_family
from hf_clip.data.augmentation import Augmentation
from hf_clip.data.collator import ImageCollator
from hf_clip.data.dataset import ImageRows, TrainingImages
from hf_clip.data.sources import open_source
from hf_clip.models.image_processors import square_image_processor
from hf_clip.publishing.card.facts import CardDetails, CardModel, Example
from hf_clip.publishing.card.family import FamilyCard
from hf_clip.publishing.saved_model import SavedModel
from hf_clip.training.base import BaseTrainer

PARTS = {
    *("model", "model_init", "train_dataset", "eval_dataset", "data_collator", "callbacks", "origin"),
    "compute_metrics",
}


EXAMPLE = """import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel

model = AutoModel.from_pretrained("{name}", trust_remote_code=True).eval()
processor = AutoImageProcessor.from_pretrained("{name}")
inputs = processor(Image.new("RGB", (16, 16), "red"), return_tensors="pt")
with torch.inference_mode():
    print(f"{{model(**inputs).loss:.6f}}")
"""


class ToyCard(FamilyCard):
    """What a family that has a word more to say than its introduction overrides."""

    def examples(self, saved: SavedModel, details: CardDetails, model: CardModel | None) -> list[Example]:
        return [Example("transformers", EXAMPLE.format(name=details.name))]


def open_toy(folder: str) -> tuple[ToyAutoencoder, Any]:
    return ToyAutoencoder.from_pretrained(folder).eval(), AutoImageProcessor.from_pretrained(folder)


TOY = Family(
    model_type="toy_images",
    config=ToyConfig,
    processor=AutoImageProcessor,
    open_model=open_toy,
    card=ToyCard("a toy: it squeezes pictures to thumbnails, and the thumbnails to a few numbers."),
    task="image-feature-extraction",
    tags=("toy",),
    digested=("width",),
)
register_family(TOY)


def toy_model(seed: int = 0) -> ToyAutoencoder:
    torch.manual_seed(seed)
    return ToyAutoencoder(ToyConfig())


def toy_trainer(folder: Path, data: Path, kind: type[BaseTrainer] = BaseTrainer, **settings: Any) -> BaseTrainer:
    """Of a folder of images, of which no caption is read.

    Args:
        settings: of the arguments, or of the trainer.
    """
    args: dict[str, Any] = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 4,
        "num_train_epochs": 2,
        "learning_rate": 1e-2,
        "save_strategy": "no",
        "disable_tqdm": True,
        "logging_steps": 1,
        "use_cpu": True,
    }
    parts = {name: settings.pop(name) for name in PARTS & settings.keys()}
    processor = square_image_processor(16)
    source = open_source(data, captions_required=False)
    training = kind.arguments(**(args | settings))
    usual: dict[str, Any] = {
        "train_dataset": TrainingImages(source, processor, Augmentation(), training.seed),
        "eval_dataset": ImageRows(source, processor),
        "data_collator": ImageCollator(),
        "processing_class": processor,
    }
    if not {"model", "model_init"} & parts.keys():
        parts["model"] = toy_model()
    return kind(args=training, **usual | parts)
