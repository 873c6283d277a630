"""What a run can say of itself, for `training.json` and the model card: data, settings, time, versions, emissions."""

import dataclasses
import importlib.metadata
import importlib.util
import math
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, TypedDict

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import Dataset
from transformers import TrainerCallback, TrainerState, TrainingArguments
from transformers.trainer_callback import CallbackHandler

from ..core.public import public_name
from ..core.training_record import (
    CaptionLengths,
    DataRecord,
    EmissionsRecord,
    HardwareRecord,
    SettingsRecord,
    TrainingRecord,
)
from ..core.version import __version__
from ..data.augmentation import Augmentation
from ..data.dataset import ImageRows
from ..data.draws import ImageDraw
from ..data.mixture import MixedPairs, sets_within
from ..data.sources import Source
from ..data.split import rows_of
from ..data.streaming import StreamedImages
from ..data.wrappers import WrappedPairs, as_pairs
from .skipped import SkippedImages

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


class TrainerToAsk(Protocol):
    """What is asked of a trainer; `BaseTrainer` is one."""

    accelerator: Accelerator
    train_dataset: Dataset
    skipped_images: SkippedImages
    state: TrainerState
    callback_handler: CallbackHandler
    resumed: bool

    @property
    def args(self) -> TrainingArguments: ...

    @property
    def model(self) -> nn.Module: ...


class MeasureEmissions(TrainerCallback):
    """Has codecarbon estimate what a run emits, where it is installed: of a machine, so one process asks for all."""

    def __init__(self) -> None:
        from codecarbon import EmissionsTracker

        self.tracker = EmissionsTracker(save_to_file=False, log_level="critical", allow_multiple_runs=True)
        self.measured: EmissionsRecord | None = None

    def on_train_begin(self, args, state, control, **kwargs):
        if args.should_save:
            self.tracker.start()

    def on_train_end(self, args, state, control, **kwargs):
        if not args.should_save:
            return
        self.tracker.stop()
        found = self.tracker.final_emissions_data
        self.measured = EmissionsRecord(
            kg=found.emissions, kwh=found.energy_consumed, grid=found.country_name, source="codecarbon"
        )


def can_measure_emissions() -> bool:
    return importlib.util.find_spec("codecarbon") is not None


def training_facts(trainer: TrainerToAsk, origin: Origin) -> TrainingRecord:
    """What any run says, as far as it has come. No path, no secret."""
    args, dataset = trainer.args, trainer.train_dataset
    skipped = trainer.skipped_images
    return TrainingRecord(
        hf_clip=__version__,
        started_from=public_name(origin.started_from) or None,
        data=[_data_facts(source, weight, origin.data) for source, weight in _weighted_sources(dataset)],
        skipped_pictures=len({row for row, *_ in skipped.everywhere} | set(skipped)),
        parameters=parameter_counts(trainer.accelerator.unwrap_model(trainer.model)),
        hyperparameters=_hyperparameters(args),
        augmentation=_augmentation(dataset),
        batch_size=args.train_batch_size * args.world_size,  # of the loss; accumulation adds no negatives
        accumulated_batches=args.gradient_accumulation_steps,
        hardware=HardwareRecord(
            device=torch.cuda.get_device_name() if args.device.type == "cuda" else args.device.type.upper(),
            processes=args.world_size,
            precision="bf16" if args.bf16 else "fp16" if args.fp16 else "fp32",
        ),
        versions={"python": platform.python_version(), "hf_clip": __version__}
        | {name: importlib.metadata.version(name) for name in _PACKAGES},
        credit=origin.credit,
        pictures_may_be_shown=origin.pictures_may_be_shown,
        **_course(trainer),
    )


class _Course(TypedDict):
    steps: int
    epochs: float | None
    seconds: float | None
    pairs_per_second: float | None
    emissions: EmissionsRecord | None


def _course(trainer: TrainerToAsk) -> _Course:
    """A run that was gone on with took longer than its last part: that is not said."""
    state = trainer.state
    ended: dict[str, float] = next((entry for entry in reversed(state.log_history) if "train_runtime" in entry), {})
    whole = ended and not trainer.resumed
    emissions = next((c.measured for c in trainer.callback_handler.callbacks if isinstance(c, MeasureEmissions)), None)
    return {
        "steps": state.global_step,
        "epochs": None if state.epoch is None else float(state.epoch),
        "seconds": ended["train_runtime"] if whole else None,
        "pairs_per_second": ended["train_samples_per_second"] if whole else None,
        "emissions": emissions if whole else None,
    }


def _weighted_sources(dataset: Dataset) -> Iterator[tuple[Source, float | None]]:
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
    elif isinstance(source := getattr(dataset, "source", None), Source):  # one of one's own may mean another thing
        yield source, None


def _data_facts(source: Source, weight: float | None, described: str) -> DataRecord:
    found = DataRecord(
        name=described or public_name(source.name),
        weight=weight,
        split=source.split or None,
        streamed=source.streaming,
        pictures=None if source.streaming else len(source),
    )
    if source.streaming or not source.has_captions:
        return found
    rows = np.unique(np.linspace(0, len(source) - 1, min(len(source), _LOOKED_AT), dtype=int))
    captions = [source.captions(int(row)) for row in rows]
    found.captions_per_picture = sum(map(len, captions)) / max(len(captions), 1)
    words = [len(caption.split()) for each in captions for caption in each]
    if np.median(words or [0]) < 2:  # Chinese, Japanese, … put no spaces; a name may be of one word
        found.characters = _lengths([len(caption) for each in captions for caption in each])
    else:
        found.words = _lengths(words)
    return found


def _lengths(counts: list[int]) -> CaptionLengths | None:
    return CaptionLengths(float(np.median(counts)), min(counts), max(counts), len(counts)) if counts else None


def parameter_counts(model: nn.Module, towers: Sequence[str] = ()) -> dict[str, int]:
    """Of the towers, if any, of all else, and of what trains."""
    rest = "heads" if towers else "model"
    parts = {**dict.fromkeys(towers, 0), rest: 0, "trained": 0}
    for name, parameter in model.named_parameters():
        part = next((part for part in towers if f"{part}." in name), rest)
        parts[part] += parameter.numel()
        parts["trained"] += parameter.numel() if parameter.requires_grad else 0
    return parts


def _hyperparameters(args: TrainingArguments) -> SettingsRecord:
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
    return SettingsRecord(changed, {name: said[name] for name in _ALWAYS_SHOWN if name not in changed})


def _plain(value: object) -> object:
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


def _augmentation(dataset: Dataset) -> dict[str, object]:
    draw = getattr(sets_within(dataset)[0], "draw", None)
    if not isinstance(draw, ImageDraw):
        return {}
    usual = vars(Augmentation())
    return {name: _plain(value) for name, value in vars(draw.augmentation).items() if value != usual.get(name)}
