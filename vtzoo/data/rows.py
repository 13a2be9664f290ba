"""Labelled images from rows of Parquet files and of the Hub, with labels as names, as numbers or as lists of them."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vtzoo.data import columns, labels
from vtzoo.data.columns import Columns
from vtzoo.data.encoded_images import EncodedImages
from vtzoo.data.hub import library
from vtzoo.data.labelled_images import LabelledImages
from vtzoo.data.labels import ClassesAndTargets, class_name, in_order
from vtzoo.data.split import split_names
from vtzoo.errors import VtzooError

if TYPE_CHECKING:
    import pyarrow

NO_LABEL = -1  # the value of a missing label in a ClassLabel column of the `datasets` library


class Table(NamedTuple):
    """The rows of a file, or of a split on the Hub."""

    name: str  # the part of an image's name before #row
    split: str
    data: Any  # datasets.Dataset


def recognise(features: Any, where: object, image: str | None, label: str | None) -> Columns:
    """The columns by their names, or by their type if only one column of images, or of ClassLabel, exists."""
    schema = features.arrow_schema
    encoded = [field.name for field in schema if columns.is_encoded(field.type)]
    named = [name for name, feature in features.items() if isinstance(_inner(feature), library().ClassLabel)]
    if image is None and len(encoded) == 1:
        image = encoded[0]
    usual = any(name.strip().lower() in columns.LABEL_NAMES for name in features)
    if label is None and not usual and len(named) == 1:
        label = named[0]
    return columns.recognise(list(features), where, image=image, label=label)


def stored_images(table: Any, column: str, hint: str) -> "pyarrow.ChunkedArray":
    """The encoded images as {bytes, path}, also of a column of plain bytes or one that lost its metadata."""
    stored = table.data.column(column).type
    if not columns.is_encoded(stored):
        raise VtzooError(f"column {column!r} holds {stored}, not images", hint)
    return table.cast_column(column, library().Image()).data.column(column)


def labelled_rows(
    tables: list[Table], image: str | None, label: str | None, notes: tuple[str, ...] = ()
) -> LabelledImages:
    """The images of all the tables, with their targets and splits."""
    import pyarrow

    features = tables[0].data.features
    named = recognise(features, tables[0].name, image, label)
    for name, _, data in tables:
        if any(data.features.get(column) != features[column] for column in named.needed):
            message = f"{name} has other column types or classes than {tables[0].name}"
            raise VtzooError(message, "make them one data set, or give one of them alone")
    hint = "name the column of images: --image-column NAME"
    stored = [chunk for table in tables for chunk in stored_images(table.data, named.image, hint).chunks]
    origins = [f"{name}#{row}" for name, _, data in tables for row in range(len(data))]
    cells = {column: [cell for table in tables for cell in table.data.data.column(column).to_pylist()]
             for column in named.needed if column != named.image}  # fmt: skip
    classes, targets = _targets(features, cells, named, origins)
    splits = np.concatenate([np.full(len(data), split) for _, split, data in tables])
    if named.split is not None:
        kind = features[named.split]
        names = [_name(cell, kind, at) for cell, at in zip(cells[named.split], origins, strict=True)]
        splits = split_names(names, origins.__getitem__)
    positions = np.arange(len(origins))
    encoded = EncodedImages(stored=pyarrow.chunked_array(stored), positions=positions, origin=origins.__getitem__)
    return LabelledImages(classes=classes, encoded=encoded, targets=targets, splits=splits, notes=notes)


def _targets(features: Any, cells: dict[str, list[Any]], named: Columns, origins: list[str]) -> ClassesAndTargets:
    """The classes, and the targets of each image."""
    if named.label is None:
        texts = {class_name(name): ["" if cell is None else str(cell) for cell in cells[name]] for name in named.others}
        return labels.column_per_class(texts, origins[0] if origins else "it")
    kind = _inner(features[named.label])
    stated = getattr(kind, "names", None)
    classes = tuple(class_name(name) for name in stated) if stated else None
    pairs = list(zip(cells[named.label], origins, strict=True))
    if kind is features[named.label]:
        return labels.single_label([_name(cell, kind, at) for cell, at in pairs], classes)
    names = [None if cell is None else _names(cell, kind, at) for cell, at in pairs]
    classes = classes or in_order(name for some in names for name in some or ())
    masks = [_mask(cell, kind, at, classes) for cell, at in zip(cells[named.mask], origins, strict=True)] \
        if named.mask else [None] * len(names)  # fmt: skip
    return labels.multi_label(names, masks, classes)


def _mask(cell: Any, kind: Any, where: str, classes: Sequence[str]) -> list[str] | None:
    """The classes that annotators looked for, from a list of them or a list of one bool per class; None for all."""
    if cell is None or not cell or type(cell[0]) is not bool:
        return None if cell is None else _names(cell, kind, where)
    if len(cell) != len(classes):
        raise VtzooError(f"the mask of {where} has {len(cell)} entries, for {len(classes)} classes", "one for each")
    return [name for name, is_known in zip(classes, cell, strict=True) if is_known]


def _names(cell: Any, kind: Any, where: str) -> list[str]:
    return [name for value in cell if (name := _name(value, kind, where)) is not None]


def _name(value: Any, kind: Any, where: str) -> str | None:
    """The name of a class that is stored as text, as a number, or as an index into stated names; None if unknown."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    stated = getattr(kind, "names", None)
    if stated is not None and value == NO_LABEL:
        return None
    if stated is not None and not 0 <= value < len(stated):
        raise VtzooError(f"label {value} in {where}", f"its column states the names of 0 to {len(stated) - 1}")
    if isinstance(value, float) and value.is_integer():  # pandas turns whole numbers beside empty cells into floats
        value = int(value)
    if not isinstance(value, str | int):
        raise VtzooError(f"{value!r} in {where} is no label", "name another column: --label-column NAME")
    return class_name(stated[value] if stated else str(value)) or None


def _inner(feature: Any) -> Any:
    """The feature of the items of a column of lists, else the column's own."""
    if isinstance(feature, list):
        return feature[0]
    return feature.feature if isinstance(feature, library().List | library().LargeList) else feature
