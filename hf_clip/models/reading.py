"""Reads the files of a tower's folder or Hub repository, and says which of them cannot be read."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypedDict, TypeVar

from transformers import PreTrainedModel
from transformers.utils import cached_file, logging

from ..core.errors import InputError, first_line


def read_json(name: str, file: str) -> dict[str, Any]:
    """A file of a folder or Hub repository; empty where there is none."""
    path = cached_file(
        name,
        file,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        _raise_exceptions_for_gated_repo=False,
    )
    return json.loads(Path(path).read_text()) if path else {}


Model = TypeVar("Model", bound=PreTrainedModel)


class LoadReport(TypedDict):
    """What transformers says of the weights that it has loaded: names, with shapes where these are what differs."""

    missing_keys: set[str]
    unexpected_keys: set[str]
    mismatched_keys: set[tuple[str, object, object]]


def load_with_report(model_class: type[Model], name: str, **settings: Any) -> tuple[Model, LoadReport]:
    """As `from_pretrained`, which refuses no weights that are missing or of another shape: its report names them."""
    opened: Any = model_class.from_pretrained(name, output_loading_info=True, ignore_mismatched_sizes=True, **settings)
    return opened


@contextlib.contextmanager
def reading(name: str, what: str) -> Iterator[None]:
    """Around a library's reading of somebody's files, and nothing of our own: it fails in as many ways as files do.

    Raises:
        InputError: with what the library says, where it has no kind of error for it.
    """
    try:
        yield
    except (OSError, ValueError, ImportError):  # these say by themselves what is wrong
        raise
    except Exception as error:
        said = f"{type(error).__name__}: {first_line(error)}"
        raise InputError(f"{name!r} holds no {what} that can be read ({said}): save it again") from error


@contextlib.contextmanager
def without_load_report() -> Iterator[None]:
    """transformers reports on weights in a long table; whoever opens a model wants to know whether it works."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
