"""Pictures with captions: opening sources, decoding, augmenting, batching."""
