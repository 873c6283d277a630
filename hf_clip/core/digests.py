"""What content, weights and tokenizers are known by: BLAKE2b digests, the same on every machine."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .families import family_of

HasBytes = Any  # bytes, an array, …: numpy's are of no common type before Python 3.12


def digest_of(parts: Iterable[HasBytes], size: int = 16) -> bytes:
    """
    Args:
        parts: bytes, or what has them (an array, for one): digested as if they were one.
        size: bytes of the digest.
    """
    digest = hashlib.blake2b(digest_size=size)
    for part in parts:
        digest.update(part)
    return digest.digest()


def content_id(content: bytes) -> int:
    """A signed 64-bit digest, which fits an int64 tensor."""
    return int.from_bytes(digest_of([content], size=8), "little", signed=True)


def tensors_digest(module: torch.nn.Module, settings: object) -> str:
    """Of a module's weights and buffers, by name, and of what else counts, as `repr` shows it."""
    return digest_of(_parts_of(module, settings)).hex()


def weights_digest(model: PreTrainedModel) -> str:
    """Of all weights, by name, and of the settings that the model's family counts as part of them."""
    counted = family_of(model.config.model_type).digested
    return tensors_digest(model, tuple(getattr(model.config, name) for name in counted))


def _parts_of(module: torch.nn.Module, settings: object) -> Iterator[HasBytes]:
    yield repr(settings).encode()
    for name, tensor in sorted(module.state_dict().items()):
        yield f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode()
        yield tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Of all that decides which tokens a text becomes, but for the length of the cut."""
    if tokenizer.is_fast:
        rules = json.loads(tokenizer.backend_tokenizer.to_str())
        rules |= {"truncation": None, "padding": None}  # of its last call
    else:
        elsewhere = ("name_or_path", "model_max_length")  # where it lies, and the cut
        given = {
            name: str(value)
            for name, value in tokenizer.init_kwargs.items()
            if name not in elsewhere and not name.endswith(("_file", "_class"))
        }
        rules = {"class": type(tokenizer).__name__, "vocabulary": tokenizer.get_vocab(), "settings": given}
    sides = [tokenizer.padding_side, tokenizer.truncation_side, tokenizer.model_input_names]
    settings = json.dumps([rules, sides, tokenizer.special_tokens_map], sort_keys=True, default=str)
    return digest_of([settings.encode()], size=10).hex()
