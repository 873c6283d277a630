"""What a trainer of dual encoders is given beside model, arguments and loss, by name and type."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch.utils.data import Dataset
from transformers import EvalPrediction, TrainerCallback

from ..data.columns import ColumnSettings
from ..data.given import Data
from ..models.modeling_hf_clip import HFClipModel
from ..models.processing_hf_clip import HFClipProcessor
from .facts import Origin

Trained: TypeAlias = Data | Dataset
Optimizers: TypeAlias = tuple[torch.optim.Optimizer | None, torch.optim.lr_scheduler.LRScheduler | None]


class TrainerParts(ColumnSettings, total=False):
    """Keyword arguments of `HFClipTrainer`: those of transformers' `Trainer`, columns, and the origin."""

    data_collator: Callable[[list[Any]], Mapping[str, Any]] | None
    train_dataset: Trained | None
    eval_dataset: Trained | Mapping[str, Trained] | None
    processing_class: HFClipProcessor | None
    model_init: Callable[..., HFClipModel] | None
    compute_loss_func: Callable[..., torch.Tensor] | None
    compute_metrics: Callable[[EvalPrediction], dict[str, Any]] | None
    callbacks: list[TrainerCallback] | None
    optimizers: Optimizers
    optimizer_cls_and_kwargs: tuple[type[torch.optim.Optimizer], dict[str, Any]] | None
    preprocess_logits_for_metrics: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None
    origin: Origin | None
