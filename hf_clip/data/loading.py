"""Finds the files of a source, and has `datasets` load them."""

import contextlib
import glob
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa

from ..errors import InputError, first_line
from .images import PICTURE_SUFFIXES
from .tars import is_tar
from .webdataset import part_names

_FORMATS = {".parquet": "parquet", ".csv": "csv", ".jsonl": "json", ".json": "json", ".tar": "webdataset"}
_METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")


def no_rows(name: str) -> InputError:
    return InputError(f"{name} has no rows: give a source with at least one picture and caption")


def find_files(name: str) -> tuple[str, list[Path]]:
    """(kind, files) of what is here under that name; ("hub", []) where nothing is."""
    path = Path(name)
    if not path.exists():
        if not glob.has_magic(name):
            return "hub", []
        files = sorted(Path(file) for file in glob.glob(name, recursive=True))
        if not files:
            raise InputError(f"no file is called {name}: mend the pattern")
    else:
        files = _files_of_folder(path) if path.is_dir() else [path]
    if all(file.stat().st_size == 0 for file in files):
        raise InputError(f"{files[0]} is empty: it needs rows of a picture and a caption")
    suffixes = sorted({".tar" if is_tar(file) else file.suffix.lower() for file in files})
    if PICTURE_SUFFIXES.issuperset(suffixes) and path.is_dir():
        return "imagefolder", files
    for suffix in suffixes:
        if suffix not in _FORMATS:
            raise InputError(f"{name}: cannot read {suffix or 'such'} files, only {', '.join(_FORMATS)}")
    kinds = sorted({_FORMATS[suffix] for suffix in suffixes})
    if len(kinds) > 1:
        raise InputError(f"{name} holds files of {' and '.join(kinds)}: give one kind, as in 'folder/*{suffixes[0]}'")
    return kinds[0], files


def _files_of_folder(path: Path) -> list[Path]:
    found = [path / metadata for metadata in _METADATA if (path / metadata).is_file()]
    shards = sorted(file for file in path.glob("[!.]*") if file.suffix == ".parquet" or is_tar(file))
    files = found[:1] or shards or _pictures_in(path)
    if not files:
        raise nothing_in(path)
    return files


def nothing_in(path: Path) -> InputError:
    return InputError(
        f"{path} has neither {', '.join(_METADATA)} nor parquet files, tar shards or pictures in folders by class: "
        "add one with the captions"
    )


def _pictures_in(path: Path) -> list[Path]:
    """Pictures in the folders of their classes, or all in one folder."""
    for pattern in ("*/*", "*"):
        files = (file for file in path.glob(pattern) if file.suffix.lower() in PICTURE_SUFFIXES)
        if found := sorted(file for file in files if not file.name.startswith(".")):
            return found
    return []


def parts_of_shards(files: list[Path], asked: Iterable[str | None]) -> list[str]:
    if not (names := part_names(files, asked)):
        raise no_rows(str(files[0]))
    return names


def load(kind: str, files: list[Path], name: str, split: str, streaming: bool) -> Any:
    if kind == "imagefolder":
        return _image_folder(Path(name), files, streaming)
    if kind == "hub":
        return _load_from_hub(name, split, streaming)
    # pandas would take a caption such as "None" or "NA" for no caption.
    options: dict[str, Any] = {"keep_default_na": False} if kind == "csv" else {}
    paths = [str(file) for file in files]
    return loaded(
        lambda: datasets.load_dataset(kind, data_files=paths, split="train", streaming=streaming, **options),
        files,
        kind,
    )


def loaded(load: Any, files: list[Path], kind: str) -> Any:
    try:
        with silenced():
            return load()
    except (datasets.exceptions.DatasetGenerationError, pa.ArrowInvalid, ValueError, OSError) as error:
        if "corresponds to no data" in _root_cause(error):
            raise InputError(f"{files[0]} has no rows: it needs a picture and a caption in each") from error
        which = str(files[0]) if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
        raise input_error(error, f"{which} cannot be read as {kind}") from error


def _image_folder(path: Path, files: list[Path], streaming: bool) -> Any:
    """Pictures by path; those in folders have the folders' names for classes."""
    columns: dict[str, Any] = {"image": [str(file) for file in files]}
    features: dict[str, Any] = {"image": datasets.Value("string")}
    if files[0].parent != path:
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


def _load_from_hub(name: str, split: str, streaming: bool) -> datasets.Dataset | datasets.IterableDataset:
    try:
        return datasets.load_dataset(name, split=split, streaming=streaming)
    except (FileNotFoundError, ConnectionError, ValueError, OSError) as error:
        raise InputError(
            f"no data at {name!r}: neither a file or folder here nor a Hub data set with a split {split!r} "
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


def first_record(rows: Any, name: str) -> dict[str, Any] | None:
    """Of a stream: what tells its columns where its format does not."""
    if isinstance(rows, datasets.Dataset):
        return None
    try:
        with silenced():
            for batch in rows.iter(1):
                return {column: values[0] for column, values in batch.items()}
    except Exception as error:  # as many kinds as there are formats
        raise input_error(error, f"{name} cannot be read") from error
    raise no_rows(name)
