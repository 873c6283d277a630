"""The toy's model: an autoencoder of thumbnails. This file travels with what is saved."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput


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


ToyConfig.register_for_auto_class()
ToyAutoencoder.register_for_auto_class("AutoModel")
