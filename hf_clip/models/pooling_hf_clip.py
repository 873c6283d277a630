"""One vector an item from what a tower gives."""

from .requirements_hf_clip import TRANSFORMERS  # noqa: F401 – checks the release, before what an older one lacks

# isort: split


from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling


def pool(output: BaseModelOutputWithPooling, pooling: str, attention_mask: Tensor | None = None) -> Tensor:
    """One vector an item, (batch, width), from a tower's output: (batch, tokens, width) or (batch, width, h, w).

    Padding counts neither in the mean nor as the last token.
    """
    if pooling == "pooler":
        pooled = output.get("pooler_output")
        if pooled is None:
            raise ValueError("this tower has no pooler: set its pooling to 'mean', 'cls' or 'last'")
        return pooled.flatten(1)
    if pooling == "cls" and output.get("cls_token_value") is not None:  # CvT's, beside its map of patches
        return output["cls_token_value"].flatten(1)
    hidden = _hidden(output)
    if hidden.ndim == 4:
        hidden = hidden.flatten(2).transpose(1, 2)  # (batch, h·w, width)
    if attention_mask is None:
        attention_mask = torch.ones(hidden.shape[:2], dtype=torch.long, device=hidden.device)
    attention_mask = attention_mask.to(hidden.device)  # a tower may end on another device than it begins
    if pooling == "mean":
        weights = attention_mask[:, :, None].to(hidden.dtype)  # (batch, tokens, 1)
        return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)
    positions = torch.arange(hidden.shape[1], device=hidden.device)
    # The first token that is no padding, or the last: a tokenizer may pad on either side.
    rank = positions if pooling == "last" else positions.flip(0) + 1
    return hidden[torch.arange(hidden.shape[0], device=hidden.device), (rank * attention_mask).argmax(1)]


def _hidden(output: BaseModelOutputWithPooling) -> Tensor:
    if output.last_hidden_state is None:
        raise ValueError("this tower gives no last_hidden_state, and nothing else is pooled")
    return output.last_hidden_state


def with_pooled(output: BaseModelOutputWithPooling, pooled: Tensor) -> BaseModelOutputWithPooling:
    """A tower's output with another pooled vector, of one class for every tower: a tower's own may know no pooler
    and hold a cache, of which `torch.export` can make no output."""
    return BaseModelOutputWithPooling(
        last_hidden_state=output.last_hidden_state,
        pooler_output=pooled,
        hidden_states=output.get("hidden_states"),
        attentions=output.get("attentions"),
    )


def patch_mask(tower: PreTrainedModel, output: BaseModelOutputWithPooling, pixel_values: Tensor) -> Tensor | None:
    """(batch, tokens): 0 for the class and register tokens that come before the patches of a ViT, which no mean over
    the picture should count; `None` for a tower without."""
    size, hidden = getattr(tower.config, "patch_size", None), _hidden(output)
    if tower.config.model_type == "timm_wrapper":
        special = getattr(tower.timm_model, "num_prefix_tokens", 0)
    elif size is None or hidden.ndim != 3:
        special = 0
    else:
        height, width = size if isinstance(size, (list, tuple)) else (size, size)
        patches = (pixel_values.shape[-2] // height) * (pixel_values.shape[-1] // width)
        special = hidden.shape[1] - patches
    if special <= 0 or hidden.ndim != 3:
        return None
    positions = torch.arange(hidden.shape[1], device=pixel_values.device)
    return (positions >= special).long().expand(pixel_values.shape[0], -1)


def last_map_of(output: Any) -> BaseModelOutputWithPooling:
    """An image tower's output; of a backbone (HGNet) the last of its maps, (batch, width, height, width)."""
    if "last_hidden_state" in output or "feature_maps" not in output:
        return output
    return BaseModelOutputWithPooling(last_hidden_state=output["feature_maps"][-1])
