"""Towers of the Hub or of a folder, as transformers saved them."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils import CONFIG_NAME

from ...core.errors import InputError
from ...core.public import is_path
from ..configuration_hf_clip import HFClipConfig
from ..image_processors import open_image_processor
from ..reading import read_json, reading
from ..towers_hf_clip import build_tower, load_tower, refuse_other_input, tower_config
from .source import ImageTower, TextTower, TowerSource

_POOLING_MODES = {"cls": "cls", "mean": "mean", "lasttoken": "last"}
_POOLING_FLAGS = {"cls": "cls_token", "mean": "mean_tokens", "lasttoken": "lasttoken"}
_NAMES = "a Hub id, a folder with config.json and weights"


class Hub(TowerSource):
    """What no other source has is of the Hub, or a folder."""

    prefix = ""
    names = {"vision": _NAMES, "text": _NAMES}

    def holds(self, name: str, pretrained: bool) -> bool:
        return True

    def open_image_tower(self, name: str, *, pretrained: bool, pooling: str | None) -> ImageTower:
        tower, trained_with = open_from_hub("vision", name, pretrained=pretrained, pooling=pooling)
        return ImageTower(tower, open_image_processor(name), trained_with)

    def open_text_tower(self, name: str, *, pretrained: bool, pooling: str | None) -> TextTower:
        own = _sentence_transformers_pooling(name)
        tower, trained_with = open_from_hub("text", name, pretrained=pretrained, pooling=pooling or own)
        with reading(name, "tokenizer"):
            tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        length = read_json(name, "sentence_bert_config.json").get("max_seq_length")
        return TextTower(tower, tokenizer, own or trained_with, length)

    def repository(self, name: str, config: Mapping[str, object]) -> str | None:
        return None if is_path(name) else name


def open_from_hub(
    side: str, name: str, *, pretrained: bool, pooling: str | None
) -> tuple[PreTrainedModel, str | None]:
    """The tower of one side of a Hub id or folder, and the pooling that the whole pair was trained with, if it is of
    one that says so.

    Args:
        side: "vision" or "text".
        pooling: that is asked for; None: that of the pair, or what suits the tower.

    Raises:
        InputError, ValueError, OSError: there is no such tower, or one that reads something else.
    """
    _refuse_remote_code(name)
    with reading(name, CONFIG_NAME):
        whole = AutoConfig.from_pretrained(name, trust_remote_code=False)
    part = tower_config(whole, side)
    refuse_other_input(part, side)
    trained_with = getattr(whole, f"{side}_pooling", None) if part is not whole else None
    chosen = _chosen_pooling(side, part, pooling or trained_with)
    if not pretrained:
        return build_tower(part, chosen), trained_with
    tower, lacking = load_tower(name, side, whole, chosen, dtype=torch.float32, trust_remote_code=False)
    lacking = [key for key in lacking if not key.startswith("pooler.")]
    if lacking:
        raise InputError(f"{name!r} lacks {len(lacking)} of the tower's weights, {lacking[0]!r} among them")
    return tower, trained_with


def _chosen_pooling(side: str, config: PreTrainedConfig, asked: str | None) -> str:
    fields: dict[str, Any] = {f"{side}_config": copy.deepcopy(config)}
    if asked is not None:
        fields[f"{side}_pooling"] = asked
    return getattr(HFClipConfig(**fields), f"{side}_pooling")


def _refuse_remote_code(name: str) -> None:
    """A model type that transformers does not know: its code would have to travel with every saved pair."""
    with reading(name, CONFIG_NAME):
        config = PreTrainedConfig.get_config_dict(name)[0]
    if not isinstance(config, dict):
        raise InputError(f"{name!r} holds a {CONFIG_NAME} that is no mapping: write it again")
    if "auto_map" in config and config.get("model_type") not in CONFIG_MAPPING:
        raise InputError(
            f"{name!r} needs code of its own ({config['auto_map'].get('AutoModel', 'auto_map')}), which a saved pair "
            "could not carry along: choose a tower that transformers itself has"
        )


def _sentence_transformers_pooling(text_model: str) -> str | None:
    """The pooling that a sentence-transformers model was trained with, if it is one, and one that we have."""
    modes = read_json(text_model, "1_Pooling/config.json")
    chosen = modes.get("pooling_mode") or [
        mode for mode, flag in _POOLING_FLAGS.items() if modes.get(f"pooling_mode_{flag}")
    ]
    chosen = [chosen] if isinstance(chosen, str) else chosen
    return _POOLING_MODES.get(chosen[0]) if len(chosen) == 1 else None
