"""Has `datasets` load the files of a source."""

import contextlib
import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa

from ..core.digests import content_id
from ..core.errors import InputError, first_line
from .column_checks import check_stream
from .columns import ColumnFeatures, Columns, Row, Rows
from .csv_check import check_csv
from .csv_text import converters_of, csv_header
from .finding import Found
from .folders import say_once
from .json_check import check_json
from .webdataset import part_names

Find = Callable[[ColumnFeatures], Columns]  # of features by name


def no_rows(name: str) -> InputError:
    return InputError(f"{name} has no rows: give a source with at least one picture and caption")


def parts_of_shards(files: list[Path], asked: Iterable[str | None]) -> list[str]:
    if not (names := part_names(files, asked)):
        raise no_rows(str(files[0]))
    return names


def load(
    found: Found, name: str, split: str | Sequence[str], config: str | None, streaming: bool, find: Find
) -> tuple[Rows, str]:
    """(rows, what the split is called), as `find_files` found them; split and config are those of a Hub data set.

    Args:
        find: which columns of those that there are will be read.
    """
    kind, files = found.kind, found.files
    if kind == "hub":
        return _load_from_hub(name, split, config, streaming)
    if kind == "imagefolder":
        return _image_folder(files, found.is_flat, streaming), found.split
    options: dict[str, Any] = {}
    if kind == "csv":
        for file in files:
            check_csv(file)
        # pandas would take a caption such as "None" or "NA" for no caption, and one such as 007 for a number.
        options = {"keep_default_na": False}
        if header := csv_header(files[0]):
            options["converters"] = converters_of(files, find(dict.fromkeys(header)), streaming)
    check_json(files, lists_alone=True)
    paths = [_openable(file) for file in files]
    rows = loaded(
        lambda: datasets.load_dataset(kind, data_files=paths, split="train", streaming=streaming, **options),
        files,
        kind,
    )
    return rows, found.split


def _openable(file: Path) -> str:
    """The path of a file as `datasets` opens it: it takes paths for patterns, and parts of them for chained ones."""
    path = os.path.abspath(file)
    if "::" in path or not path.isprintable():
        path = str(_plain_link(path))
    return glob.escape(path)


def _plain_link(path: str) -> Path:
    """A link to a file by a name that nothing takes for something else; the same in each run, as caches go by it."""
    folder = Path(datasets.config.HF_DATASETS_CACHE, "links")
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / f"{content_id(os.fsencode(path)) % 2**64:016x}{Path(path).suffix}"
    with contextlib.suppress(FileExistsError):
        link.symlink_to(path)
    return link


def loaded(load: Callable[[], Rows], files: list[Path], kind: str) -> Rows:
    try:
        with silenced():
            return load()
    except (datasets.exceptions.DatasetGenerationError, pa.ArrowInvalid, ValueError, OSError) as error:
        if "corresponds to no data" in _root_cause(error):
            raise InputError(f"{files[0]} has no rows: it needs a picture and a caption in each") from error
        check_json(files)
        which = str(files[0]) if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
        raise input_error(error, f"{which} cannot be read as {kind}") from error


def _image_folder(files: list[Path], is_flat: bool, streaming: bool) -> Rows:
    """Pictures by path; those in folders have the folders' names for classes."""
    columns: dict[str, list[Any]] = {"image": [str(file) for file in files]}
    features: ColumnFeatures = {"image": datasets.Value("string")}
    if not is_flat:
        names = sorted({file.parent.name for file in files})
        numbers = {name: number for number, name in enumerate(names)}
        columns["label"] = [numbers[file.parent.name] for file in files]
        features["label"] = datasets.ClassLabel(names=names)
    rows = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    # Small shards: in one, all pictures may be of the same class.
    return rows.to_iterable_dataset(num_shards=min(len(rows), 1024)) if streaming else rows


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """`datasets` logs what it raises anyway, and draws a bar for files that are read in a moment."""
    verbosity, bars = datasets.logging.get_verbosity(), not datasets.are_progress_bars_disabled()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.logging.set_verbosity(verbosity)
        if bars:
            datasets.enable_progress_bars()


def _load_from_hub(name: str, split: str | Sequence[str], config: str | None, streaming: bool) -> tuple[Rows, str]:
    """The split of that name, or the first of several that would do."""
    first, *others = [split] if isinstance(split, str) else split
    try:
        return datasets.load_dataset(name, config, split=first, streaming=streaming), first
    except (FileNotFoundError, ConnectionError, ValueError, OSError) as error:
        if others and re.search("unknown split|bad split", str(error), re.IGNORECASE):
            found = _load_from_hub(name, others, config, streaming)
            say_once(f"{name} has no split {first}: {found[1]} is read; for another set split")
            return found
        raise InputError(
            f"no data at {name!r}: neither a file or folder here nor a Hub data set with a split {first!r} "
            f"that could be opened ({_root_cause(error)})"
        ) from error


def input_error(error: BaseException, what: str) -> InputError:
    """The error itself where it is one already, however `datasets` has wrapped it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, InputError):
            return InputError(str(cause))
        cause = cause.__cause__
    return InputError(f"{what}: {_root_cause(error)}")


def _root_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)[:200]


def first_record(rows: Rows, name: str, files: Sequence[Path]) -> Row | None:
    """Of a stream: what tells its columns where its format does not."""
    if isinstance(rows, datasets.Dataset):
        return None
    try:
        with silenced():
            for batch in rows.iter(1):
                return {column: values[0] for column, values in batch.items()}
    except Exception as error:  # as many kinds as there are formats
        check_json(files)
        with silenced():
            check_stream(rows, name, 0, 1)
        raise input_error(error, f"{name} cannot be read") from error
    raise no_rows(name)
