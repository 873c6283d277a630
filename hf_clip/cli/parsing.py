"""Parsers whose complaints are one line, and the settings that several commands share."""

import argparse
import difflib
import typing
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from transformers import HfArgumentParser
from transformers.hf_argparser import string_to_bool

from ..core.errors import InputError
from ..recipes import find_recipe
from .settings_file import FileSetting, read_settings

if TYPE_CHECKING:
    from ..data.sources import Source
    from ..embeddings.options import EmbedOptions

_OF_FILES = ("recipe", "config")  # settings that name where other settings stand


class _SettingsParser(argparse.ArgumentParser):
    """Raises `InputError` instead of printing its usage and leaving, and takes `--config file.yaml`.

    A file's settings become the parser's defaults, so those of the command line stand above them. A parser with
    `add_recipe` takes `--recipe name` too, above whose settings stand those of a file.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs, allow_abbrev=False)  # type: ignore[misc]
        self.add_argument(
            "--config",
            metavar="FILE",
            help="YAML file of these settings by name; those of the command line stand above it. Relative paths in "
            "it start from the working directory",
        )

    def add_recipe(self) -> None:
        self.add_argument(
            "--recipe",
            metavar="NAME",
            help="settings that were tried, of which `hf-clip recipe` has the list; --config stands above them",
        )

    def set_help(self, name: str, text: str) -> None:
        """For what is known only when the command runs."""
        for action in self._actions:
            if action.dest == name:
                action.help = text.replace("%", "%%")

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see --help)")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # type: ignore[override]
        self._check_names(args)
        for file in self._files(args):
            for setting in read_settings(file):
                self._make_default(setting)
        namespace, rest = super().parse_known_args(args, namespace)
        for name in _OF_FILES:
            vars(namespace).pop(name, None)
        return namespace, rest

    def _files(self, args: Any) -> list[str]:
        """Of settings, the later above the earlier."""
        finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
        for name in _OF_FILES:
            finder.add_argument(f"--{name}", nargs="?")
        found = finder.parse_known_args(args)[0]
        recipe = str(find_recipe(found.recipe)) if found.recipe else None
        return [file for file in (recipe, found.config) if file]

    def _check_names(self, arguments: Sequence[str]) -> None:
        for argument in arguments:
            name = argument.partition("=")[0]
            if name == "--":
                return
            if name.startswith("--") and name not in self._option_string_actions:
                raise InputError(f"unknown setting {name}{_nearest(name, self._option_string_actions)} (see --help)")

    def _make_default(self, setting: FileSetting) -> None:
        # Reversed: of a setting's two actions (--x and --no_x) the first counts.
        known = {action.dest: action for action in reversed(self._actions) if action.dest not in (*_OF_FILES, "help")}
        if setting.name not in known:
            raise InputError(f"{setting.where}: unknown setting {setting.name}{_nearest(setting.name, known)}")
        action = known[setting.name]
        try:
            self.set_defaults(**{setting.name: self._typed(action, setting.value)})
        except argparse.ArgumentError as error:
            raise InputError(f"{setting.where}: {error}") from error
        action.required = False

    def _typed(self, action: argparse.Action, value: str | list[str] | dict[str, Any]) -> Any:
        """A setting's value as the command line would have given it."""
        if isinstance(value, dict):
            if action.dest in self.mappings():
                return value
            raise argparse.ArgumentError(action, "a mapping where a value belongs")
        if isinstance(value, str):
            return self._get_values(action, [value]) if action.nargs != 0 else _on_or_off(action, value)
        if action.nargs not in ("+", "*") or not value:
            raise argparse.ArgumentError(action, "a list where one value belongs" if value else "an empty list")
        return self._get_values(action, value)

    def mappings(self) -> set[str]:
        """Names of the settings that may hold a mapping."""
        return set()


class Parser(_SettingsParser):
    """The parser of a command with settings of its own."""

    def add_flag(self, name: str, help: str) -> None:
        """A setting that is on or off, either way on the command line too (a file may have turned it on)."""
        self.add_argument(name, action=argparse.BooleanOptionalAction, default=False, help=help)


class DataclassParser(_SettingsParser, HfArgumentParser):
    """The same for settings that are the fields of dataclasses; one that may be a text or a list of them takes several
    words, and one word alone is the text."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        for action in self._actions:
            if action.dest in self._texts_or_lists():
                action.nargs = "+"

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # type: ignore[override]
        namespace, rest = super().parse_known_args(args, namespace)
        for name in self._texts_or_lists() & vars(namespace).keys():
            if isinstance(value := vars(namespace)[name], list) and len(value) == 1:
                setattr(namespace, name, value[0])
        return namespace, rest

    def _texts_or_lists(self) -> set[str]:
        return {name for name, kinds in self._kinds() if {str, list} <= kinds}

    def mappings(self) -> set[str]:
        return {name for name, kinds in self._kinds() if dict in kinds}

    def _kinds(self) -> Iterator[tuple[str, set[Any]]]:
        """Names of settings, and of what types they may be."""
        for kind in self.dataclass_types:
            for name, hint in typing.get_type_hints(kind).items():
                yield name, {hint, *map(_plain, typing.get_args(hint))}


def _plain(hint: Any) -> Any:
    return typing.get_origin(hint) or hint


def _on_or_off(action: argparse.Action, text: str) -> bool:
    try:
        return string_to_bool(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentError(action, f"{text!r} is neither true nor false") from error


def _nearest(name: str, known: Any) -> str:
    nearest = difflib.get_close_matches(name, known, n=1)
    return f": did you mean {nearest[0]}?" if nearest else ""


def add_shared_settings(parser: Parser, several_models: bool = False) -> None:
    """What every command with a trained model asks for."""
    if several_models:
        parser.add_argument("--model", required=True, nargs="+", help="folders or Hub ids of trained models")
    else:
        parser.add_argument("--model", required=True, help="folder or Hub id of a trained model")


def add_data_settings(parser: Parser, more: str = "", required: bool = True) -> None:
    """Which pictures to embed, and how.

    Args:
        more: ends the help of `--data`.
        required: whether a command can do nothing without `--data`.
    """
    parser.add_argument(
        "--data", required=required, help=f"image folder with metadata.csv|jsonl, parquet, tar shards, or Hub id{more}"
    )
    parser.add_argument(
        "--split",
        help="of data that have several; all: every one of them; default: test, or else validation, or train",
    )
    parser.add_argument("--data_config", help="configuration of a data set whose card has several")
    parser.add_argument("--image_column", help="default: image, file_name or image_path")
    parser.add_argument("--caption_column", help="default: caption, captions or text")
    parser.add_argument("--label_column", help="default: where there are no captions, the column of class labels")
    parser.add_argument("--batch_size", type=positive_int, default=64, help="pictures embedded at a time")
    parser.add_argument("--num_workers", type=count, default=0, help="processes that decode pictures")
    parser.add_flag("--strict", help="stop at the first picture that cannot be read")


def embed_options(settings: argparse.Namespace) -> "EmbedOptions":
    """How `add_data_settings` is told to embed."""
    from ..embeddings.options import EmbedOptions

    return EmbedOptions(settings.batch_size, settings.num_workers, settings.strict)


def open_data(settings: argparse.Namespace, captions_required: bool = True) -> "Source":
    """The source that `add_data_settings` asked for."""
    from ..data.named_splits import ANY
    from ..data.sources import open_source

    return open_source(
        settings.data,
        split=settings.split or ANY,
        data_config=settings.data_config,
        captions_required=captions_required,
        image_column=settings.image_column,
        caption_column=settings.caption_column,
        label_column=settings.label_column,
    )


def count(text: str) -> int:
    """A setting that may be none."""
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 0 or more")
    return int(text)


def positive_int(text: str) -> int:
    """A setting that counts something."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)
