"""Frozen towers: the heads alone trained on cached features, and what a cached text side costs of a step."""

import math
import tempfile
from pathlib import Path

from torch import Tensor
from torch.nn.functional import normalize

from hf_clip.data.augmentation import Augmentation

from .data import make_source
from .measuring import Measured, Row, alternate, progress, rates, seconds_of
from .sides import Batch, Settings, in_turn, make_batches, open_clip_model, open_clip_step, our_model, our_step
from .trainer import run_trainer


def against_open_clip_locked(settings: Settings) -> list[Row]:
    """Ours reads its features from disk through the Trainer, which logs; open_clip's step has its tensors ready."""
    theirs = open_clip_model(settings)
    theirs.lock_image_tower()
    theirs.lock_text_tower()
    step = in_turn(open_clip_step(theirs, settings), make_batches(settings))
    model = our_model(settings)
    count, epochs = settings.choose((640, 20), (128, 20), (8, 2))
    pairs = count * epochs
    with tempfile.TemporaryDirectory() as folder:
        side = settings.choose(256, 256, 40)
        source = make_source(Path(folder, "pictures"), settings, count, (side, side))

        def train() -> float:
            _, watch = run_trainer(
                settings,
                model,
                source,
                folder + "/run",
                Augmentation(crop_scale=1.0),
                num_train_epochs=epochs,
                freeze_text=True,
                freeze_vision=True,
                cache_frozen_features=True,
                feature_cache_dir=folder + "/features",
            )
            return watch.whole

        with_pass = seconds_of(train, settings.device)
        progress(f"  the pass that fills the cache and {epochs} epochs: {with_pass:.3g} s")
        times = alternate({"ours": train, "peer": step}, settings.rounds, settings.device)
    ours = rates(
        f"HFClipTrainer on cached features, {epochs} epochs, opening the cache among them",
        times["ours"],
        pairs,
        "pairs/s",
    )
    peer = rates("open_clip --lock-image --lock-text, tensors ready", times["peer"], settings.batch, "pairs/s")
    epoch = count / ours.median
    filling = with_pass - epoch * epochs
    saved = count / peer.median - epoch  # seconds an epoch
    pays = f"pays from epoch {max(math.ceil(filling / saved), 1)} on" if saved > 0 else "never pays"
    name = f"training the heads alone: {settings.towers}, {settings.pixels} px, batch {settings.batch}"
    return [
        Row(
            f"{name}, features at hand",
            ours,
            peer,
            200.0,
            note=f"the pass that fills the cache takes {filling:.3g} s and {pays}",
        ),
        Row(
            f"{name}, with the pass that fills the cache, {epochs} epochs",
            Measured(f"the pass over {count} pairs and {epochs} epochs", [pairs / with_pass], "pairs/s"),
            peer,
        ),
    ]


def share_of_text(settings: Settings) -> list[Row]:
    """Looking the captions' features up, projecting them and going back, beside the whole step they are part of."""
    model = our_model(settings)
    count = 2 * settings.batch
    with tempfile.TemporaryDirectory() as folder:
        source = make_source(Path(folder, "pictures"), settings, count, (settings.pixels, settings.pixels))
        trainer, _ = run_trainer(
            settings,
            model,
            source,
            folder + "/run",
            Augmentation(),
            max_steps=1,
            freeze_text=True,
            cache_frozen_features=True,
            feature_cache_dir=folder + "/features",
        )
        trainer.callback_handler.on_train_begin(trainer.args, trainer.state, trainer.control)  # opens the cache again
        features = trainer.train_dataset.text_features
        positions = [features.of_row(row)[0] for row in range(settings.batch)]

        def text_side() -> Tensor:
            pooled = features.take(positions).to(settings.device)
            with settings.autocast():
                embeds = normalize(model.text_projection(pooled), dim=-1)
            embeds.sum().backward()
            return pooled

        batches = [
            Batch(batch.pixels, {"pooled_text": text_side()}, batch.padded) for batch in make_batches(settings, 2)
        ]
        step = in_turn(our_step(model, settings), batches)
        times = alternate({"ours": text_side, "peer": step}, settings.rounds, settings.device, warm_up=2)
    share = [100 * text / whole for text, whole in zip(times["ours"], times["peer"], strict=True)]
    return [
        Row(
            f"the text side's share of a step, its tower frozen: {settings.towers}, batch {settings.batch}",
            Measured("cached features looked up, projected and back", share, "%"),
            None,
            2.0,
            at_least=False,
        )
    ]
