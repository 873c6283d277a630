"""A train step: towers forward and backward, loss, optimiser, on tensors that are ready."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from .measuring import Row, Unavailable, alternate, rates
from .sides import (
    Settings,
    Step,
    in_turn,
    make_batches,
    open_clip_model,
    open_clip_step,
    our_model,
    our_step,
    sentence_transformers_model,
    sentence_transformers_step,
)

OPEN_CLIP = "open_clip: captions padded to 77, NCHW, AdamW"
OURS = "hf_clip: captions padded to the batch's longest, channels-last, fused AdamW, norm clipped"


def against_open_clip(settings: Settings) -> list[Row]:
    theirs = open_clip_step(open_clip_model(settings), settings)
    ours = our_step(our_model(settings), settings)
    return [
        _row(
            "train step against open_clip",
            settings,
            (OURS, ours),
            (OPEN_CLIP, theirs),
            2.0,
            _arithmetic(ours, settings),
        )
    ]


def against_open_clip_compiled(settings: Settings) -> list[Row]:
    try:
        torch.compile(lambda tensor: tensor * 2 + 1)(torch.ones(8, device=settings.device))
    except Exception as error:  # of the compiler that inductor calls
        raise Unavailable(f"torch.compile does not work here: {str(error).strip().splitlines()[0]}") from error
    theirs = open_clip_step(open_clip_model(settings), settings, compiled=True)
    ours = our_step(our_model(settings), settings, compiled=True)
    return [
        _row("train step against open_clip, compiled", settings, (OURS, ours), (OPEN_CLIP, theirs), None, warm_up=6)
    ]


def against_sentence_transformers(settings: Settings) -> list[Row]:
    theirs = sentence_transformers_step(sentence_transformers_model(settings), settings)
    ours = our_step(our_model(settings), settings)
    peer = "sentence-transformers Router: padded to the longest, NCHW, fused AdamW, norm clipped, fixed temperature"
    return [_row("train step against the sentence-transformers Router", settings, (OURS, ours), (peer, theirs), 1.3)]


def channels_last(settings: Settings) -> list[Row]:
    sides = [our_step(our_model(settings, channels_last=last), settings) for last in (True, False)]
    return [
        _row("train step, channels-last against NCHW", settings, (OURS, sides[0]), ("hf_clip: NCHW", sides[1]), None)
    ]


def _row(
    name: str,
    settings: Settings,
    ours: tuple[str, Step],
    peer: tuple[str, Step],
    target: float | None,
    note: str = "",
    warm_up: int = 2,
) -> Row:
    batches = make_batches(settings)
    sides = {"ours": in_turn(ours[1], batches), "peer": in_turn(peer[1], batches)}
    times = alternate(sides, settings.rounds, settings.device, warm_up)
    return Row(
        f"{name}: {settings.towers}, {settings.pixels} px, batch {settings.batch}, {settings.precision}",
        rates(ours[0], times["ours"], settings.batch, "pairs/s"),
        rates(peer[0], times["peer"], settings.batch, "pairs/s"),
        target,
        note=note,
    )


def _arithmetic(step: Step, settings: Settings) -> str:
    with FlopCounterMode(display=False) as counter:
        step(make_batches(settings, count=1)[0])
    return f"our step is {counter.get_total_flops() / 1e9:.0f} GFLOP"
