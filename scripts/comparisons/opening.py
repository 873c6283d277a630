"""How much longer a saved pair takes to open than its two towers."""

import tempfile
from pathlib import Path

import torch
from transformers import AutoModel, BertModel, ResNetModel

from hf_clip import HFClipConfig, HFClipModel

from .measuring import Measured, Row, alternate
from .sides import Settings

LEAST_ROUNDS = 15


def against_its_towers(settings: Settings) -> list[Row]:
    """Files that were read before, on the CPU and in fp32 whatever the settings say: nothing is computed."""
    with tempfile.TemporaryDirectory() as folder:
        pair, text, vision = (Path(folder, name) for name in ("pair", "text", "vision"))
        towers = {"text_config": settings.text_config(), "vision_config": settings.vision_config()}
        HFClipModel(HFClipConfig(**towers)).save_pretrained(pair)
        BertModel(towers["text_config"]).save_pretrained(text)
        ResNetModel(towers["vision_config"]).save_pretrained(vision)
        sides = {
            "ours": lambda: AutoModel.from_pretrained(pair),
            "peer": lambda: [AutoModel.from_pretrained(tower) for tower in (text, vision)],
        }
        times = alternate(sides, max(settings.rounds, LEAST_ROUNDS), torch.device("cpu"), warm_up=2)
    return [
        Row(
            f"opening a saved pair of {settings.towers}",
            Measured("AutoModel.from_pretrained of the pair", times["ours"], "s"),
            Measured("AutoModel.from_pretrained of each of its towers", times["peer"], "s"),
            1.15,
            at_least=False,
        )
    ]
