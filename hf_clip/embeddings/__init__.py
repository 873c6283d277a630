"""Embeddings: one pass of a model over data, and the folder that keeps them."""
