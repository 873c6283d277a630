"""Training a pair of towers with the `transformers` Trainer."""
