"""Data as the public functions take them: by name, as `datasets` opened them, or as a `Source`."""

from pathlib import Path
from typing import TypeAlias

from .named_splits import ANY
from .opened import Opened, is_opened, name_of_rows
from .sources import Source, open_source

Data: TypeAlias = str | Path | Opened | Source


def as_source(data: Data, *, captions_required: bool = True) -> Source:
    """A source as it is; else opened: of several splits test, or else validation, or train.

    Raises:
        InputError: see `open_source`.
    """
    if isinstance(data, Source):
        return data
    return open_source(data, split=ANY, captions_required=captions_required)


def called(data: Data) -> str:
    """What to call it."""
    if isinstance(data, Source):
        return data.name
    return name_of_rows(data) if is_opened(data) else str(data)
