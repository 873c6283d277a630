"""Parsers whose complaints are one line, and the settings that several commands share."""

import argparse
from typing import Any, NoReturn

from transformers import HfArgumentParser

from ..errors import InputError


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


def open_model(folder: str) -> tuple[Any, Any]:
    """A trained model, in evaluation mode on the GPU if there is one, and its processor."""
    import torch

    from .. import HFClipModel, HFClipProcessor

    try:
        model = HFClipModel.from_pretrained(folder)
        processor = HFClipProcessor.from_pretrained(folder)
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"model {folder!r} cannot be opened: give the folder or Hub id of a model that hf_clip trained ({reason})"
        ) from error
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval(), processor  # type: ignore[arg-type]
