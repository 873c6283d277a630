"""What a trained model needs to be understood and used by others."""
