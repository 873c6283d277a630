"""The columns of a source: which hold pictures, captions and labels, and what stands in them."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias, TypedDict

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..core.errors import InputError
from .text import trimmed

IMAGE_COLUMNS = ("image", "file_name", "image_path", "jpg", "jpeg", "png", "webp")
_LABEL_COLUMNS = ("label", "labels", "class", "cls")
_CAPTIONS = ("caption", "captions", "text", "txt")
CAPTION_COLUMNS = (*_CAPTIONS, *(f"json.{name}" for name in _CAPTIONS))
_BATCH = 100_000  # rows that are checked at once

Rows: TypeAlias = datasets.Dataset | datasets.IterableDataset
Row = dict[str, Any]  # column → what stands there, as `datasets` gives a row
ColumnFeatures = dict[str, Any]  # column → its feature of `datasets`, or None where it is not known


class ColumnSettings(TypedDict, total=False):
    """What a user says of the columns, and of the classes whose numbers stand in one; None: nothing."""

    image_column: str | None
    caption_column: str | None
    label_column: str | None
    class_names: Sequence[str] | None


class AskedColumns(NamedTuple):
    """Names of the columns that are asked for; None: the first known one."""

    image: str | None
    caption: str | None
    label: str | None


class Columns(NamedTuple):
    """Names of the columns that were found; a dotted one leads into a structure."""

    image: str
    caption: str | None
    label: str | None


def column_names(rows: Rows, first: Row | None) -> ColumnFeatures:
    """Columns with their features (None where they are not known), those within structures under dotted names."""
    features = dict(rows.features) if rows.features else dict.fromkeys(first or rows.column_names)
    for column, feature in list(features.items()):
        if isinstance(feature, dict):
            features |= dict(_fields(column, feature))
        elif not isinstance(feature, datasets.Image):
            features |= dict.fromkeys(name for name, _ in _fields(column, (first or {}).get(column)))
    return features


def _fields(name: str, structure: object) -> Iterator[tuple[str, Any]]:
    """What stands in a structure, at any depth, by dotted name."""
    for field, inner in structure.items() if isinstance(structure, dict) else ():
        yield f"{name}.{field}", inner
        yield from _fields(f"{name}.{field}", inner)


def find_columns(
    features: ColumnFeatures, asked: AskedColumns, captions_required: bool, name: str, labels_required: bool = False
) -> Columns:
    """The columns that were asked for, or else the first known ones.

    Raises:
        InputError: one that the source lacks.
    """
    pictures = [column for column, feature in features.items() if isinstance(feature, datasets.Image)]
    image = _require_column(features, asked.image, (*IMAGE_COLUMNS, *pictures), "image_column", name)
    caption = _find_column(features, asked.caption, CAPTION_COLUMNS, "caption_column", name)
    classes = [column for column, feature in features.items() if isinstance(of_list(feature), datasets.ClassLabel)]
    known = (*classes, *_LABEL_COLUMNS) if labels_required else () if caption else classes
    find_label = _require_column if labels_required else _find_column
    label = find_label(features, asked.label, known, "label_column", name)
    if captions_required and not (caption or label):
        _require_column(features, None, CAPTION_COLUMNS, "caption_column", name)
    return Columns(image, caption, label)


def _find_column(
    features: ColumnFeatures, asked: str | None, known: Sequence[str], setting: str, name: str
) -> str | None:
    if asked and asked not in features:
        raise InputError(f"{name} has no column {asked!r}: set {setting} to one of {', '.join(features)}")
    if asked is not None:  # an empty name is no column
        return asked
    return next((candidate for candidate in known if candidate in features), None)


def _require_column(features: ColumnFeatures, asked: str | None, known: Sequence[str], setting: str, name: str) -> str:
    column = _find_column(features, asked, known, setting, name)
    if column is None:
        said = f"none of the columns {', '.join(known)}: set {setting} to one of {', '.join(features)}"
        raise InputError(f"{name} has {said}")
    return column


def of_list(feature: Any) -> Any:
    """The feature of a list's entries; any other feature as it is."""
    return feature.feature if isinstance(feature, datasets.List | datasets.LargeList) else feature


def find_path(structure: object, column: str) -> list[str]:
    """The fields that a dotted name leads through; of a name that has dots of its own, the longest first. Empty where
    it leads nowhere."""
    if not isinstance(structure, dict):
        return []
    if column in structure:
        return [column]
    dots = [place for place, letter in enumerate(column) if letter == "."]
    paths = ([column[:dot], *find_path(structure.get(column[:dot]), column[dot + 1 :])] for dot in reversed(dots))
    return next((path for path in paths if len(path) > 1), [])


def value_of(record: Row, column: str) -> Any:
    """A column's value, also under a dotted name; None where a structure lacks it."""
    value: Any = record
    for field in (path := find_path(record, column)):
        value = value[field]
    return value if path else None


def feature_of(rows: Rows, column: str | None) -> Any:
    """Also under a dotted name; None where it is not known."""
    feature = dict(rows.features) if rows.features and column else None
    return value_of(feature, column) if feature and column else None


def column_batches(rows: datasets.Dataset, column: str) -> Iterator[tuple[int, pa.ChunkedArray]]:
    """(first row, values) of each stretch of a column; texts as strings, in whatever form they are stored."""
    top, *fields = find_path(dict(rows.features), column)
    starts, rows = range(0, len(rows), _BATCH), rows.select_columns(top)
    if is_mixed(feature_of(rows, column)):
        for start, batch in zip(starts, rows.iter(_BATCH), strict=True):
            lists = [as_list(value_of({top: value}, column)) for value in batch[top]]
            yield start, pa.chunked_array([pa.array(lists, pa.list_(pa.string()))])
        return
    for start, batch in zip(starts, rows.with_format("arrow").iter(_BATCH), strict=True):
        values = batch[top]
        for field in fields:
            values = struct_field(values, field)
        yield start, values if (plain := _plain(values.type)) == values.type else values.cast(plain)


def is_mixed(feature: object) -> bool:
    """Whether a column holds JSON of several kinds, such as a caption in one row and a list of them in the next."""
    return isinstance(of_list(feature), datasets.Json)


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def struct_field(values: pa.ChunkedArray | pa.Array, field: str) -> pa.ChunkedArray | pa.Array:
    """A field by its name, which may have dots; nulls where there is none."""
    index = values.type.get_field_index(field)
    return pc.struct_field(values, index) if index >= 0 else pa.nulls(len(values))


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type without views of text and dictionaries, which most functions of Arrow do not take."""
    if pa.types.is_string_view(kind):
        return pa.large_string()
    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_plain(kind.value_type), kind.list_size)
    if pa.types.is_list(kind):
        return pa.list_(_plain(kind.value_type))
    return pa.large_list(_plain(kind.value_type)) if pa.types.is_large_list(kind) else kind


def is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def texts_of(captions: pa.ChunkedArray) -> tuple[bool, pa.ChunkedArray, pa.ChunkedArray]:
    """(whether a row has a list of captions, the rows, all captions one after another)."""
    is_list = pa.types.is_list(captions.type) or pa.types.is_large_list(captions.type)
    if pa.types.is_fixed_size_list(captions.type):
        # The place of a null is kept in these, and would count among the texts.
        captions, is_list = captions.cast(pa.list_(captions.type.value_type)).fill_null([]), True
    texts = pc.list_flatten(captions) if is_list else captions
    return is_list, captions, texts.cast(pa.string()) if pa.types.is_null(texts.type) else texts


def caption_lengths(rows: datasets.Dataset, column: str) -> Iterator[int]:
    """Mean characters of each row's captions."""
    for _, captions in column_batches(rows, column):
        is_list, captions, texts = texts_of(captions)
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
    """(rows,) int64, or of lists of labels (rows, classes), boolean; -1 for a name that is no class.

    Raises:
        InputError: lists, and the classes are not known.
    """
    each, rows = labels_of_rows(labels)
    if pa.types.is_null(each.type):  # of lists that are all empty
        each = each.cast(pa.int64())
    if pa.types.is_integer(each.type):
        numbers = each.to_numpy().astype(np.int64)
    else:
        names = pc.unique(each)
        known = {name: number for number, name in enumerate(class_names or ())}
        of_names = np.array([known.get(trimmed(name), -1) for name in names.to_pylist()], dtype=np.int64)
        numbers = of_names[pc.index_in(each, names).to_numpy()]
    if rows is None:
        return numbers
    if not class_names:
        raise InputError("the rows have several labels each, and the classes are not known: give class_names")
    several = np.zeros((len(labels), len(class_names)), dtype=bool)
    several[rows.to_numpy(), numbers] = True
    return several
