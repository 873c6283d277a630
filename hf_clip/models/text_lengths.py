"""How long a text may be: what tokenizer and text tower can take, and what the tower was trained with."""

from dataclasses import dataclass, replace

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .processing_hf_clip import fixed_length, tokenizer_limit


@dataclass(frozen=True)
class TextPolicy:
    """How texts are padded and cut, as [`HFClipProcessor`] takes it."""

    text_padding: str = "longest"
    max_text_length: int | None = None


def trained_policy(tower: PreTrainedModel, max_length: int | None = None) -> TextPolicy:
    """That of the texts that a tower learned from.

    Args:
        max_length: after how many tokens they were cut, where its type doesn't say.
    """
    fixed = fixed_length(tower.config)
    return TextPolicy(max_text_length=max_length) if fixed is None else TextPolicy("max_length", fixed)


def text_capacity(tower: nn.Module, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """How many tokens of a text its tokenizer and its tower can take; None: neither knows a limit."""
    limits = [limit for limit in (tokenizer_limit(tokenizer), _positions(tower)) if limit is not None]
    return min(limits, default=None)


def _positions(tower: nn.Module) -> int | None:
    positions = getattr(tower.config, "max_position_embeddings", None)
    for name, module in tower.named_modules():
        # RoBERTa's kin count from behind the padding's number: of 514 rows 512 are left.
        if "position" in name and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            return module.num_embeddings - module.padding_idx - 1
    return positions


def fit_policy(
    policy: TextPolicy, tower: nn.Module, tokenizer: PreTrainedTokenizerBase, default: int | None = None
) -> TextPolicy:
    """How texts are padded and cut, so that none is longer than can be read; not by the tokenizer alone either, which
    pipelines ask.

    Args:
        default: the length where the policy has none.
    """
    capacity = text_capacity(tower, tokenizer)
    limits = [limit for limit in (policy.max_text_length or default, capacity) if limit is not None]
    if capacity is not None:
        tokenizer.model_max_length = capacity
    return replace(policy, max_text_length=min(limits, default=None))
