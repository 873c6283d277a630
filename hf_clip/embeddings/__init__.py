"""Embeddings: one pass of a model over data, and the folder that keeps them."""

from ..core.segments import Segment
from .encode import Embeddings
from .store import EmbeddingStore, open_embeddings

__all__ = ["EmbeddingStore", "Embeddings", "Segment", "open_embeddings"]
