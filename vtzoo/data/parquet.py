"""Parquet files and data sets on the Hub: a column of images, and one of labels: names, numbers, or lists of them."""

import math
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vtzoo.data import columns, labels, named_reader
from vtzoo.data.columns import Columns
from vtzoo.data.decoding import Rows
from vtzoo.data.found import PART_NAMES, TRAIN, Found, class_name, few, in_order, parts_of
from vtzoo.errors import VtzooError

if TYPE_CHECKING:
    import pyarrow

HUB_NAME = re.compile(r"([\w.-]+/[\w.-]+)(?:@(.+))?")
NO_LABEL = -1  # of a ClassLabel, as the `datasets` library has it


class Table(NamedTuple):
    """The rows of a file, or of a split on the Hub."""

    name: str  # before a row's number
    part: int
    data: Any  # datasets.Dataset


def find_files(path: Path, *, image_column: str | None = None, label_column: str | None = None) -> Found:
    """The images in a Parquet file, or in those of a folder: train-*.parquet, validation/*.parquet..."""
    hub = named_reader.library()
    inside, above = parquet_files(path), path if path.is_dir() else path.parent
    parts = [_part(file.relative_to(above)) for file in inside]
    if set(parts) - {None} and None in parts:
        told = f"{inside[parts.index(None)]} does not say whether it is train, validation or test, and others do"
        raise VtzooError(told, "rename it, as train-0.parquet")
    tables = []
    for file, part in zip(inside, parts, strict=True):

        def choose(schema: "pyarrow.Schema", file: Path = file) -> list[str]:
            return recognise(features_of(schema), file, image_column, label_column).needed

        stored = _plain(named_reader.read_parquet(file, choose))
        name, data = str(file.relative_to(above)), hub.Dataset(stored, fingerprint=file.name)
        tables.append(Table(name, TRAIN if part is None else part, data))
    return _found(tables, image_column, label_column)


def find_hub(name: str, *, image_column: str | None = None, label_column: str | None = None) -> Found:
    """The images of a data set on the Hub, ORG/NAME or ORG/NAME@REVISION, read through the library's own cache."""
    matched = HUB_NAME.fullmatch(name)
    if matched is None:
        raise VtzooError(f"no file or folder {name!r}", "give a folder, a CSV, a Parquet file or ORG/NAME on the Hub")
    hint = f"there is no file or folder {name!r} here either: check the name, the revision and the connection"
    found = dict(named_reader.ask_hub(matched[1], hint, revision=matched[2]))
    parts = {split: PART_NAMES.get(split.lower(), TRAIN if len(found) == 1 else None) for split in found}
    left = [split for split, part in parts.items() if part is None]
    notes = (f"{name} also has {few(left)}: left out",) if left else ()
    tables = [Table(f"{name}:{split}", part, found[split]) for split, part in parts.items() if part is not None]
    if not tables:
        raise VtzooError(f"{name} has no train, but {few(left)}", "give a data set with a split train")
    return _found(tables, image_column, label_column, notes)


def parquet_files(path: Path) -> list[Path]:
    """A Parquet file, or those in a folder and below."""
    return [path] if path.is_file() else [file for file in named_reader.files_below(path) if file.suffix == ".parquet"]


def recognise(features: Any, where: object, image: str | None, label: str | None) -> Columns:
    """The columns by their names, or by their types where there is one of its kind."""
    hub = named_reader.library()
    of_images = [name for name, feature in features.items() if _holds_images(feature)]
    named = [name for name, feature in features.items() if isinstance(_inner(feature), hub.ClassLabel)]
    if image is None and len(of_images) == 1:
        image = of_images[0]
    usual = any(name.strip().lower() in columns.LABEL_NAMES for name in features)
    if label is None and not usual and len(named) == 1:
        label = named[0]
    return columns.recognise(list(features), where, image=image, label=label)


def features_of(schema: "pyarrow.Schema") -> Any:
    """The datasets.Features of a Parquet file's columns, but for those of types that the library does not know."""
    import pyarrow

    known, features = [], named_reader.library().Features
    for field in schema:
        plain = field.with_type(_decoded(field.type))
        with suppress(NotImplementedError, ValueError):
            features.from_arrow_schema(pyarrow.schema([plain]))
            known.append(plain)
    return features.from_arrow_schema(pyarrow.schema(known, metadata=schema.metadata))


def _plain(table: "pyarrow.Table") -> "pyarrow.Table":
    """The table with columns of numbered values (pandas's categories) as the values themselves."""
    import pyarrow

    fields = [field.with_type(_decoded(field.type)) for field in table.schema]
    return table.cast(pyarrow.schema(fields, metadata=table.schema.metadata))


def _decoded(kind: "pyarrow.DataType") -> Any:
    import pyarrow

    return kind.value_type if isinstance(kind, pyarrow.DictionaryType) else kind


def _part(file: Path) -> int | None:
    """The part that a Parquet file is of, by its folders or the beginning of its name; None where they do not say."""
    words = [*file.parent.parts, re.split("[-_.]", file.stem)[0]]
    return next((PART_NAMES[word.lower()] for word in words if word.lower() in PART_NAMES), None)


def _found(tables: list[Table], image: str | None, label: str | None, notes: tuple[str, ...] = ()) -> Found:
    """What the tables hold together."""
    import pyarrow

    features = tables[0].data.features
    named = recognise(features, tables[0].name, image, label)
    for name, _, data in tables:
        if {one: data.features.get(one) for one in named.needed} != {one: features[one] for one in named.needed}:
            told = f"{name} has other column types or classes than {tables[0].name}"
            raise VtzooError(told, "make them one data set, or give one of them alone")
    hint = "name the column of images: --image-column NAME"
    encoded = [chunk for table in tables for chunk in named_reader.image_column(table.data, named.image, hint).chunks]
    origins = [f"{name}#{row}" for name, _, data in tables for row in range(len(data))]
    cells = {one: [cell for table in tables for cell in table.data.data.column(one).to_pylist()]
             for one in named.needed if one != named.image}  # fmt: skip
    classes, targets = _targets(features, cells, named, origins)
    parts = np.concatenate([np.full(len(data), part, dtype=np.int8) for _, part, data in tables])
    if named.split is not None:
        kind = features[named.split]
        parts = parts_of([_name(cell, kind, at) for cell, at in zip(cells[named.split], origins, strict=True)],
                         origins.__getitem__)  # fmt: skip
    rows = Rows(encoded=pyarrow.chunked_array(encoded), positions=np.arange(len(origins)), origin=origins.__getitem__)
    return Found(classes=classes, rows=rows, targets=targets, parts=parts, notes=notes)


def _targets(
    features: Any, cells: dict[str, list[Any]], named: Columns, origins: list[str]
) -> tuple[tuple[str, ...], np.ndarray]:
    """The classes, and what is known of each image."""
    if named.label is None:
        written = {one: ["" if cell is None else str(cell) for cell in cells[one]] for one in named.others}
        return labels.a_column_each({class_name(one): written[one] for one in written}, origins[0] if origins else "it")
    kind = _inner(features[named.label])
    stated = getattr(kind, "names", None)
    classes = tuple(class_name(name) for name in stated) if stated else None
    pairs = list(zip(cells[named.label], origins, strict=True))
    if kind is features[named.label]:
        return labels.one_each([_name(cell, kind, at) for cell, at in pairs], classes)
    names = [None if cell is None else _names(cell, kind, at) for cell, at in pairs]
    classes = classes or in_order(name for some in names for name in some or ())
    masks = [_mask(cell, kind, at, classes) for cell, at in zip(cells[named.mask], origins, strict=True)] \
        if named.mask else [None] * len(names)  # fmt: skip
    return labels.several_each(names, masks, classes)


def _mask(cell: Any, kind: Any, where: str, classes: Sequence[str]) -> list[str] | None:
    """The classes that were looked for: a list of them, or of a yes or no for each class."""
    if cell is None or not cell or type(cell[0]) is not bool:
        return None if cell is None else _names(cell, kind, where)
    if len(cell) != len(classes):
        raise VtzooError(f"the mask of {where} has {len(cell)} entries, for {len(classes)} classes", "one for each")
    return [name for name, is_known in zip(classes, cell, strict=True) if is_known]


def _names(cell: Any, kind: Any, where: str) -> list[str]:
    return [name for one in cell if (name := _name(one, kind, where)) is not None]


def _name(value: Any, kind: Any, where: str) -> str | None:
    """The name of a class as stored: its text, its number, or its number among stated names. None is not known."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    stated = getattr(kind, "names", None)
    if stated is not None and value == NO_LABEL:
        return None
    if stated is not None and not 0 <= value < len(stated):
        raise VtzooError(f"label {value} in {where}", f"its column states the names of 0 to {len(stated) - 1}")
    if isinstance(value, float) and value.is_integer():  # pandas makes them of whole numbers beside empty cells
        value = int(value)
    if not isinstance(value, str | int):
        raise VtzooError(f"{value!r} in {where} is no label", "name another column: --label-column NAME")
    return class_name(stated[value] if stated else str(value)) or None


def _holds_images(feature: Any) -> bool:
    """Whether a column is of images: said to be, or of bytes, alone or in a struct."""
    stored = feature.get("bytes") if isinstance(feature, dict) else feature
    return isinstance(feature, named_reader.library().Image) or getattr(stored, "dtype", None) in (
        "binary",
        "large_binary",
    )


def _inner(feature: Any) -> Any:
    """What a column of lists holds a list of; the column's own feature where it has no lists."""
    hub = named_reader.library()
    if isinstance(feature, list):
        return feature[0]
    return feature.feature if isinstance(feature, hub.List | hub.LargeList) else feature
