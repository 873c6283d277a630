"""What cards and publishing are told of the family of CLIP: all that only it has."""
