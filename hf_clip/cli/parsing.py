"""Parsers whose complaints are one line, and the settings that several commands share."""

import argparse
import contextlib
from collections.abc import Iterator
from typing import Any, NoReturn

from transformers import HfArgumentParser, PreTrainedConfig
from transformers.utils import logging

from ..errors import InputError, first_line


class Parser(argparse.ArgumentParser):
    """Raises `InputError` instead of printing its usage and leaving."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see --help)")


class DataclassParser(HfArgumentParser):
    """The same for settings that are the fields of dataclasses."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see --help)")


def add_data_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", required=True, help="image folder with metadata.csv|jsonl, parquet, or Hub id")
    parser.add_argument("--split", default="test", help="of a Hub data set (default: test)")
    parser.add_argument("--image_column", help="default: image, file_name or image_path")
    parser.add_argument("--caption_column", help="default: caption, captions or text")


def positive_int(text: str) -> int:
    """A setting that counts something."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def open_model(folder: str) -> tuple[Any, Any]:
    """A trained model, in evaluation mode on the GPU if there is one, and its processor."""
    import torch

    from .. import HFClipConfig, HFClipModel, HFClipProcessor

    try:
        with _without_load_report():
            config = PreTrainedConfig.get_config_dict(folder)[0]
            if config.get("model_type") != HFClipConfig.model_type:
                raise ValueError(f"it holds a {config.get('model_type')} model")
            opened: Any = HFClipModel.from_pretrained(folder, output_loading_info=True, ignore_mismatched_sizes=True)
            model, loaded = opened
            if unusable := len(loaded["missing_keys"]) + len(loaded["mismatched_keys"]):
                raise ValueError(f"{unusable} of its weights are missing or of another size")
            processor = HFClipProcessor.from_pretrained(folder)
    except Exception as error:  # a damaged folder fails in as many ways as it has files
        raise InputError(
            f"model {folder!r} cannot be opened: give the folder or Hub id of a model that hf_clip trained ({first_line(error)})"
        ) from error
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval(), processor  # type: ignore[arg-type]


@contextlib.contextmanager
def _without_load_report() -> Iterator[None]:
    """transformers reports on weights in a long table; whoever asked for evaluation wants to know whether it works."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
