"""Opens a source of captioned pictures: an image folder with its metadata file, parquet, CSV, JSONL, or a Hub id."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import InputError, first_line

_FORMATS = {".parquet": "parquet", ".csv": "csv", ".jsonl": "json", ".json": "json"}
_METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
_IMAGE_COLUMNS = ("image", "file_name", "image_path")
_CAPTION_COLUMNS = ("caption", "captions", "text")


@dataclass(frozen=True)
class Source:
    """Rows of one picture and its captions.

    Args:
        rows: the data set; its pictures are not decoded yet.
        image_column, caption_column: where they stand; a caption is a string or a list of strings.
        folder: what relative picture paths start from.
        name: what the user called it.
    """

    rows: datasets.Dataset
    image_column: str
    caption_column: str
    folder: Path
    name: str

    def captions(self, row: int) -> list[str]:
        value = self.rows[row][self.caption_column]
        return [value] if isinstance(value, str) else list(value)

    def __len__(self) -> int:
        return len(self.rows)


def open_source(
    name: str | Path, *, split: str = "train", image_column: str | None = None, caption_column: str | None = None
) -> Source:
    """Opens and checks a source.

    Args:
        name: a folder with `metadata.jsonl|csv|parquet` (columns `file_name` and a caption) or with parquet shards;
            a parquet, CSV or JSONL file; or a Hub data set id.
        split: of a Hub data set.
        image_column, caption_column: default: the first known name that the source has.

    Raises:
        InputError: no such source, no rows, no such column, a caption that is empty or no text (with its row).
    """
    rows, folder = _load(str(name), split)
    if len(rows) == 0:
        raise InputError(f"{name} has no rows: give a source with at least one picture and caption")
    image_column = _find_column(rows, image_column, _IMAGE_COLUMNS, "image_column", name)
    caption_column = _find_column(rows, caption_column, _CAPTION_COLUMNS, "caption_column", name)
    if isinstance(rows.features[image_column], datasets.Image):
        rows = rows.cast_column(image_column, datasets.Image(decode=False))
    captions = rows.select_columns(caption_column).with_format("arrow")[:][caption_column]
    _check_captions(captions, caption_column, name)
    return Source(rows, image_column, caption_column, folder, str(name))


def _load(name: str, split: str) -> tuple[datasets.Dataset, Path]:
    path = Path(name)
    if not path.exists():
        return _load_from_hub(name, split), Path()
    files = _files_of(path)
    if all(file.stat().st_size == 0 for file in files):
        raise InputError(f"{files[0]} is empty: it needs rows of a picture and a caption")
    return _read(files), files[0].parent


def _files_of(path: Path) -> list[Path]:
    if path.is_dir():
        found = [path / metadata for metadata in _METADATA if (path / metadata).is_file()]
        files = found[:1] or sorted(path.glob("*.parquet"))
        if not files:
            raise InputError(f"{path} has neither {', '.join(_METADATA)} nor parquet files: add one with the captions")
        return files
    if path.suffix.lower() not in _FORMATS:
        raise InputError(f"{path}: cannot read {path.suffix or 'such'} files, only {', '.join(_FORMATS)}")
    return [path]


def _read(files: list[Path]) -> datasets.Dataset:
    kind = _FORMATS[files[0].suffix.lower()]
    # pandas would take a caption such as "None" or "NA" for no caption.
    options = {"keep_default_na": False} if kind == "csv" else {}
    try:
        with _silence():
            return datasets.load_dataset(kind, data_files=[str(file) for file in files], split="train", **options)
    except (datasets.exceptions.DatasetGenerationError, pa.ArrowInvalid, ValueError, OSError) as error:
        cause = _root_cause(error)
        if "corresponds to no data" in cause:
            raise InputError(f"{files[0]} has no rows: it needs a picture and a caption in each") from error
        raise InputError(f"{files[0]} cannot be read as {kind}: {cause}") from error


@contextlib.contextmanager
def _silence() -> Iterator[None]:
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


def _load_from_hub(name: str, split: str) -> datasets.Dataset:
    try:
        return datasets.load_dataset(name, split=split)
    except (FileNotFoundError, ConnectionError, ValueError, OSError) as error:
        raise InputError(
            f"no data at {name!r}: neither a file or folder here nor a Hub data set with a split {split!r} "
            f"that could be opened ({_root_cause(error)})"
        ) from error


def _root_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)[:200]


def _find_column(
    rows: datasets.Dataset, column: str | None, known: Sequence[str], setting: str, name: str | Path
) -> str:
    if column is None:
        column = next((candidate for candidate in known if candidate in rows.column_names), None)
    if column not in rows.column_names:
        missing = f"no column {column!r}" if column else f"none of the columns {', '.join(known)}"
        raise InputError(f"{name} has {missing}: set {setting} to one of {', '.join(rows.column_names)}")
    return column


def _check_captions(captions: pa.ChunkedArray, column: str, name: str | Path) -> None:
    """Refuses captions that are no text or empty; one pass in Arrow, not in Python."""
    is_list = pa.types.is_list(captions.type) or pa.types.is_large_list(captions.type)
    if pa.types.is_fixed_size_list(captions.type):
        # The place of a null is kept in these, and would count among the texts.
        captions, is_list = captions.cast(pa.list_(captions.type.value_type)).fill_null([]), True
    texts = pc.list_flatten(captions) if is_list else captions
    if pa.types.is_null(texts.type):
        texts = texts.cast(pa.string())
    if not (pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type)):
        kind = "a mix of kinds" if isinstance(texts.type, pa.BaseExtensionType) else texts.type
        raise InputError(f"{name}: column {column!r} holds {kind}, not text: mend it or set caption_column")
    rows = _rows_where(pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(texts)), 0))
    if is_list:
        rows = pc.list_parent_indices(captions).take(rows)
        rows = pa.concat_arrays([*rows.chunks, _rows_where(pc.equal(pc.list_value_length(captions), 0))])
    if len(rows):
        more = pc.count_distinct(rows).as_py() - 1
        raise InputError(
            f"{name}: row {pc.min(rows).as_py() + 1} has an empty caption{f', and {more} more' if more else ''}: "
            "fill or remove such rows"
        )


def _rows_where(condition: pa.ChunkedArray) -> pa.Array:
    """Positions where a condition is true or null."""
    return pc.indices_nonzero(pc.fill_null(condition, True)).cast(pa.int64())
