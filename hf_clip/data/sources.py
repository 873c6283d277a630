"""Opens a source of captioned or labelled pictures: a folder, parquet, CSV, JSONL, WebDataset shards, or a Hub id."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Unpack

import datasets
import numpy as np
import pyarrow.compute as pc

from ..core.errors import InputError
from .column_checks import (
    check_captions,
    check_class_names,
    check_encoding,
    check_kinds,
    check_labels,
    check_stream,
    fault_of_label,
)
from .columns import (
    AskedColumns,
    ColumnFeatures,
    Columns,
    ColumnSettings,
    Row,
    Rows,
    as_list,
    column_batches,
    column_names,
    feature_of,
    find_columns,
    find_path,
    is_mixed,
    label_numbers,
    labels_of_rows,
    of_list,
    value_of,
)
from .finding import Found, find_files
from .folders import nothing_in, say_once
from .images import image_name
from .json_check import check_json
from .loading import first_record, input_error, load, loaded, no_rows, parts_of_shards, silenced
from .named_splits import ALL, TRAINING, canonical, check_unsplit, choose_split
from .opened import Opened, columns_by_type, features_of_record, is_opened, name_of_rows, rows_of_split
from .row_splits import RowSplits, first_value, row_splits_of
from .shards import check_order, count_shards, say_if_one, shard_of
from .text import check_text, trimmed
from .web_addresses import check_address
from .webdataset import open_shards

_READ_AHEAD = 16  # rows of a stream that are taken at once


@dataclass(frozen=True)
class Source:
    """Rows of one picture, its captions and its label.

    Args:
        rows: the data set, with only the columns named here; its pictures are not decoded yet.
        image_column: where the pictures stand.
        caption_column: where the captions stand, each a string or a list of strings; None: the names of the classes
            are the captions, or there are none.
        folder: what relative picture paths start from.
        name: what the user called it.
        label_column: where the class stands, as a number or a name, or the list of several; or None.
        class_names: of class 0, 1, …; None where they are not known.
        captions_required: whether a row without a caption is a fault.
        files: of a stream, where it has a shard for each.
        row_numbers: of a part of a source, where its rows stood in the whole.
        split: which of several splits it is; "" where there is but one.
        row_splits: of a stream whose rows are of several splits, which each is of: those of `split` are read.
    """

    rows: datasets.Dataset | datasets.IterableDataset
    image_column: str
    caption_column: str | None
    folder: Path
    name: str
    label_column: str | None = None
    class_names: list[str] | None = None
    captions_required: bool = True
    files: tuple[str, ...] = ()
    row_numbers: np.ndarray | None = None
    split: str = ""
    row_splits: RowSplits | None = None

    def __len__(self) -> int:
        if self.streaming:
            raise InputError(f"{self.name} is streamed, and its number of rows unknown: open it without streaming")
        return len(self.rows)

    @property
    def streaming(self) -> bool:
        return isinstance(self.rows, datasets.IterableDataset)

    @property
    def has_captions(self) -> bool:
        return bool(self.caption_column or self.label_column)

    def captions(self, row: int) -> list[str]:
        return self.captions_of(self.rows[row])

    def captions_of(self, record: Row) -> list[str]:
        """Of a row of `rows`: its captions, or the name of its class where the source has no captions."""
        if self.caption_column:
            return [caption for caption in as_list(value_of(record, self.caption_column)) if caption]
        if self.label_column:
            labels = as_list(self.label_of(record))
            if self.class_names:
                return [self.class_names[label] for label in labels]
            return [label for label in labels if isinstance(label, str)]
        return []

    def label_of(self, record: Row) -> int | str | list[int | str]:
        """Of a row of `rows`: the number of its class, or what stands there where the classes are not known; of
        several, the list."""
        label = value_of(record, self.label_column) if self.label_column else None
        if isinstance(label, list):
            return [self._label(one) for one in label]
        return self._label(label)

    def _label(self, label: Any) -> Any:
        name = trimmed(label) if isinstance(label, str) else label
        return self._numbers.get(name, name) if isinstance(name, str) else name

    def labels(self) -> np.ndarray:
        """(rows,) int64, the number of each row's class; of several a row, (rows, classes), boolean.

        Raises:
            InputError: there are none, or several a row and the classes are not known.
        """
        if self.label_column is None:
            raise InputError(f"{self.name} has no labels: set label_column")
        batches = column_batches(self.rows, self.label_column)
        return np.concatenate([label_numbers(batch, self.class_names) for _, batch in batches])

    @property
    def has_classes(self) -> bool:
        """Whether its labels can be told apart as classes, as `labels` gives them: lists of numbers need names."""
        feature = feature_of(self.rows, self.label_column)
        is_list = is_mixed(feature) or of_list(feature) is not feature
        return bool(self.label_column and (self.class_names or not is_list))

    @property
    def labels_are_captions(self) -> bool:
        """Whether a row without a label is one without a caption."""
        return self.captions_required and not self.caption_column

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.class_names or ())}

    def row_number(self, row: int) -> int:
        """Where a row stands in what the user gave."""
        return row if self.row_numbers is None else int(self.row_numbers[row])

    def picture_name(self, record: Row) -> str:
        """Its file, from the source's folder on: where that lies is nobody's business."""
        name = image_name(record[self.image_column])
        return str(Path(name).relative_to(self.name)) if Path(name).is_relative_to(self.name) else name

    @cached_property
    def num_shards(self) -> int:
        """Of a stream: how many can be read one by one, and are all of it together."""
        return count_shards(self.rows)

    def shard_name(self, shard: int) -> str:
        return self.files[shard] if self.files else self.name

    def read_shard(self, shard: int) -> Iterator[dict[str, Any]]:
        """The checked rows of one shard of a stream.

        Raises:
            InputError: a shard that cannot be read, a row without captions or with an unknown label.
        """
        rows = shard_of(self.rows, shard)
        batches = rows.iter(_READ_AHEAD)
        row = 0
        while True:
            try:
                with silenced():
                    batch = next(batches, None)
            except Exception as error:  # as many kinds as there are formats
                check_json([self.shard_name(shard)])
                with silenced():
                    check_stream(rows, self.shard_name(shard), row, _READ_AHEAD)
                raise input_error(error, f"{self.shard_name(shard)} cannot be read after row {row}") from error
            if batch is None:
                return
            for values in zip(*batch.values(), strict=True):
                row += 1
                record = dict(zip(batch, values, strict=True))
                where = f"{self.shard_name(shard)}: row {row}"
                if self.row_splits and self.row_splits.of(record, where) not in self.split.split("+"):
                    continue
                self._check(record, where)
                yield record

    def _check(self, record: Row, where: str) -> None:
        """What `open_source` checks of all rows where it does not stream."""
        if self.caption_column:
            captions = as_list(value_of(record, self.caption_column))
            for caption in captions:
                if caption is not None:
                    check_text(caption, where)
            if self.captions_required and not all(caption and caption.strip() for caption in captions or [None]):
                raise InputError(f"{where} has an empty caption: fill or remove such rows")
        if self.label_column:
            labels = as_list(self.label_of(record))
            if not labels and self.labels_are_captions:
                raise InputError(f"{where} has no label: remove such rows")
            for label in labels:
                self._check_label(label, where)

    def _check_label(self, label: Any, where: str) -> None:
        if self.class_names:
            known = type(label) is int and 0 <= label < len(self.class_names)
        else:
            known = type(label) is int or (isinstance(label, str) and label != "")
        if not known:
            raise InputError(f"{where} has {fault_of_label(label)}")
        if self.labels_are_captions and not self.class_names and isinstance(label, int):
            raise _no_captions(self)


def no_source(given: object) -> InputError:
    """
    Args:
        given: where a source should be.
    """
    if isinstance(given, Source):
        return InputError(f"{given.name} is a source already: give it as it is")
    return InputError(f"a {type(given).__name__} is no source: open it with hf_clip.data.open_source")


def open_source(
    given: str | Path | Opened,
    *,
    split: str | Sequence[str] = TRAINING,
    data_config: str | None = None,
    streaming: bool = False,
    captions_required: bool = True,
    labels_required: bool = False,
    **columns: Unpack[ColumnSettings],
) -> Source:
    """Opens and checks a source.

    Args:
        given: a folder with `metadata.jsonl|csv|parquet` (columns `file_name` and a caption), with parquet or tar
            shards, or with a folder of pictures for each class; a parquet, CSV, JSONL or tar file; a pattern such as
            `shards/*.tar`; a Hub data set id; or what `datasets` has opened: a `Dataset`, an `IterableDataset`, or
            either's dict of splits.
        split: of a Hub data set, a dict of splits, and a folder that holds several: by name ("train+validation",
            "all"), or a list of names, of which the first that is there is taken. Splits of a folder are told by its
            card, the names of its files or folders, the folders that its metadata lead into, or a column `split`.
        data_config: one of several configurations that a data set's card has.
        streaming: rows are read, and checked, when training comes to them.
        captions_required: False for pictures alone.
        labels_required: True finds labels beside captions too, in the first column of classes or one named label,
            labels, class or cls.
        image_column, caption_column: default: the first known name that the source has; of rows that `datasets` has
            opened, the only column of images (`datasets.Image`), and the only other one of texts or lists of texts,
            which beside class labels needs a known name. A dot leads into a structure: `json.caption`.
        label_column: default: where the source has no captions, its column of class labels.
        class_names: of the labels 0, 1, …, or all that may stand in the label column; default: the source's own,
            which also stay where all of them are among these: evaluation then goes by name.

    Raises:
        InputError: no such source, no rows, no such column, or several that may be meant; a caption that is empty or
            no text, a label outside the class names (with its row); an `IterableDataset` that is shuffled without a
            seed, or the part of one process.
    """
    asked, class_names = _asked(**columns)
    name = name_of_rows(given) if is_opened(given) else str(given)
    wanted = _Wanted(name, asked, split, streaming, captions_required, labels_required)
    if is_opened(given):
        files, read = Found("opened", []), _read_opened(given, wanted, data_config)
    elif isinstance(given, str | Path):
        files = find_files(name, split, data_config)
        read = _read_files(files, wanted, data_config)
    else:
        raise no_source(given)
    source = _checked(_source_of(read, files, wanted, class_names))
    return _rows_of_split(source, read.every, read.splits, split) if read.splits else source


class _Wanted(NamedTuple):
    """What the user says of a source."""

    name: str
    columns: AskedColumns
    split: str | Sequence[str]
    streaming: bool
    captions_required: bool
    labels_required: bool

    def find(self, features: ColumnFeatures) -> Columns:
        return find_columns(features, self.columns, self.captions_required, self.name, self.labels_required)


class _Read(NamedTuple):
    """What was read.

    Args:
        rows: with the columns `found` alone.
        taken: what the split is called.
        every: with all columns.
        first: of a stream, its first row.
        splits: which of several splits each row is of.
    """

    rows: Rows
    found: Columns
    taken: str
    every: Rows = None
    first: Row | None = None
    splits: RowSplits | None = None


def _asked(
    *,
    image_column: str | None = None,
    caption_column: str | None = None,
    label_column: str | None = None,
    class_names: Sequence[str] | None = None,
) -> tuple[AskedColumns, Sequence[str] | None]:
    """`ColumnSettings`, of which Python refuses what is misspelt.

    Raises:
        InputError: a column by anything but its name.
    """
    given = {"image_column": image_column, "caption_column": caption_column, "label_column": label_column}
    for setting, column in given.items():
        if not isinstance(column, str | None):
            raise InputError(f"{setting} is a {type(column).__name__}: give the name of one column")
    return AskedColumns(image_column, caption_column, label_column), class_names


def _read_opened(given: Opened, wanted: _Wanted, data_config: str | None) -> _Read:
    if wanted.streaming or data_config is not None:
        setting = "streaming" if wanted.streaming else "data_config"
        raise InputError(f"{wanted.name} is open already, which {setting} cannot change: set it in load_dataset")
    every, taken = rows_of_split(given, wanted.split, wanted.name)
    if isinstance(every, datasets.IterableDataset):
        check_order(every, wanted.name)
        say_if_one(every, wanted.name)
    first = first_record(every, wanted.name, [])
    features = dict(every.features or features_of_record(first or {}))
    columns = columns_by_type(
        features, wanted.columns, wanted.name,
        captions_required=wanted.captions_required, labels_required=wanted.labels_required,
    )  # fmt: skip
    return _with_columns(every, first, taken, Found("opened", []), wanted._replace(columns=columns))


def _read_files(files: Found, wanted: _Wanted, data_config: str | None) -> _Read:
    if files.kind == "imagefolder" and wanted.captions_required and files.is_flat:
        raise nothing_in(files.files[0].parent)
    if files.kind == "webdataset":
        found = wanted.find(dict.fromkeys(parts_of_shards(files.files, wanted.columns)))
        rows = loaded(lambda: open_shards(files.files, *found, wanted.streaming), files.files, files.kind)
        return _Read(rows, found, files.split)
    every, taken = load(files, wanted.name, wanted.split, data_config, wanted.streaming, wanted.find)
    return _with_columns(every, first_record(every, wanted.name, files.files), taken, files, wanted)


def _with_columns(every: Rows, first: Row | None, taken: str, files: Found, wanted: _Wanted) -> _Read:
    found = wanted.find(column_names(every, first))
    check_address(first_value(every, first, found.image), found.image, wanted.name)
    splits = row_splits_of(every, first, found.image, files)
    rows = _select(every, (*found, splits.column if splits and wanted.streaming else None), first)
    return _Read(rows, found, taken, every, first, splits)


def _source_of(read: _Read, files: Found, wanted: _Wanted, class_names: Sequence[str] | None) -> Source:
    """Once its columns are known to hold what they should."""
    rows, found, name = read.rows, read.found, wanted.name
    if not (read.taken or read.splits):
        check_unsplit(wanted.split, name)
    check_kinds(rows, found, name)
    if isinstance(rows, datasets.Dataset):
        check_encoding(rows, found, name)
    has_shard_names = isinstance(rows, datasets.IterableDataset) and len(files.files) == count_shards(rows)
    return Source(
        rows,
        found.image,
        found.caption,
        folder=_folder_of(files, rows, found.image),
        name=name,
        label_column=found.label,
        class_names=_names_of_classes(read, name, class_names),
        captions_required=wanted.captions_required,
        files=tuple(map(str, files.files)) if has_shard_names else (),
        split=read.taken,
    )


def _names_of_classes(read: _Read, name: str, given: Sequence[str] | None) -> list[str] | None:
    """Those that the data have say which number is which; others take their place by number."""
    own = _class_names(read.rows, read.found.label, name)
    if given is None:
        return own
    names = check_class_names(given, "class_names", distinct=_by_name(read.rows, read.found.label, read.first))
    return own if own and set(own) <= set(names) and holds_classes(read.rows, read.found.label) else names or None


def _folder_of(files: Found, rows: Rows, image: str) -> Path:
    """What relative paths start from."""
    if files.kind in ("hub", "imagefolder", "opened"):
        return Path()
    folders = list(dict.fromkeys(file.parent for file in files.files))
    by_path = rows.features is None or isinstance(rows.features.get(image), datasets.Value)
    if len(folders) > 1 and by_path and files.kind != "webdataset":
        raise InputError(
            f"{files.files[0]} and {files.files[-1]} name images by path, and lie in several folders: give "
            "one of them, or one file for all"
        )
    return folders[0]


def _rows_of_split(source: Source, every: Rows, splits: RowSplits, asked: str | Sequence[str]) -> Source:
    """The part of a source whose rows are of several splits."""
    if source.streaming:
        if asked == ALL:
            return replace(source, split=ALL)
        return replace(source, split=_split_of_stream(splits, asked, source.name), row_splits=splits)
    by_row = splits.of_rows(every, source.name)
    split, names = choose_split(sorted(set(by_row), key=by_row.index), asked, source.name)
    rows = np.flatnonzero(np.isin(by_row, names))
    return replace(source, rows=source.rows.select(rows), row_numbers=rows, split=split)


def _split_of_stream(splits: RowSplits, asked: str | Sequence[str], name: str) -> str:
    try:
        return choose_split(splits.names, asked, name)[0]
    except InputError:
        if splits.are_all:
            raise
    parts = asked.split("+") if isinstance(asked, str) else asked[:1]  # it may come later
    split = "+".join(canonical(part.strip()) for part in parts)
    say_once(f"{name}: no row of {split} is among the first of this stream: it is read on to find them")
    return split


def _checked(source: Source) -> Source:
    if not source.streaming:
        if len(source.rows) == 0:
            raise no_rows(source.name)
        if source.caption_column:
            check_captions(source.rows, source.caption_column, source.name, source.captions_required)
        if source.label_column:
            names, are_captions = source.class_names, source.labels_are_captions
            check_labels(source.rows, source.label_column, names, source.name, required=are_captions)
        if source.labels_are_captions and not source.class_names:
            raise _no_captions(source)
    return source


def _no_captions(source: Source) -> InputError:
    return InputError(
        f"{source.name} has no captions, and its labels in {source.label_column!r} are numbers: give class_names"
    )


def _select(rows: Rows, columns: Sequence[str | None], first: Row | None) -> Any:
    """Only the columns that are used, pictures undecoded: another one may be costly, or not decodable here."""
    known = dict(rows.features) if rows.features else first
    tops = (find_path(known, column)[0] for column in columns if column)
    rows = rows.select_columns(list(dict.fromkeys(tops)))
    if rows.features and isinstance(rows.features.get(columns[0]), datasets.Image):
        rows = rows.cast_column(columns[0], datasets.Image(decode=False))
    return rows


def holds_classes(rows: Rows, label: str | None) -> bool:
    """Whether a label column is known to be one of classes, or of lists of them."""
    return isinstance(of_list(feature_of(rows, label)), datasets.ClassLabel)


def _class_names(rows: Rows, label: str | None, name: str) -> list[str] | None:
    """Of a `ClassLabel`; of names that stand in the column themselves, where it can be read to its end."""
    feature = of_list(feature_of(rows, label))
    if isinstance(feature, datasets.ClassLabel):
        return check_class_names(feature.names, f"{label!r} in {name}", distinct=True)
    if not label or isinstance(rows, datasets.IterableDataset):
        return None
    batches = (labels_of_rows(batch)[0] for _, batch in column_batches(rows, label))
    names = {name for batch in batches for name in pc.unique(batch).to_pylist()}
    are_names = names and all(isinstance(name, str) for name in names)
    return sorted({trimmed(name) for name in names} - {""}) or None if are_names else None


def _by_name(rows: Rows, label: str | None, first: Row | None) -> bool:
    """Whether labels are names, as far as it is known."""
    feature = of_list(feature_of(rows, label))
    if isinstance(feature, datasets.Value):
        return feature.dtype.endswith(("string", "string_view"))
    return any(isinstance(one, str) for one in as_list(value_of(first or {}, label or "")))
