"""`hf-clip train`: trains a text tower and an image tower on captioned pictures."""

import argparse
import dataclasses
import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..core.errors import InputError
from ..models.losses_hf_clip import LOSSES
from .command import Command
from .output import Printer, metric_rows
from .parsing import DataclassParser, Parser

if TYPE_CHECKING:
    from ..data.augmentation import Augmentation
    from ..training.arguments import HFClipTrainingArguments

_LOSSES = " or ".join(f"{name} ({loss.label})" for name, loss in LOSSES.items())
_DEFAULT_TOWERS = {"vision_model": "microsoft/resnet-50", "text_model": "google-bert/bert-base-uncased"}


@dataclass
class TowerSettings:
    """Which towers, and how they are joined."""

    model: str | None = field(
        default=None,
        metadata={"help": "Trained model to go on from; vision_model or text_model then exchange a tower of it."},
    )
    vision_model: str | None = None
    text_model: str | None = None
    loss: str | None = field(default=None, metadata={"help": f"{_LOSSES}. Default: infonce (CLIP's)."})
    projection_dim: int | None = field(default=None, metadata={"help": "Width of the shared space; default 512."})
    projection: str | None = field(default=None, metadata={"help": "linear (the default), mlp or none."})
    text_pooling: str | None = field(default=None, metadata={"help": "cls, mean, last or pooler."})
    vision_pooling: str | None = field(default=None, metadata={"help": "cls, mean, last or pooler."})
    logit_scale_init_value: float | None = field(
        default=None, metadata={"help": "Log of 1/temperature at the start; default: as the loss has it."}
    )
    image_size: int | None = field(default=None, metadata={"help": "Side of the square pictures, in pixels."})
    text_padding: str | None = field(
        default=None,
        metadata={"help": "Of captions: longest (of a batch), or max_length; default: as the tower wants."},
    )


@dataclass
class DataSettings:
    """Which pictures and captions."""

    train_data: list[str] | None = field(
        default=None,
        metadata={
            "help": "Folder of pictures with metadata.csv|jsonl or with a folder for each class; parquet, CSV, JSONL "
            "or tar files, or a pattern such as 'shards/*.tar'; Hub id. Several are mixed."
        },
    )
    train_weights: list[float] | None = field(
        default=None, metadata={"help": "How much of an epoch is of each of several sources; default: all their rows."}
    )
    eval_data: list[str] | None = field(
        default=None,
        metadata={
            "help": "Such a source, to measure on while training; several as name=source, whose names then begin "
            "those of their metrics."
        },
    )
    eval_share: float | None = field(
        default=None, metadata={"help": "Without eval_data: hold out this share of the pictures of train_data."}
    )
    train_split: str | None = field(
        default=None, metadata={"help": "Of train_data that have several; default: train."}
    )
    eval_split: str | None = field(
        default=None,
        metadata={
            "help": "Of eval_data that have several; default: test, or else validation; the other way round where the "
            "run chooses its best checkpoint by it."
        },
    )
    data_config: str | None = field(
        default=None, metadata={"help": "Configuration of data sets whose card has several."}
    )
    image_column: str | None = field(default=None, metadata={"help": "Default: image, file_name, image_path, jpg, …"})
    caption_column: str | None = field(default=None, metadata={"help": "Default: caption, captions, text, txt."})
    label_column: str | None = field(
        default=None, metadata={"help": "Classes, whose names are the captions where there are no others."}
    )
    streaming: bool = field(default=False, metadata={"help": "Read as training goes on, for max_steps."})
    shuffle_buffer: int = field(default=1000, metadata={"help": "Rows of a stream among which the next is drawn."})
    max_caption_length: int | None = field(default=None, metadata={"help": "In tokens; default: as trained, or 77."})


@dataclass
class OutputSettings:
    json: bool = field(default=False, metadata={"help": "One JSON object on stdout."})


class TrainSettings(NamedTuple):
    """What a command line and its files say.

    Args:
        kept: the settings that as such a file make the same run.
    """

    towers: TowerSettings
    data: DataSettings
    augmentation: "Augmentation"
    output: OutputSettings
    args: "HFClipTrainingArguments"
    kept: dict[str, Any]


class Train(Command):
    name, help = "train", "train a text tower and an image tower on captioned pictures"

    def add_arguments(self, parser: Parser) -> None:
        """None: they are the fields of dataclasses."""

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        return argparse.Namespace(said=parse(arguments))

    def run(self, settings: argparse.Namespace, printer: Printer) -> None:
        _run(settings.said, printer)


def _run(said: TrainSettings, printer: Printer) -> None:
    towers, data, augmentation, output, args, settings = said

    # Random heads and towers come from the seed; the Trainer sets it again, but only after they are made.
    from transformers import set_seed

    from ..data.images import skipped_line
    from ..training.contrastive import HFClipTrainer
    from ..training.data_sets import Drawing, training_pairs
    from ..training.facts import Origin
    from ..training.run import check_output_folder, train

    check_output_folder(args)  # before anything is loaded
    _check_hub(args)
    train_sources, eval_source = _open_sources(data, args)
    set_seed(args.seed)
    if not towers.model:
        towers = dataclasses.replace(towers, **_missing(towers, _DEFAULT_TOWERS))
    model, processor = _open_towers(towers, data.max_caption_length)
    if not towers.model:
        chosen = vars(model.config) | {"text_padding": processor.text_padding}
        settings |= _missing(towers, chosen) | {name: getattr(towers, name) for name in _DEFAULT_TOWERS}
    drawing = Drawing(augmentation, data.train_weights, data.shuffle_buffer)
    trainer = HFClipTrainer(
        model,
        args,
        train_dataset=training_pairs(train_sources, processor, args, drawing),
        eval_dataset=eval_source,
        processing_class=processor,
        origin=Origin(
            towers.vision_model or "",
            towers.text_model or "",
            towers.model or "",
        ),
    )
    metrics = train(trainer, settings)
    if not args.should_save:
        return
    if output.json:
        printer.json(metrics | {"output_dir": args.output_dir})
        return
    for name in _named(data.eval_data or [""]) if eval_source else ():
        before = f"{name}_" if name else ""
        own = {metric.removeprefix(before): value for metric, value in metrics.items() if metric.startswith(before)}
        _print_metrics(printer, name, own)
    for row, name, reason in metrics["skipped_training_images"]:
        printer.line(f"skipped {skipped_line(row, name, reason)}")
    printer.line(f"model, metrics and pictures: {args.output_dir}")


def _check_hub(args: "HFClipTrainingArguments") -> None:
    """A run that is to be pushed can be, as far as that is known before it."""
    if args.push_to_hub and args.should_save:
        from ..publishing.hub import HubTarget, look_first

        target = HubTarget(
            args.hub_model_id or Path(args.output_dir).resolve().name,
            private=bool(args.hub_private_repo),
            revision=args.hub_revision,
            overwrite=args.hub_overwrite,
            token=args.hub_token,
            timeout=args.hub_timeout,
        )
        look_first(target)


def _print_metrics(printer: Printer, name: str, metrics: dict[str, Any]) -> None:
    captions = f", {metrics['captions']} captions" if "captions" in metrics else ""
    if "images" in metrics:  # none are counted for the loss alone
        printer.line(f"{name + ': ' if name else ''}{metrics['images']} pictures{captions}")
    printer.table(["", "model", "chance"], metric_rows(metrics))


def _open_sources(data: DataSettings, args: "HFClipTrainingArguments") -> tuple[list[Any], Any]:
    from ..data.named_splits import TRAINING
    from ..data.sources import open_source
    from ..data.split import split_by_image
    from ..training.data_sets import open_evaluation

    columns: dict[str, Any] = {
        "data_config": data.data_config,
        "image_column": data.image_column,
        "caption_column": data.caption_column,
        "label_column": data.label_column,
    }
    training = data.train_split or TRAINING
    sources = [open_source(name, split=training, streaming=data.streaming, **columns) for name in data.train_data]
    if data.eval_data:
        opened = {
            name: open_evaluation(source, args, data.eval_split, **columns)
            for name, source in _named(data.eval_data).items()
        }
        return sources, opened.get("", opened)
    if data.eval_share is None:
        return sources, None
    if len(sources) > 1:
        raise InputError("--eval_share splits one source: of several, name one to evaluate on with --eval_data")
    kept, held_out = split_by_image(sources[0], data.eval_share, args.seed)
    return [kept], held_out


def _named(sources: list[str]) -> dict[str, str]:
    """Sources by the names that stand before them; of one without, the name is empty.

    Raises:
        InputError: of several, one without a name, or two of the same.
    """
    parts = [re.fullmatch(r"(?:(\w+)=)?(.+)", source, re.DOTALL) for source in sources if source] or [None]
    pairs = [("", "") if part is None else (part[1] or "", part[2]) for part in parts]
    named = dict(pairs)
    if len(pairs) > 1 and ("" in named or len(named) < len(pairs)):
        raise InputError("--eval_data: give each of several sources a name of its own, as in birds=data/birds")
    return named


def _open_towers(towers: TowerSettings, max_length: int | None) -> tuple[Any, Any]:
    from ..models.towers import create_model_and_processor, open_model_and_processor

    settings: dict[str, Any] = {"max_text_length": max_length, "default_text_length": 77}
    settings |= {name: value for name, value in vars(towers).items() if name != "model" and value is not None}
    if towers.model:
        return open_model_and_processor(towers.model, **settings)
    return create_model_and_processor(**settings)


def _missing(towers: TowerSettings, choices: dict[str, Any]) -> dict[str, Any]:
    """The choices that these settings leave open."""
    return {name: value for name, value in choices.items() if name in vars(towers) and vars(towers)[name] is None}


def parse(arguments: Sequence[str]) -> TrainSettings:
    """
    Raises:
        InputError: for what cannot be; a misspelt setting with the nearest right one.
    """
    from ..data.augmentation import Augmentation
    from ..training.arguments import HFClipTrainingArguments

    kinds = (TowerSettings, DataSettings, Augmentation, OutputSettings, HFClipTrainingArguments)
    parser = DataclassParser(kinds, description=__doc__, prog="hf-clip train")
    parser.add_recipe()
    for side in ("vision", "text"):
        parser.set_help(f"{side}_model", _tower_help(side))
    parser.set_defaults(eval_strategy=None)
    values = vars(parser.parse_args(arguments))
    for name in ("train_data", "output_dir"):
        if values[name] is None:
            raise InputError(f"no --{name}: it is needed (see --help)")
    if values["eval_strategy"] is None:
        values["eval_strategy"] = "epoch" if values["eval_data"] or values["eval_share"] else "no"
    try:
        towers, data, augmentation, output, args = parser.parse_dict(values)
    except (ValueError, TypeError, ImportError, OSError) as error:
        raise InputError(str(error)) from error
    _check_values(towers, data, args)
    kept = _to_keep(values, (towers, data, augmentation), args)
    return TrainSettings(towers, data, augmentation, output, args, kept)


def _tower_help(side: str) -> str:
    from ..models.tower_sources.registry import tower_names

    default = _DEFAULT_TOWERS[f"{side}_model"]
    return f"{tower_names(side)}; scratch/ before a name asks for random weights. Default: {default}."


def _to_keep(values: dict[str, Any], own: tuple[Any, ...], args: "HFClipTrainingArguments") -> dict[str, Any]:
    """All settings of our own, and those of the Trainer that are not its defaults; no secrets."""
    kept = {setting.name: values[setting.name] for part in own for setting in dataclasses.fields(part)}
    for setting in dataclasses.fields(args):
        default = setting.default if setting.default_factory is dataclasses.MISSING else setting.default_factory()
        if setting.init and (setting.name == "seed" or values[setting.name] != default):
            kept[setting.name] = _as_text(values[setting.name])
    # Neither what must stay here nor what would make it another run.
    return {n: value for n, value in kept.items() if not n.endswith("_token") and n != "resume_from_checkpoint"}


def _as_text(value: Any) -> Any:
    """A word of a closed choice as it is written in a file."""
    if isinstance(value, list):
        return [_as_text(one) for one in value]
    return value.value if isinstance(value, enum.Enum) else value


def _check_values(towers: TowerSettings, data: DataSettings, args: "HFClipTrainingArguments") -> None:
    positive = {
        "projection_dim": towers.projection_dim,
        "image_size": towers.image_size,
        "max_caption_length": data.max_caption_length,
        "shuffle_buffer": data.shuffle_buffer,
        "per_device_train_batch_size": args.per_device_train_batch_size,
        "per_device_eval_batch_size": args.per_device_eval_batch_size,
    }
    for name, value in positive.items():
        if value is not None and value < 1:
            raise InputError(f"--{name} must be 1 or more, not {value}")
    if data.eval_split and not data.eval_data:
        raise InputError("--eval_split is of --eval_data, which is not given: give it, or leave the split out")
    if args.eval_strategy != "no" and data.eval_data is None and data.eval_share is None:
        raise InputError("--eval_strategy needs --eval_data or --eval_share")
    if args.metric_for_best_model is not None:  # the Trainer has set it where load_best_model_at_end needs one
        _check_best(args, list(_named(data.eval_data or [""])))


def _check_best(args: "HFClipTrainingArguments", names: list[str]) -> None:
    """Whether a task has such a figure; whether the data do is seen when they are open.

    Args:
        names: of the evaluation sets.
    """
    from ..evaluation.tasks.registry import TASKS
    from ..training.named_sets import of_no_set, set_of

    metric = args.metric_for_best_model.removeprefix("eval_")
    name = set_of(metric, names)
    if name is None:
        raise InputError(of_no_set(metric, names))
    own = metric.removeprefix(f"{name}_") if name else metric
    known = ["loss", *(figure for task in TASKS.values() for figure in task.choosable(None, args.protocol))]
    if re.sub(r"@\d+$", "@K", own) not in known:
        of_set = f", after {name}_" if name else ""
        raise InputError(f"unknown metric_for_best_model {metric!r}: choose one of {', '.join(known)}{of_set}")


COMMAND = Train()
