"""Pictures with captions: opening sources, decoding, augmenting, batching."""

from .augmentation import Augmentation
from .dataset import CaptionedImages, TrainingPairs
from .sources import Source, open_source

__all__ = ["Augmentation", "CaptionedImages", "Source", "TrainingPairs", "open_source"]
