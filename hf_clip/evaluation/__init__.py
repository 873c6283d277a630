"""How good a model is: metrics, retrieval, pictures of both."""
