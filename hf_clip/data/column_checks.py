"""Whether what the columns of a source hold will do as captions and labels."""

import itertools
from collections.abc import Sequence

import datasets
import pyarrow as pa
import pyarrow.compute as pc

from ..core.errors import InputError
from .columns import (
    Columns,
    Rows,
    as_list,
    column_batches,
    feature_of,
    is_mixed,
    labels_of_rows,
    struct_field,
    texts_of,
    value_of,
)
from .text import check_text, trimmed


def check_kinds(rows: Rows, columns: Columns, name: str) -> None:
    """
    Raises:
        InputError: a column is known, before it is read, to hold no captions, or no labels.
    """
    caption, label = (_kind_of(rows, column) for column in columns[1:])
    if not (caption is None or _is_text(caption) or is_mixed(feature_of(rows, columns.caption))):
        raise InputError(
            f"{name}: column {columns.caption!r} holds {caption}, not text: mend it or set caption_column"
        )
    if not (label is None or _is_text(label) or pa.types.is_integer(label)):
        kind = "a mix of kinds" if isinstance(label, pa.BaseExtensionType) else label
        raise InputError(
            f"{name}: column {columns.label!r} holds {kind}, not class numbers or names: set label_column"
        )
    if is_mixed(feature_of(rows, columns.image)):
        raise InputError(f"{name}: column {columns.image!r} holds a mix of kinds, not pictures: set image_column")
    if is_mixed(feature_of(rows, columns.caption)) and isinstance(rows, datasets.Dataset):
        for row, record in enumerate(rows.remove_columns(columns.image), 1):
            for text in as_list(value_of(record, str(columns.caption))):
                if text is not None:
                    check_text(text, f"{name}: row {row}")


def _kind_of(rows: Rows, column: str | None) -> pa.DataType | None:
    """What a column holds, or the lists in it; None where it is not known, or nothing stands in it."""
    feature = feature_of(rows, column)
    if feature is None:
        return None
    kind = datasets.Features({"column": feature}).arrow_schema.field("column").type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    kind = kind.value_type if is_list else kind
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return None if pa.types.is_null(kind) else kind


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def check_encoding(rows: datasets.Dataset, columns: Columns, name: str) -> None:
    """
    Raises:
        InputError: a text, or the path of a picture, that is not UTF-8.
    """
    for column in filter(None, columns):
        for start, values in column_batches(rows, column):
            if column == columns.image and pa.types.is_struct(values.type):
                values = struct_field(values, "path")
            try:
                values.validate(full=True)
            except pa.ArrowInvalid:
                check_decodable(values, column, f"{name}: row", start)


def check_decodable(values: pa.ChunkedArray, column: str, where: str, start: int = 0) -> None:
    """
    Args:
        where: begins the complaint, and is followed by the row's number.
        start: the number of the rows before these.

    Raises:
        InputError: a value with a text that is not UTF-8.
    """
    for row, value in enumerate(values, start + 1):
        try:
            value.as_py()
        except UnicodeDecodeError as error:
            shown = error.object[max(0, error.start - 20) : error.start + 20]
            raise InputError(
                f"{where} {row} has text that is not UTF-8 in column {column!r} ({bytes(shown)!r}): fix or remove it"
            ) from error


def check_stream(rows: datasets.IterableDataset, name: str, start: int, count: int) -> None:
    """After an error, to say in which row it is.

    Raises:
        InputError: one of `count` rows behind the first `start` has text that is not UTF-8.
    """
    tables = rows.with_format("arrow").iter(1)
    try:
        for row, table in enumerate(itertools.islice(tables, start, start + count), start):
            for column in table.column_names:
                check_decodable(table[column], column, f"{name}: row", row)
    except InputError:
        raise
    except Exception:  # as many kinds as there are formats: what was raised first says why
        return


def check_class_names(class_names: Sequence[str], what: str, distinct: bool) -> list[str]:
    """The names, without white space around them.

    Args:
        what: they are the classes of.
        distinct: whether two classes of the same name cannot be told apart.

    Raises:
        InputError: a name that no tokenizer takes, or the same name for two classes.
    """
    numbers: dict[str, int] = {}
    for number, name in enumerate(class_names):
        check_text(name, f"class {number} of {what}", "a name")
        if not trimmed(name):
            raise InputError(f"class {number} of {what} has an empty name: fill it in")
        first = numbers.setdefault(trimmed(name), number)
        if distinct and first != number:
            raise InputError(f"classes {first} and {number} of {what} are both called {trimmed(name)!r}: rename one")
    return [trimmed(name) for name in class_names]


def check_captions(rows: datasets.Dataset, column: str, name: str, required: bool = True) -> None:
    """Refuses empty captions, if required; in Arrow, not in Python."""
    first, count = None, 0
    for start, captions in column_batches(rows, column):
        is_list, captions, texts = texts_of(captions)
        if required and len(empty := _empty_rows(captions, texts, is_list)):
            first = start + pc.min(empty).as_py() if first is None else first
            count += pc.count_distinct(empty).as_py()
    if first is not None:
        raise InputError(
            f"{name}: row {first + 1} has an empty caption{f', and {count - 1} more' if count > 1 else ''}: "
            "fill or remove such rows"
        )


def _empty_rows(captions: pa.ChunkedArray, texts: pa.ChunkedArray, is_list: bool) -> pa.Array:
    rows = _rows_where(pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(texts)), 0))
    if not is_list:
        return rows
    rows = pc.list_parent_indices(captions).take(rows)
    return pa.concat_arrays([*rows.chunks, _rows_where(pc.equal(pc.list_value_length(captions), 0))])


def _rows_where(condition: pa.ChunkedArray) -> pa.Array:
    """Positions where a condition is true or null."""
    # In one piece: of none, pyarrow before 26.0.1 dies.
    return pc.indices_nonzero(pc.fill_null(condition, True).combine_chunks()).cast(pa.int64())


def check_labels(
    rows: datasets.Dataset, column: str, class_names: Sequence[str] | None, name: str, required: bool = False
) -> None:
    """Refuses labels that are none of the classes; where a row has a list of them, rows without one and, if required,
    with an empty one."""
    for start, labels in column_batches(rows, column):
        lists = labels
        labels, rows_of_labels = labels_of_rows(lists)
        if rows_of_labels is not None:
            _check_lists(lists, start, name, required)
        unknown = _rows_where(pc.invert(_known(labels, class_names)))
        if len(unknown):
            place = unknown[0].as_py()
            row = rows_of_labels[place].as_py() if rows_of_labels is not None else place
            raise InputError(f"{name}: row {start + row + 1} has {fault_of_label(labels[place].as_py())}")


def _known(labels: pa.ChunkedArray, class_names: Sequence[str] | None) -> pa.ChunkedArray:
    """Whether each is one of the classes, or any name or number where these are not known; or null."""
    if pa.types.is_null(labels.type):
        return pa.chunked_array([pa.nulls(len(labels), pa.bool_())])
    if not pa.types.is_integer(labels.type):
        names = [name for name in pc.unique(labels).to_pylist() if name is not None]
        known = [name for name in names if trimmed(name) and (not class_names or trimmed(name) in class_names)]
        return pc.is_in(labels, pa.array(known, labels.type))
    if not class_names:
        return pc.is_valid(labels)
    return pc.and_(pc.greater_equal(labels, 0), pc.less(labels, len(class_names)))


def fault_of_label(label: object) -> str:
    if isinstance(label, str) and not trimmed(label):
        return "an empty label: fill or remove such rows"
    return f"a label {label!r} that is no class"


def _check_lists(lists: pa.ChunkedArray, start: int, name: str, required: bool) -> None:
    faults = {"a label None that is no class": pc.is_null(lists)}
    if required:
        faults["no label: remove such rows"] = pc.equal(pc.list_value_length(lists), 0)
    for fault, faulty in faults.items():
        rows = _rows_where(faulty)
        if len(rows):
            raise InputError(f"{name}: row {start + rows[0].as_py() + 1} has {fault}")
