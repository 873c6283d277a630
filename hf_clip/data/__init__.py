"""Pictures with captions: opening sources, decoding, augmenting, batching."""

from .augmentation import Augmentation
from .collator import ImageCollator
from .dataset import CaptionedImages, ImageRows, TrainingImages, TrainingPairs
from .mixture import MixedPairs
from .pixels import PixelNormalization
from .sources import Source, open_source
from .split import split_by_image
from .streaming import StreamedImages, StreamedPairs

__all__ = [
    "Augmentation",
    "CaptionedImages",
    "ImageCollator",
    "ImageRows",
    "MixedPairs",
    "PixelNormalization",
    "Source",
    "StreamedImages",
    "StreamedPairs",
    "TrainingImages",
    "TrainingPairs",
    "open_source",
    "split_by_image",
]
