"""The loss in tiles against the whole matrix of logits: seconds, and memory above the inputs."""

from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from hf_clip.models.infonce_hf_clip import contrastive_loss

from .measuring import Measured, Peak, Row, alternate, in_fresh_process, progress
from .sides import PROJECTION, Settings

# Pairs → the largest share of the whole matrix's time that the tiles may take.
TIME_TARGETS = {8192: 0.5, 16384: 0.35}
MEMORY_TARGETS = {32768: 600.0}  # MB above the inputs

Loss = Callable[..., Tensor]


def time_of_tiles(settings: Settings) -> list[Row]:
    rows = []
    for pairs in settings.choose([2048, 4096, 8192, 16384], [2048, 4096], [64]):
        peers = {"the plain formula": plain_loss} | (
            {"open_clip's ClipLoss": clip_loss} if find_spec("open_clip") else {}
        )
        for name, peer in peers.items():
            times = in_fresh_process(
                _seconds, pairs, _tile(pairs), peer, max(settings.rounds // 2, 1), settings.device
            )
            rows.append(
                Row(
                    f"InfoNCE in tiles against {name}: {pairs:,} pairs × {PROJECTION}, forward and backward, time",
                    Measured("tiles", times["ours"], "s"),
                    Measured(name, times["peer"], "s"),
                    TIME_TARGETS.get(pairs),
                    at_least=False,
                    note="in a fresh process",
                )
            )
    return rows


def _seconds(pairs: int, tile: int | None, peer: Loss, rounds: int, device: torch.device) -> dict[str, list[float]]:
    embeds = _embeds(pairs, device)
    sides = {"ours": lambda: _run(tiled_loss, embeds, tile), "peer": lambda: _run(peer, embeds)}
    return alternate(sides, rounds, device)


def memory_of_tiles(settings: Settings) -> list[Row]:
    rows = []
    whole_up_to = settings.choose(16384, 4096, 64)
    for pairs in settings.choose([2048, 4096, 8192, 16384, 32768], [2048, 4096], [64]):
        tiles = in_fresh_process(peak_above_inputs, tiled_loss, pairs, settings.device, _tile(pairs))
        progress(f"  {pairs:,} pairs in tiles: {tiles:.0f} MB")
        peer = None
        if pairs <= whole_up_to:
            peer = Measured(
                "plain formula", [in_fresh_process(peak_above_inputs, plain_loss, pairs, settings.device)], "MB"
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


def peak_above_inputs(loss: Loss, pairs: int, device: torch.device, *options: int | None) -> float:
    """MB; what a library needs once, whatever the size, is spent on a few pairs before."""
    _run(loss, _embeds(8, device), *options)
    embeds = _embeds(pairs, device)
    peak = Peak(device)
    _run(loss, embeds, *options)
    return peak.above_start()


def tiled_loss(images: Tensor, texts: Tensor, scale: Tensor, tile_size: int | None) -> Tensor:
    return contrastive_loss(images, texts, scale, tile_size=tile_size)


def plain_loss(images: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    """As the paper writes it (arXiv:2103.00020, figure 3)."""
    logits = scale.exp() * images @ texts.T
    labels = torch.arange(len(images), device=images.device)
    return (cross_entropy(logits, labels) + cross_entropy(logits.T, labels)) / 2


def clip_loss(images: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    from open_clip import ClipLoss

    return ClipLoss()(images, texts, scale.exp())


def _tile(pairs: int) -> int | None:
    """The default; of the few pairs of a test, a quarter."""
    return None if pairs >= 2048 else pairs // 4


def _embeds(pairs: int, device: torch.device) -> list[torch.Tensor]:
    torch.manual_seed(0)
    embeds = [normalize(torch.randn(pairs, PROJECTION, device=device), dim=-1) for _ in range(2)]
    return [tensor.requires_grad_() for tensor in [*embeds, torch.full((1,), 2.66, device=device)]]


def _run(loss: Loss, embeds: list[Tensor], *options: int | None) -> None:
    torch.autograd.grad(loss(*embeds, *options), embeds)
