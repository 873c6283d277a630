"""The loss in tiles against the whole matrix of logits: seconds, and memory above the inputs."""

import torch
from torch.nn.functional import normalize

from hf_clip.loss_hf_clip import contrastive_loss

from .measuring import Measured, Peak, Row, alternate, in_fresh_process, progress
from .sides import PROJECTION, Settings

# Pairs → the largest share of the whole matrix's time that the tiles may take.
TIME_TARGETS = {8192: 0.5, 16384: 0.35}
MEMORY_TARGETS = {32768: 600.0}  # MB above the inputs


def time_of_tiles(settings: Settings) -> list[Row]:
    rows = []
    for pairs in settings.choose([2048, 4096, 8192, 16384], [2048, 4096], [64]):
        embeds = _embeds(pairs, settings.device)
        times = alternate(
            {"ours": lambda: _run(*embeds, _tile(pairs)), "peer": lambda: _run(*embeds, pairs)},  # noqa: B023
            max(settings.rounds // 2, 1),
            settings.device,
        )
        rows.append(
            Row(
                f"InfoNCE in tiles, forward and backward: {pairs:,} pairs × {PROJECTION}, time",
                Measured("tiles", times["ours"], "s"),
                Measured("whole matrix", times["peer"], "s"),
                TIME_TARGETS.get(pairs),
                at_least=False,
            )
        )
    return rows


def memory_of_tiles(settings: Settings) -> list[Row]:
    rows = []
    whole_up_to = settings.choose(16384, 4096, 64)
    for pairs in settings.choose([2048, 4096, 8192, 16384, 32768], [2048, 4096], [64]):
        tiles = in_fresh_process(peak_above_inputs, pairs, _tile(pairs), str(settings.device))
        progress(f"  {pairs:,} pairs in tiles: {tiles:.0f} MB")
        peer = None
        if pairs <= whole_up_to:
            peer = Measured(
                "whole matrix", [in_fresh_process(peak_above_inputs, pairs, pairs, str(settings.device))], "MB"
            )
        rows.append(
            Row(
                f"InfoNCE in tiles, forward and backward: {pairs:,} pairs × {PROJECTION}, peak above the inputs",
                Measured("tiles", [tiles], "MB"),
                peer,
                MEMORY_TARGETS.get(pairs),
                at_least=False,
                note="each in a fresh process",
            )
        )
    return rows


def peak_above_inputs(pairs: int, tile_size: int | None, device: str) -> float:
    """MB; what a library needs once, whatever the size, is spent on a few pairs before."""
    _run(*_embeds(8, torch.device(device)), None)
    embeds = _embeds(pairs, torch.device(device))
    peak = Peak(torch.device(device))
    _run(*embeds, tile_size)
    return peak.above_start()


def _tile(pairs: int) -> int | None:
    """The default; of the few pairs of a test, a quarter."""
    return None if pairs >= 2048 else pairs // 4


def _embeds(pairs: int, device: torch.device) -> list[torch.Tensor]:
    torch.manual_seed(0)
    embeds = [normalize(torch.randn(pairs, PROJECTION, device=device), dim=-1) for _ in range(2)]
    return [tensor.requires_grad_() for tensor in [*embeds, torch.full((1,), 2.66, device=device)]]


def _run(images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor, tile_size: int | None) -> None:
    loss = contrastive_loss(images, texts, scale, tile_size=tile_size)
    torch.autograd.grad(loss, (images, texts, scale))
