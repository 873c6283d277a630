"""The models, flat as transformers lays them beside saved weights; and what opens, pairs and converts them."""
