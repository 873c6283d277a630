"""Training with the `transformers` Trainer: of any family of models, and of a pair of towers."""
