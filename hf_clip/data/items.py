"""What our data sets give, and what collators make of it."""

from typing import Any

# Of one image: `row`, `skipped`, and, where it could be read, `image_id`, its pixels and its captions or label.
Item = dict[str, Any]
# Tensors by name, as the model takes them, and what was `skipped`.
Batch = dict[str, Any]
# (row, name, reason) of an image that could not be read.
Skipped = tuple[int, str, str]
