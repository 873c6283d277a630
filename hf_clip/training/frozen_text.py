"""A frozen text tower runs once for each distinct caption, not once for each time that it is drawn."""

import torch
from torch import Tensor

from ..modeling_hf_clip import HFClipModel


class FrozenTextMemory:
    """Pooled outputs of a frozen text tower by caption, kept in the memory of this process.

    Args:
        model: its text tower must be frozen and in evaluation mode, or what is remembered would be wrong.
        capacity: captions kept, 4 · width bytes each; beyond it a caption is embedded whenever it comes.
    """

    def __init__(self, model: HFClipModel, capacity: int = 100_000):
        self.model = model
        self.capacity = capacity
        self._pooled: dict[int, Tensor] = {}

    def __call__(self, caption_ids: Tensor, tokens: dict[str, Tensor]) -> Tensor:
        """(captions, text_width) of a batch.

        Args:
            caption_ids: (captions,) content digests.
            tokens: the tokenizer's output for them, (captions, tokens) each.
        """
        ids = caption_ids.tolist()
        new = {caption: row for row, caption in enumerate(ids) if caption not in self._pooled}
        if new:
            positions = torch.tensor(list(new.values()), device=caption_ids.device)
            with torch.no_grad():
                pooled = self.model.pool_text(**{name: value[positions] for name, value in tokens.items()})
            found = dict(zip(new, pooled, strict=True))
        else:
            found = {}
        rows = [self._pooled[caption] if caption in self._pooled else found[caption] for caption in ids]
        batch = torch.stack(rows) if ids else torch.zeros(0, self.model.config.text_width, device=caption_ids.device)
        room = self.capacity - len(self._pooled)
        self._pooled |= dict(list(found.items())[: max(room, 0)])
        return batch
