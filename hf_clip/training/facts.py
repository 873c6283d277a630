"""What a run can say of itself, for `training.json` and the model card: data, settings, time, versions, emissions."""

import dataclasses
import importlib.metadata
import importlib.util
import math
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback, TrainingArguments

from ..core.public import is_path, public_name
from ..core.version import __version__
from ..data.augmentation import Augmentation
from ..data.dataset import ImageRows
from ..data.draws import ImageDraw
from ..data.mixture import MixedPairs, sets_within
from ..data.sources import Source
from ..data.split import rows_of
from ..data.streaming import StreamedImages
from ..data.wrappers import WrappedPairs, as_pairs
from ..models.losses_hf_clip import LOSSES
from ..models.modeling_hf_clip import HFClipModel
from ..models.tower_sources.registry import repository_of
from ..publishing.clip.loss_words import LossWords

_LOOKED_AT = 10_000  # captions whose length is counted
_PACKAGES = ("torch", "torchvision", "transformers", "datasets", "accelerate", "huggingface_hub")
# Shown though they are the default; of the others, those that differ.
_ALWAYS_SHOWN = (
    "learning_rate", "per_device_train_batch_size", "gradient_accumulation_steps", "num_train_epochs", "warmup_steps",
    "lr_scheduler_type", "optim", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm", "seed",
)  # fmt: skip
# How a run was watched, stored and fed changes nothing in what it learns; where it lay is nobody's business.
_NOT_OF_LEARNING = (
    "output_dir", "run_name", "report_to", "feature_cache_dir", "resume_from_checkpoint", "disable_tqdm", "project",
    "use_cpu", "push_to_hub", "hub_", "log", "save_", "eval_", "do_", "dataloader_num", "dataloader_pin",
    "dataloader_persistent", "dataloader_prefetch", "local_rank", "ddp_", "trackio", "label_names", "load_best",
    "restore_callback", "greater_is_better", "metric_for", "per_device_eval", "remove_unused", "prediction_loss",
    "include_", "batch_eval", "skip_memory", "torch_empty", "average_tokens", "strict",
    "accelerator_config", "debug", "gradient_checkpointing",  # the older name of activation_checkpointing
)  # fmt: skip


@dataclass
class Origin:
    """What a trainer cannot see of its model and data.

    Args:
        vision_model, text_model: what the towers were opened from.
        started_from: the trained model that was gone on from.
        data: what the pictures are, in words; default: the names of their sources.
        eval_data: the same of those that it is evaluated on.
        credit: attribution that the pictures' licence asks for.
        pictures_may_be_shown: whether pictures of the data may go into a published card.
    """

    vision_model: str = ""
    text_model: str = ""
    started_from: str = ""
    data: str = ""
    eval_data: str = ""
    credit: str = ""
    pictures_may_be_shown: bool = False


class MeasureEmissions(TrainerCallback):
    """Has codecarbon estimate what a run emits, where it is installed: of a machine, so one process asks for all."""

    def __init__(self) -> None:
        from codecarbon import EmissionsTracker

        self.tracker = EmissionsTracker(save_to_file=False, log_level="critical", allow_multiple_runs=True)
        self.measured: dict[str, Any] | None = None

    def on_train_begin(self, args, state, control, **kwargs):
        if args.should_save:
            self.tracker.start()

    def on_train_end(self, args, state, control, **kwargs):
        if not args.should_save:
            return
        self.tracker.stop()
        found = self.tracker.final_emissions_data
        self.measured = {
            "kg": found.emissions, "kwh": found.energy_consumed, "grid": found.country_name, "source": "codecarbon",
        }  # fmt: skip


def can_measure_emissions() -> bool:
    return importlib.util.find_spec("codecarbon") is not None


def training_facts(trainer: Any, origin: Origin) -> dict[str, Any]:
    """What `training.json` holds of any run, as far as it has come. No path, no secret, JSON."""
    args, model = trainer.args, trainer.accelerator.unwrap_model(trainer.model)
    dataset = trainer.train_dataset
    return {
        "hf_clip": __version__,
        "started_from": public_name(origin.started_from) or None,
        "data": [_data_facts(source, weight, origin.data) for source, weight in _weighted_sources(dataset)],
        "skipped_pictures": len({row for row, *_ in trainer.skipped_images.everywhere} | set(trainer.skipped_images)),
        "parameters": _parameter_counts(model, ()),
        "hyperparameters": _hyperparameters(args),
        "augmentation": _augmentation(dataset),
        "batch_size": args.train_batch_size * args.world_size,  # of the loss; accumulation adds no negatives
        "accumulated_batches": args.gradient_accumulation_steps,
        **_course(trainer),
        "hardware": {
            "device": torch.cuda.get_device_name() if args.device.type == "cuda" else args.device.type.upper(),
            "processes": args.world_size,
            "precision": "bf16" if args.bf16 else "fp16" if args.fp16 else "fp32",
        },
        "versions": {"python": platform.python_version(), "hf_clip": __version__}
        | {name: importlib.metadata.version(name) for name in _PACKAGES},
        "credit": origin.credit,
        "pictures_may_be_shown": origin.pictures_may_be_shown,
    }


def pair_facts(trainer: Any, origin: Origin) -> dict[str, Any]:
    """The same of a dual encoder's run: and its towers, and its temperature."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    return training_facts(trainer, origin) | {
        "vision_model": _tower_name(origin.vision_model, model.config.vision_config),
        "text_model": _tower_name(origin.text_model, model.config.text_config),
        "repositories": _repositories(origin, model.config),
        "parameters": _parameter_counts(model, ("text_model", "vision_model")),
        "temperature": _logged(trainer, "temperature"),
        "loss": _own_loss(model),
    }


def _own_loss(model: HFClipModel) -> dict[str, object] | None:
    """What a card says of a loss that is none of hf_clip's, and so is not there where the card is written."""
    own = model.own_loss
    return None if own is None or own.name in LOSSES else LossWords.of(own).to_json()


def _tower_name(given: str, config: Any) -> str:
    """As it was given, or as transformers remembers it; a folder is no name that others could use."""
    known = given or getattr(config, "_name_or_path", "") or ""
    return public_name(known) if given else "" if is_path(known) else known


def _repositories(origin: Origin, config: Any) -> dict[str, str | None]:
    """side → the Hub repository of its tower's weights, where its name is known: who reads it may not know the source
    that the tower came from."""
    given = {"vision": origin.vision_model, "text": origin.text_model}
    configs = {side: getattr(config, f"{side}_config") for side in given}
    names = {side: name or _tower_name("", configs[side]) for side, name in given.items()}
    return {side: repository_of(name, side, configs[side].to_dict()) for side, name in names.items() if name}


def _course(trainer: Any) -> dict[str, Any]:
    """Steps, epochs, seconds. A run that was gone on with took longer than its last part: that is not said."""
    state = trainer.state
    ended: dict[str, float] = next((entry for entry in reversed(state.log_history) if "train_runtime" in entry), {})
    whole = ended and not trainer.resumed
    emissions = next((c.measured for c in trainer.callback_handler.callbacks if isinstance(c, MeasureEmissions)), None)
    return {
        "steps": state.global_step,
        "epochs": state.epoch,
        "seconds": ended["train_runtime"] if whole else None,
        "pairs_per_second": ended["train_samples_per_second"] if whole else None,
        "emissions": emissions if whole else None,
    }


def _logged(trainer: Any, name: str) -> float | None:
    """The last of it that was logged: of sharded weights one process alone cannot ask."""
    return next((entry[name] for entry in reversed(trainer.state.log_history) if name in entry), None)


def _weighted_sources(dataset: Any) -> Iterator[tuple[Source, float | None]]:
    dataset = as_pairs(dataset)
    if isinstance(dataset, MixedPairs):
        for part, share in zip(dataset.datasets, dataset.shares, strict=True):
            for source, weight in _weighted_sources(part):
                yield source, share / sum(dataset.shares) * (1 if weight is None else weight)
    elif isinstance(dataset, WrappedPairs):
        layout = dataset.layout
        for which, part in enumerate(layout.sets):
            here = layout.which == which
            share = here.mean() if len(layout.sets) > 1 else None
            for source, weight in _weighted_sources(part):
                chosen = rows_of(source, np.unique(layout.rows[here])) if isinstance(part, ImageRows) else source
                shares = [each for each in (share, weight) if each is not None]
                yield chosen, math.prod(map(float, shares)) if shares else None
    elif isinstance(dataset, StreamedImages):
        weights = dataset.weights or [None] * len(dataset.sources)
        for source, weight in zip(dataset.sources, weights, strict=True):
            yield source, None if weight is None else weight / sum(dataset.weights)
    elif isinstance(getattr(dataset, "source", None), Source):  # a data set of one's own may mean another thing
        yield dataset.source, None


def _data_facts(source: Source, weight: float | None, described: str) -> dict[str, Any]:
    facts: dict[str, Any] = {"name": described or public_name(source.name), "weight": weight}
    if source.split:
        facts["split"] = source.split
    if source.streaming:
        return facts | {"streamed": True}
    facts["pictures"] = len(source)
    if not source.has_captions:
        return facts
    rows = np.unique(np.linspace(0, len(source) - 1, min(len(source), _LOOKED_AT), dtype=int))
    captions = [source.captions(int(row)) for row in rows]
    facts["captions_per_picture"] = sum(map(len, captions)) / max(len(captions), 1)
    lengths = [len(caption.split()) for each in captions for caption in each]
    unit = "words"
    if np.median(lengths or [0]) < 2:  # Chinese, Japanese, … put no spaces; a name may be of one word
        lengths, unit = [len(caption) for each in captions for caption in each], "characters"
    if lengths:
        facts[unit] = {
            "median": float(np.median(lengths)), "shortest": min(lengths), "longest": max(lengths),
            "captions_looked_at": len(lengths),
        }  # fmt: skip
    return facts


def _parameter_counts(model: Any, towers: Sequence[str]) -> dict[str, int]:
    """Of the towers, if any, of all else, and of what trains."""
    rest = "heads" if towers else "model"
    parts = {**dict.fromkeys(towers, 0), rest: 0, "trained": 0}
    for name, parameter in model.named_parameters():
        part = next((part for part in towers if f"{part}." in name), rest)
        parts[part] += parameter.numel()
        parts["trained"] += parameter.numel() if parameter.requires_grad else 0
    return parts


def _hyperparameters(args: TrainingArguments) -> dict[str, dict[str, Any]]:
    said = {name: _plain(value) for name, value in args.to_dict().items() if not name.startswith(_NOT_OF_LEARNING)}
    usual = {
        field.name: _plain(field.default if field.default_factory is dataclasses.MISSING else field.default_factory())
        for field in dataclasses.fields(args)
    }
    off = (None, False)  # alike: where the default is None, the Trainer makes it False
    changed = {
        name: value
        for name, value in said.items()
        if value != usual[name] and not (value in off and usual[name] in off)
    }
    return {"changed": changed, "default": {name: said[name] for name in _ALWAYS_SHOWN if name not in changed}}


def _plain(value: Any) -> Any:
    """A setting as JSON has it, without where it lay on this machine."""
    if isinstance(value, dict):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(inner) for inner in value]
    if isinstance(value, Enum | np.generic):
        return _plain(value.value if isinstance(value, Enum) else value.item())
    if value is None or isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return public_name(str(value))


def _augmentation(dataset: Any) -> dict[str, Any]:
    draw = getattr(sets_within(dataset)[0], "draw", None)
    if not isinstance(draw, ImageDraw):
        return {}
    usual = vars(Augmentation())
    return {name: _plain(value) for name, value in vars(draw.augmentation).items() if value != usual.get(name)}
