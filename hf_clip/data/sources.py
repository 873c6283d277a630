"""Opens a source of captioned pictures: an image folder with its metadata file, parquet, CSV, JSONL, or a Hub id."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import InputError

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
    _check_captions(rows, caption_column, name)
    return Source(rows, image_column, caption_column, folder, str(name))


def _load(name: str, split: str) -> tuple[datasets.Dataset, Path]:
    path = Path(name)
    if path.is_dir():
        found = [path / metadata for metadata in _METADATA if (path / metadata).is_file()]
        files = found[:1] or sorted(path.glob("*.parquet"))
        if not files:
            raise InputError(f"{name} has neither {', '.join(_METADATA)} nor parquet files: add one with the captions")
    elif path.is_file():
        if path.suffix not in _FORMATS:
            raise InputError(f"{name}: cannot read {path.suffix or 'such'} files, only {', '.join(_FORMATS)}")
        files = [path]
    else:
        return _load_from_hub(name, split), Path()
    if all(file.stat().st_size == 0 for file in files):
        raise InputError(f"{files[0]} is empty: it needs rows of a picture and a caption")
    try:
        rows = datasets.load_dataset(
            _FORMATS[files[0].suffix], data_files=[str(file) for file in files], split="train"
        )
    except (datasets.exceptions.DatasetGenerationError, pa.ArrowInvalid, ValueError, OSError) as error:
        raise InputError(f"{files[0]} cannot be read as {files[0].suffix[1:]}: {_root_cause(error)}") from error
    return rows, files[0].parent


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
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _find_column(
    rows: datasets.Dataset, column: str | None, known: Sequence[str], setting: str, name: str | Path
) -> str:
    if column is None:
        column = next((candidate for candidate in known if candidate in rows.column_names), None)
    if column not in rows.column_names:
        missing = f"no column {column!r}" if column else f"none of the columns {', '.join(known)}"
        raise InputError(f"{name} has {missing}: set {setting} to one of {', '.join(rows.column_names)}")
    return column


def _check_captions(rows: datasets.Dataset, column: str, name: str | Path) -> None:
    """Refuses captions that are no text or empty; one pass over the column in Arrow, not in Python."""
    batch = 0
    for chunk in rows.data.column(column).chunks if rows._indices is None else [_materialise(rows, column)]:
        is_list = pa.types.is_list(chunk.type) or pa.types.is_large_list(chunk.type)
        values = chunk.flatten() if is_list else chunk
        if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
            if not (pa.types.is_null(values.type)):
                raise InputError(f"{name}: column {column!r} holds {values.type}, not text: set caption_column")
            raise InputError(f"{name}: row {batch + 1} has no caption: fill or remove it")
        blank = pc.fill_null(pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(values)), 0), True)
        parents = pc.list_parent_indices(chunk) if is_list else None
        bad = set(pc.indices_nonzero(blank).to_pylist())
        bad_rows = {parents[i].as_py() for i in bad} if parents is not None else bad
        if is_list:
            bad_rows |= set(
                pc.indices_nonzero(pc.fill_null(pc.equal(pc.list_value_length(chunk), 0), True)).to_pylist()
            )
        if bad_rows:
            raise InputError(
                f"{name}: row {batch + min(bad_rows) + 1} has an empty caption"
                f"{f', and {len(bad_rows) - 1} more' if len(bad_rows) > 1 else ''}: fill or remove such rows"
            )
        batch += len(chunk)


def _materialise(rows: datasets.Dataset, column: str) -> pa.Array:
    return rows.with_format("arrow")[:][column].combine_chunks()
