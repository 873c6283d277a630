"""Pictures with captions: opening sources, decoding, augmenting, batching."""

from .augmentation import Augmentation
from .dataset import CaptionedImages, TrainingPairs
from .mixture import MixedPairs
from .pixels import PixelNormalization
from .sources import Source, open_source
from .split import split_by_image
from .streaming import StreamedPairs

__all__ = [
    "Augmentation",
    "CaptionedImages",
    "MixedPairs",
    "PixelNormalization",
    "Source",
    "StreamedPairs",
    "TrainingPairs",
    "open_source",
    "split_by_image",
]
