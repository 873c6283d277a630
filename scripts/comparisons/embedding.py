"""Embedding captions and pictures, without gradients, on tensors that are ready."""

import torch

from hf_clip.embeddings.encode import embed_inputs

from .measuring import Row, alternate, rates
from .sides import Batch, Settings, in_turn, make_batches, open_clip_model, our_model


def captions(settings: Settings) -> list[Row]:
    theirs, ours = open_clip_model(settings).eval(), our_model(settings).eval()
    return _row(
        "embedding captions against open_clip",
        settings,
        ("hf_clip, padded to the longest", lambda batch: ours(**batch.tokens).text_embeds),
        ("open_clip encode_text, padded to 77", lambda batch: theirs.encode_text(batch.padded, normalize=True)),
        "captions/s",
        3.0,
    )


def pictures(settings: Settings) -> list[Row]:
    theirs, ours = open_clip_model(settings).eval(), our_model(settings).eval()
    return _row(
        "embedding pictures against open_clip",
        settings,
        ("hf_clip embed, channels-last, 8 at a time on a CPU", lambda batch: embed_inputs(ours, batch.pixels)[0]),
        ("open_clip encode_image, NCHW", lambda batch: theirs.encode_image(batch.pixels, normalize=True)),
        "pictures/s",
        1.3,
    )


def _row(name: str, settings: Settings, ours: tuple, peer: tuple, unit: str, target: float) -> list[Row]:
    size = 2 * settings.batch
    batches = make_batches(settings, size=size)

    def embed(work) -> object:
        def run(batch: Batch) -> None:
            with torch.inference_mode(), settings.autocast():
                work(batch)

        return in_turn(run, batches)

    times = alternate({"ours": embed(ours[1]), "peer": embed(peer[1])}, settings.rounds, settings.device, warm_up=2)
    return [
        Row(
            f"{name}: {settings.towers}, batch {size}, {settings.precision}",
            rates(ours[0], times["ours"], size, unit),
            rates(peer[0], times["peer"], size, unit),
            target,
        )
    ]
