"""Where towers come from: one object a file, listed in `registry.py`."""
