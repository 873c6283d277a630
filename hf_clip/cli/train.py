"""`hf-clip train`: trains a text tower and an image tower on captioned pictures."""

import difflib
from dataclasses import dataclass, field

from ..data.augmentation import Augmentation
from ..errors import InputError
from ..training.arguments import HFClipTrainingArguments
from .output import Printer, recall_rows
from .parsing import DataclassParser


@dataclass
class TowerSettings:
    """Which towers, and how they are joined."""

    vision_model: str = field(
        default="microsoft/resnet-50", metadata={"help": "Hub id, folder, or scratch/resnet-10 … scratch/resnet-152."}
    )
    text_model: str = field(default="google-bert/bert-base-uncased", metadata={"help": "Hub id or folder."})
    projection_dim: int = field(default=512, metadata={"help": "Width of the shared space."})
    projection: str = field(default="linear", metadata={"help": "linear, mlp or none."})
    text_pooling: str | None = field(default=None, metadata={"help": "cls, mean, last or pooler."})
    vision_pooling: str | None = field(default=None, metadata={"help": "cls, mean, last or pooler."})
    image_size: int | None = field(default=None, metadata={"help": "Side of the square pictures, in pixels."})


@dataclass
class DataSettings:
    """Which pictures and captions."""

    train_data: str | None = field(
        default=None, metadata={"help": "Image folder with metadata.csv|jsonl, parquet, CSV, JSONL, or a Hub id."}
    )
    eval_data: str | None = field(default=None, metadata={"help": "The same, for retrieval while training."})
    image_column: str | None = field(default=None, metadata={"help": "Default: image, file_name or image_path."})
    caption_column: str | None = field(default=None, metadata={"help": "Default: caption, captions or text."})
    max_caption_length: int | None = field(default=None, metadata={"help": "In tokens; default 77."})


@dataclass
class OutputSettings:
    json: bool = field(default=False, metadata={"help": "One JSON object on stdout."})


def run(arguments: list[str], printer: Printer) -> None:
    towers, data, augmentation, output, args = parse(arguments)

    from ..data.sources import open_source
    from ..towers import create_model_and_processor
    from ..training.run import check_output_folder, train

    check_output_folder(args)
    columns = {"image_column": data.image_column, "caption_column": data.caption_column}
    train_source = open_source(data.train_data, **columns)
    eval_source = open_source(data.eval_data, split="validation", **columns) if data.eval_data else None
    # Random heads and towers come from the seed; the Trainer sets it again, but only after they are made.
    from transformers import set_seed

    set_seed(args.seed)
    model, processor = create_model_and_processor(
        towers.vision_model,
        towers.text_model,
        image_size=towers.image_size,
        projection_dim=towers.projection_dim,
        projection=towers.projection,
        text_pooling=towers.text_pooling,
        vision_pooling=towers.vision_pooling,
    )
    metrics = train(
        model,
        processor,
        args,
        train_source,
        eval_source,
        augmentation=augmentation,
        max_length=data.max_caption_length,
        towers=(towers.vision_model, towers.text_model),
    )
    if not args.should_save:
        return
    if output.json:
        printer.json(metrics | {"output_dir": args.output_dir})
        return
    if eval_source:
        printer.line(f"{metrics['images']} pictures, {metrics['captions']} captions of {eval_source.name}")
        printer.table(["", "model", "chance"], recall_rows(metrics, (1, 5, 10)))
    for row, name, reason in metrics["skipped_training_images"]:
        printer.line(f"skipped row {row + 1}: {name}: {reason}")
    printer.line(f"model, metrics and pictures: {args.output_dir}")


def parse(
    arguments: list[str],
) -> tuple[TowerSettings, DataSettings, Augmentation, OutputSettings, HFClipTrainingArguments]:
    """The settings of a command line, or an `InputError` that names the nearest right one."""
    kinds = (TowerSettings, DataSettings, Augmentation, OutputSettings, HFClipTrainingArguments)
    parser = DataclassParser(kinds, description=__doc__, prog="hf-clip train", allow_abbrev=False)  # type: ignore[arg-type]
    given = {argument.partition("=")[0] for argument in arguments}
    _check_names(parser, given)
    if given.isdisjoint(("-h", "--help")):
        for name in ("--train_data", "--output_dir"):
            if name not in given:
                raise InputError(f"no {name}: it is needed (see --help)")
    if "--eval_data" in given:
        parser.set_defaults(eval_strategy="epoch")
    try:
        towers, data, augmentation, output, args = parser.parse_args_into_dataclasses(arguments)
    except InputError:
        raise
    except (ValueError, ImportError, OSError) as error:
        raise InputError(str(error)) from error
    _check_values(towers, data, args)
    return towers, data, augmentation, output, args


def _check_values(towers: TowerSettings, data: DataSettings, args: HFClipTrainingArguments) -> None:
    positive = {
        "projection_dim": towers.projection_dim,
        "image_size": towers.image_size,
        "max_caption_length": data.max_caption_length,
        "per_device_train_batch_size": args.per_device_train_batch_size,
        "per_device_eval_batch_size": args.per_device_eval_batch_size,
    }
    for name, value in positive.items():
        if value is not None and value < 1:
            raise InputError(f"--{name} must be 1 or more, not {value}")
    if args.eval_strategy != "no" and data.eval_data is None:
        raise InputError("--eval_strategy needs --eval_data")
    metric = args.metric_for_best_model
    known = metric is None or metric.removeprefix("eval_") == "loss" or "_retrieval_" in metric
    if not known:
        raise InputError(f"unknown metric_for_best_model {metric!r}: such as image_retrieval_recall@10, or loss")


def _check_names(parser: DataclassParser, given: set[str]) -> None:
    known = list(parser._option_string_actions)
    for name in sorted(given):
        if name.startswith("--") and name not in known:
            nearest = difflib.get_close_matches(name, known, n=1)
            raise InputError(f"unknown setting {name}{f': did you mean {nearest[0]}?' if nearest else ''}")
