"""A toy family of models of images alone: an autoencoder of thumbnails, for what the base of all trainers does."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from hf_clip.data.augmentation import Augmentation
from hf_clip.data.collator import ImageCollator
from hf_clip.data.dataset import ImageRows, TrainingImages
from hf_clip.data.sources import open_source
from hf_clip.models.towers import square_image_processor
from hf_clip.training.base import BaseTrainer

PARTS = {"model", "model_init", "train_dataset", "eval_dataset", "callbacks", "origin", "compute_metrics"}


class ToyConfig(PreTrainedConfig):
    model_type = "toy_images"

    def __init__(self, width: int = 8, **kwargs: Any):
        self.width = width
        super().__init__(**kwargs)


class ToyAutoencoder(PreTrainedModel):
    """Squeezes 8 × 8 thumbnails; dropout makes an exact resume hard, BatchNorm has statistics."""

    config_class = ToyConfig

    def __init__(self, config: ToyConfig):
        super().__init__(config)
        self.encoder = nn.Sequential(nn.Linear(192, config.width), nn.BatchNorm1d(config.width), nn.Dropout(0.2))
        self.decoder = nn.Linear(config.width, 192)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.1)
            nn.init.zeros_(module.bias)

    def forward(self, pixel_values: torch.Tensor, return_loss: bool = True) -> ModelOutput:
        thumbnails = functional.adaptive_avg_pool2d(pixel_values, 8).flatten(1)  # (batch, 192)
        return ModelOutput(loss=functional.mse_loss(self.decoder(self.encoder(thumbnails)), thumbnails))


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
