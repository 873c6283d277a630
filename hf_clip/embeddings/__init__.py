"""Embeddings: one pass of a model over data, and the folder that keeps them."""

from ..core.segments import Segment
from .encode import Embeddings
from .options import EmbedOptions
from .store import EmbeddingStore, open_embeddings

__all__ = ["EmbedOptions", "EmbeddingStore", "Embeddings", "Segment", "open_embeddings"]
