"""The columns of a source: which hold pictures, captions and labels, and whether what they hold will do."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import InputError

_IMAGE_COLUMNS = ("image", "file_name", "image_path", "jpg", "jpeg", "png", "webp")
_LABEL_COLUMNS = ("label", "labels", "class", "cls")
_CAPTIONS = ("caption", "captions", "text", "txt")
_CAPTION_COLUMNS = (*_CAPTIONS, *(f"json.{name}" for name in _CAPTIONS))
_BATCH = 100_000  # rows that are checked at once


class Columns(NamedTuple):
    """Names of the columns; a dotted one leads into a structure."""

    image: str | None
    caption: str | None
    label: str | None


def column_names(rows: Any, first: dict[str, Any] | None) -> dict[str, Any]:
    """Columns with their features (None where they are not known), those within structures under dotted names."""
    features = dict(rows.features) if rows.features else dict.fromkeys(first or rows.column_names)
    for column, feature in list(features.items()):
        inner = feature if isinstance(feature, dict) else (first or {}).get(column)
        if isinstance(inner, dict) and not isinstance(feature, datasets.Image):
            features |= {f"{column}.{field}": inner[field] if inner is feature else None for field in inner}
    return features


def find_columns(
    features: dict[str, Any], asked: Columns, captions_required: bool, name: str, labels_required: bool = False
) -> Columns:
    """The columns that were asked for, or else the first known ones.

    Raises:
        InputError: one that the source lacks.
    """
    pictures = [column for column, feature in features.items() if isinstance(feature, datasets.Image)]
    image = _find_column(features, asked.image, (*_IMAGE_COLUMNS, *pictures), "image_column", name)
    caption = _find_column(features, asked.caption, _CAPTION_COLUMNS, "caption_column", name, required=False)
    classes = [column for column, feature in features.items() if isinstance(of_list(feature), datasets.ClassLabel)]
    known = (*classes, *_LABEL_COLUMNS) if labels_required else () if caption else classes
    label = _find_column(features, asked.label, known, "label_column", name, labels_required)
    if captions_required and not (caption or label):
        _find_column(features, None, _CAPTION_COLUMNS, "caption_column", name)
    return Columns(image, caption, label)


def _find_column(
    features: dict[str, Any], column: str | None, known: Sequence[str], setting: str, name: str, required: bool = True
) -> str | None:
    if column is None:
        column = next((candidate for candidate in known if candidate in features), None)
    if column not in features and (column or required):
        missing = f"no column {column!r}" if column else f"none of the columns {', '.join(known)}"
        raise InputError(f"{name} has {missing}: set {setting} to one of {', '.join(features)}")
    return column


def of_list(feature: Any) -> Any:
    """The feature of a list's entries; any other feature as it is."""
    return feature.feature if isinstance(feature, datasets.List | datasets.LargeList) else feature


def find_path(structure: Any, column: str) -> list[str]:
    """The fields that a dotted name leads through; of a name that has dots of its own, the longest first. Empty where
    it leads nowhere."""
    if not isinstance(structure, dict):
        return []
    if column in structure:
        return [column]
    dots = [place for place, letter in enumerate(column) if letter == "."]
    paths = ([column[:dot], *find_path(structure.get(column[:dot]), column[dot + 1 :])] for dot in reversed(dots))
    return next((path for path in paths if len(path) > 1), [])


def value_of(record: dict[str, Any], column: str) -> Any:
    """A column's value, also under a dotted name; None where a structure lacks it."""
    value: Any = record
    for field in (path := find_path(record, column)):
        value = value[field]
    return value if path else None


def column_batches(rows: datasets.Dataset, column: str) -> Iterator[tuple[int, pa.ChunkedArray]]:
    """(first row, values) of each stretch of a column."""
    top, *fields = [column] if column in rows.column_names else column.split(".")
    batches = rows.select_columns(top).with_format("arrow").iter(_BATCH)
    for start, batch in zip(range(0, len(rows), _BATCH), batches, strict=True):
        values = batch[top]
        for field in fields:
            values = pc.struct_field(values, field)
        yield start, values


def check_captions(rows: datasets.Dataset, column: str, name: str, required: bool = True) -> None:
    """Refuses captions that are no text and, if required, empty ones; in Arrow, not in Python."""
    first, count = None, 0
    for start, captions in column_batches(rows, column):
        is_list, captions, texts = _texts_of(captions, column, name)
        if required and len(empty := _empty_rows(captions, texts, is_list)):
            first = start + pc.min(empty).as_py() if first is None else first
            count += pc.count_distinct(empty).as_py()
    if first is not None:
        raise InputError(
            f"{name}: row {first + 1} has an empty caption{f', and {count - 1} more' if count > 1 else ''}: "
            "fill or remove such rows"
        )


def _texts_of(captions: pa.ChunkedArray, column: str, name: str) -> tuple[bool, pa.ChunkedArray, pa.ChunkedArray]:
    """(whether a row has a list of captions, the rows, all captions one after another)."""
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
    return is_list, captions, texts


def _empty_rows(captions: pa.ChunkedArray, texts: pa.ChunkedArray, is_list: bool) -> pa.Array:
    rows = _rows_where(pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(texts)), 0))
    if not is_list:
        return rows
    rows = pc.list_parent_indices(captions).take(rows)
    return pa.concat_arrays([*rows.chunks, _rows_where(pc.equal(pc.list_value_length(captions), 0))])


def _rows_where(condition: pa.ChunkedArray) -> pa.Array:
    """Positions where a condition is true or null."""
    return pc.indices_nonzero(pc.fill_null(condition, True)).cast(pa.int64())


def caption_lengths(rows: datasets.Dataset, column: str) -> Iterator[int]:
    """Mean characters of each row's captions."""
    for _, captions in column_batches(rows, column):
        is_list, captions, texts = _texts_of(captions, column, "captions")
        lengths = pc.fill_null(pc.utf8_length(texts), 0)
        if is_list:
            rows_of_texts = pa.table({"row": pc.list_parent_indices(captions), "length": lengths})
            means = rows_of_texts.group_by("row").aggregate([("length", "mean")])
            by_row = dict(zip(means["row"].to_pylist(), means["length_mean"].to_pylist(), strict=True))
            yield from (round(by_row.get(row, 0)) for row in range(len(captions)))
        else:
            yield from lengths.to_pylist()


def labels_of_rows(labels: pa.ChunkedArray) -> tuple[pa.ChunkedArray, pa.ChunkedArray | None]:
    """All labels one after another, and, where a row has a list of them, the row of each."""
    kind = labels.type
    if pa.types.is_fixed_size_list(kind):
        # The place of a null is kept in these, and would count among the labels.
        labels = labels.cast(pa.list_(kind.value_type)).fill_null([])
    if pa.types.is_list(labels.type) or pa.types.is_large_list(labels.type):
        return pc.list_flatten(labels), pc.list_parent_indices(labels)
    return labels, None


def label_numbers(labels: pa.ChunkedArray, class_names: Sequence[str] | None) -> np.ndarray:
    """(rows,) int64, or of lists of labels (rows, classes), boolean.

    Raises:
        InputError: lists, and the classes are not known.
    """
    each, rows = labels_of_rows(labels)
    if pa.types.is_null(each.type):  # of lists that are all empty
        each = each.cast(pa.int64())
    if not pa.types.is_integer(each.type):
        each = pc.index_in(each, pa.array(class_names or [], each.type))
    numbers = each.to_numpy().astype(np.int64)
    if rows is None:
        return numbers
    if not class_names:
        raise InputError("the rows have several labels each, and the classes are not known: give class_names")
    several = np.zeros((len(labels), len(class_names)), dtype=bool)
    several[rows.to_numpy(), numbers] = True
    return several


def check_labels(
    rows: datasets.Dataset, column: str, class_names: Sequence[str] | None, name: str, required: bool = False
) -> None:
    """Refuses labels that are neither whole numbers nor text, and those that are none of the classes; where a row has
    a list of them, rows without one and, if required, with an empty one."""
    for start, labels in column_batches(rows, column):
        lists = labels
        labels, rows_of_labels = labels_of_rows(lists)
        if rows_of_labels is not None:
            _check_lists(lists, start, name, required)
        kind = labels.type
        if pa.types.is_null(kind):
            known = pa.chunked_array([pa.array([False] * len(labels), pa.bool_())])
        elif pa.types.is_integer(kind):
            most = len(class_names) - 1 if class_names else None
            known = pc.greater_equal(labels, 0) if class_names else pc.is_valid(labels)
            known = known if most is None else pc.and_(known, pc.less_equal(labels, most))
        elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
            known = pc.is_in(labels, pa.array(class_names or [], kind)) if class_names else pc.is_valid(labels)
        else:
            raise InputError(f"{name}: column {column!r} holds {kind}, not class numbers or names: set label_column")
        unknown = _rows_where(pc.invert(known))
        if len(unknown):
            place = unknown[0].as_py()
            row = rows_of_labels[place].as_py() if rows_of_labels is not None else place
            raise InputError(f"{name}: row {start + row + 1} has a label {labels[place].as_py()!r} that is no class")


def _check_lists(lists: pa.ChunkedArray, start: int, name: str, required: bool) -> None:
    faults = {"a label None that is no class": pc.is_null(lists)}
    if required:
        faults["no label: remove such rows"] = pc.equal(pc.list_value_length(lists), 0)
    for fault, faulty in faults.items():
        rows = _rows_where(faulty)
        if len(rows):
            raise InputError(f"{name}: row {start + rows[0].as_py() + 1} has {fault}")
