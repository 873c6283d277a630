"""Rows that were opened with `datasets` already: of which split they are, and which of their columns are meant."""

from collections.abc import Sequence
from typing import Any, TypeAlias, TypeGuard

import datasets

from ..core.errors import InputError
from .columns import CAPTION_COLUMNS, IMAGE_COLUMNS, AskedColumns, ColumnFeatures, Row, of_list
from .folders import say_once
from .named_splits import check_unsplit, choose_split

Rows: TypeAlias = datasets.Dataset | datasets.IterableDataset
Opened: TypeAlias = Rows | datasets.DatasetDict | datasets.IterableDatasetDict


def is_opened(given: object) -> TypeGuard[Opened]:
    """Whether it is what `datasets.load_dataset` gives."""
    return isinstance(given, Opened)


def name_of_rows(given: Opened) -> str:
    """What to call them: as they were loaded, or made in memory."""
    first = next(iter(given.values()), None) if isinstance(given, dict) else given
    return (first is not None and first.info.dataset_name) or type(given).__name__


def rows_of_split(given: Opened, split: str | Sequence[str], name: str) -> tuple[Rows, str]:
    """(rows, what the split is called), as they are stored; `split` as `open_source` has it.

    Raises:
        InputError: no such split; a transform that is made as rows are read, which would be passed over.
    """
    rows, taken = split_of(given, split, name)
    if isinstance(rows, datasets.Dataset) and rows.format["type"] == "custom":
        raise InputError(
            f"{name} has a transform, which is no column that is stored: give the rows without it, as "
            "with_format(None) does, or a data_collator of your own"
        )
    if isinstance(rows, datasets.Dataset) and not rows.format["output_all_columns"]:
        rows = rows.select_columns(rows.format["columns"])  # others are hidden by the user, and no format hides them
    return rows.with_format(None), taken


def split_of(given: Opened, split: str | Sequence[str], name: str) -> tuple[Rows, str]:
    """(rows, what the split is called), as they were given.

    Raises:
        InputError: no such split.
    """
    if isinstance(given, Rows):
        check_unsplit(split, name)
        return given, str(given.split or "")
    if not given:
        raise InputError(f"{name} has no splits: give one with at least one image and caption")
    splits = list(map(str, given))
    taken, names = choose_split(splits, split, name, fix=f'give dataset["{splits[-1]}"]')
    parts = [given[each] for each in names]
    return parts[0] if len(parts) == 1 else datasets.concatenate_datasets(parts), taken


def features_of_record(record: Row) -> dict[str, Any]:
    """What the columns of a stream hold that does not say it, by its first row."""
    return dict(datasets.Dataset.from_list([record]).features)


def columns_by_type(
    features: ColumnFeatures, asked: AskedColumns, name: str, *, captions_required: bool, labels_required: bool
) -> AskedColumns:
    """What was asked for, and else the only column of its type: an `Image`, texts or lists of them, a `ClassLabel`.

    A column that is None has none of its type, and may yet be known by its name.

    Raises:
        InputError: two columns of a type that is looked for, or texts and classes that may both be captions; none of
            images, or of captions.
    """
    inner = {column: of_list(feature) for column, feature in features.items()}
    images = [column for column, feature in features.items() if isinstance(feature, datasets.Image)]
    image = asked.image or _only(images, "image", name)
    paths = image or next((column for column in IMAGE_COLUMNS if column in features), None)
    texts = [column for column, kind in inner.items() if _is_text(kind) and column not in (paths, asked.label)]
    classes = [column for column, kind in inner.items() if isinstance(kind, datasets.ClassLabel)]
    caption = asked.caption
    if caption is None:
        labels = classes if asked.label is None else [asked.label] if asked.label else []
        caption = _caption(texts, labels, asked.label, name, captions_required=captions_required)
    label = asked.label
    if label is None and (labels_required or not caption):
        label = _only(classes, "label", name)
    _check_found(paths, caption is not None or label is not None or not captions_required, features, name)
    return AskedColumns(image, caption, label)


def _caption(
    texts: Sequence[str], labels: Sequence[str], asked_label: str | None, name: str, *, captions_required: bool
) -> str | None:
    """The only column of texts; beside classes, which may be the captions as well, only under a name that says so."""
    if texts and labels and not set(texts) & set(CAPTION_COLUMNS):
        if asked_label:
            say_once(f"{name}: captions are the classes of {asked_label!r}; for texts set caption_column")
        elif captions_required:
            raise InputError(
                f"{name}: captions may be {' or '.join(texts)}, or the classes of {' or '.join(labels)}: set "
                "caption_column or label_column"
            )
        return None
    caption = _only(texts, "caption", name) if captions_required or len(texts) == 1 else None
    if caption not in (None, *CAPTION_COLUMNS):
        say_once(
            f"{name}: captions are read from {caption!r}, its only column of texts; for another set caption_column"
        )
    return caption


def _check_found(image: str | None, has_captions: bool, features: ColumnFeatures, name: str) -> None:
    if image is None:
        raise InputError(
            f"{name} has no column of images among {', '.join(features)}: make one with "
            "cast_column(column, datasets.Image()), or set image_column"
        )
    if not (has_captions or any(isinstance(feature, dict | datasets.Json) for feature in features.values())):
        others = ", ".join(column for column in features if column != image)
        raise InputError(
            f"{name} has its images in {image!r}, and no captions in {others or 'another column'}: add a column of "
            "texts, of lists of texts or of datasets.ClassLabel"
        )


def _only(columns: Sequence[str], role: str, name: str) -> str | None:
    if len(columns) > 1:
        raise InputError(f"{name}: any of {', '.join(columns)} may be the {role}: set {role}_column to one of them")
    return next(iter(columns), None)


def _is_text(feature: object) -> bool:
    return isinstance(feature, datasets.Value) and feature.dtype.endswith(("string", "string_view"))
