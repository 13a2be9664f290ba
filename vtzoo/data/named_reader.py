"""Reads the images and labels of a named data set's split from Parquet, folders or the Hub. No torch.

The `datasets` library reads everything, without copies on disk: Parquet and image folders become in-memory tables of
encoded images, and only the Hub uses the library's own cache.

`python -m vtzoo.data.named_reader NAME [PATH]` reads a data set's class names and writes them into labels.json.
"""

import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vtzoo import errors
from vtzoo.data import named as facts
from vtzoo.data.encoded_images import EncodedImages
from vtzoo.data.folder import files_below, names_in, visible
from vtzoo.data.hub import library, load_hub
from vtzoo.data.labelled_images import LabelledImages
from vtzoo.data.named import Dataset
from vtzoo.data.rows import stored_images
from vtzoo.data.transform import SUFFIXES
from vtzoo.errors import VtzooError

if TYPE_CHECKING:
    import pyarrow

TEST_FOLDERS = ("test", "val", "validation")  # names of a folder of test images
ANOTHER = "is it another data set? its row is in vtzoo/data/named.py"  # the hint for data that contradict it


def read(dataset: Dataset, split: str, source: Path | None = None) -> LabelledImages:
    """The "train" or "test" split of a data set, checked against its row.

    `source` is a folder of Parquet files named {split}-*.parquet or of images (train/<class>/..., test/<class>/...);
    None reads the Hub at the row's revision.
    """
    parts = dataset.splits(split)
    if source is None:
        table, rows = hub_rows(dataset, parts)
    elif not source.is_dir():
        raise VtzooError(f"no folder {str(source)!r}", f"give the folder that holds {dataset.name}: --data PATH")
    elif any(source.glob("*.parquet")):
        table, rows = load_parquet(dataset, parts, source)
    else:
        table, rows = load_folders(dataset, split, source)
    if not len(rows):
        raise VtzooError(f"no images of {dataset.name} in split {split!r} of {source or dataset.hub_id}")
    names = class_names(table, dataset) or facts.labels(dataset.name) or tuple(map(str, range(dataset.classes)))
    targets = read_labels(table, rows, dataset)
    return LabelledImages(
        encoded=rows, targets=targets, classes=names, splits=np.full(len(rows), split), name=dataset.name
    )


def hub_rows(dataset: Dataset, parts: tuple[str, ...]) -> tuple[Any, EncodedImages]:
    """The table (datasets.Dataset) on the Hub at the pinned revision, and its rows in the domain."""
    hint = f"check the connection, or read {dataset.name} from a folder: --data PATH"
    table = load_hub(dataset.hub_id, hint, dataset.config, revision=dataset.revision, split="+".join(parts))
    require_columns(table.column_names, dataset, dataset.hub_id)
    positions = np.flatnonzero(in_domain(table, dataset.domain))
    named = partial("{}#{}".format, f"{dataset.hub_id}:{'+'.join(parts)}")
    return table, EncodedImages(
        stored=stored_images(table, dataset.image_column, ANOTHER), positions=positions, origin=named
    )


def load_parquet(dataset: Dataset, parts: tuple[str, ...], folder: Path) -> tuple[Any, EncodedImages]:
    """The table (datasets.Dataset) of a folder's Parquet files, in memory, and its rows.

    The library's own Parquet reader would first write a copy into its cache.
    """
    hub = library()
    import pyarrow

    from vtzoo.data.parquet import read_columns

    tables, origins, features = [], [], None
    for file in parquet_files(folder, parts):
        stored = read_columns(file, partial(needed_columns, dataset=dataset, where=file))
        # A given fingerprint is not computed: hashing 100 MB takes longer than reading it.
        table = hub.Dataset(stored, fingerprint=file.name)
        if table.features != (features := features or table.features):
            raise VtzooError(f"{file} has other column types or classes than the files before it", ANOTHER)
        kept = in_domain(table, dataset.domain)
        tables.append(stored.filter(pyarrow.array(kept)) if dataset.domain else stored)
        origins += [f"{file.name}#{row}" for row in np.flatnonzero(kept)]
    table = hub.Dataset(pyarrow.concat_tables(tables), fingerprint=folder.name)
    encoded = stored_images(table, dataset.image_column, ANOTHER)
    return table, EncodedImages(stored=encoded, positions=np.arange(len(table)), origin=origins.__getitem__)


def parquet_files(folder: Path, parts: tuple[str, ...]) -> list[Path]:
    """The Parquet files of all the parts, in order; each part must have one."""
    found = [sorted(folder.glob(f"{part}-*.parquet")) for part in parts]
    for part, files in zip(parts, found, strict=True):
        if not files:
            raise VtzooError(f"no {part}-*.parquet in {folder}", f"the folder has {names_in(folder, '*.parquet')}")
    return [file for files in found for file in files]


def needed_columns(schema: "pyarrow.Schema", dataset: Dataset, where: Path) -> list[str]:
    """The columns to read of a data set's Parquet file."""
    require_columns(schema.names, dataset, where)
    return list(dataset.columns)


def load_folders(dataset: Dataset, split: str, folder: Path) -> tuple[Any, EncodedImages]:
    """The table (datasets.Dataset) of the images under {split}/<class>/, and its rows.

    Classes are in the order of the recorded names, or in alphabetical order without recorded names.
    """
    hub = library()
    parts = [split_folder(folder, part, split, dataset) for part in dataset.splits(split)]
    names = facts.labels(dataset.name) or tuple(sorted({found.name for found in visible(folder.glob("*/*/"))}))
    paths, labels = [], []
    for class_folder in visible(path for part in parts for path in part.glob("*/")):
        if class_folder.name not in names:
            raise errors.unknown("class", class_folder.name, names, ANOTHER)
        files = files_below(class_folder, SUFFIXES)
        paths += [str(file) for file in files]
        labels += [names.index(class_folder.name)] * len(files)
    features = {dataset.image_column: hub.Image(), dataset.label_column: hub.ClassLabel(names=list(names))}
    columns = {dataset.image_column: paths, dataset.label_column: labels}
    table = hub.Dataset.from_dict(columns, features=hub.Features(features))
    encoded = stored_images(table, dataset.image_column, ANOTHER)
    return table, EncodedImages(stored=encoded, positions=np.arange(len(table)), origin=paths.__getitem__)


def split_folder(folder: Path, part: str, split: str, dataset: Dataset) -> Path:
    """The subfolder of a part; a test split has several usual names, but never the name of a training split."""
    others = [name for name in TEST_FOLDERS if split == "test" and name not in dataset.train_splits]
    for name in dict.fromkeys([part, *others]):
        if (folder / name).is_dir():
            return folder / name
    expected = f"expected {part}-*.parquet or {part}/<class>/<image> there"
    raise VtzooError(f"no {part!r} images of {dataset.name} in {folder}", f"{expected}; it has {names_in(folder, '*')}")


def require_columns(columns: list[str], dataset: Dataset, where: object) -> None:
    """Raise a VtzooError unless all of the data set's columns are in `columns`."""
    for column in dataset.columns:
        if column not in columns:
            raise VtzooError(f"no column {column!r} in {where}", f"it has {', '.join(columns)}; {ANOTHER}")


def in_domain(table: Any, domain: str | None) -> np.ndarray:
    """Whether each row belongs to the domain, bool (n,); all do without a domain. The column has names or indices."""
    if domain is None:
        return np.ones(len(table), dtype=bool)
    names = getattr(table.features["domain"], "names", None)
    wanted = domain if names is None else names.index(domain) if domain in names else None
    return np.array([value == wanted for value in table.data.column("domain").to_pylist()], dtype=bool)


def class_names(table: Any, dataset: Dataset) -> tuple[str, ...] | None:
    """The class names in the label column's type, as many as the data set has; None for plain numbers."""
    names = getattr(table.features[dataset.label_column], "names", None)
    if names is not None and len(names) != dataset.classes:
        raise VtzooError(f"the data has {len(names)} classes, {dataset.name} has {dataset.classes}", ANOTHER)
    return None if names is None else tuple(names)


def read_labels(table: Any, rows: EncodedImages, dataset: Dataset) -> np.ndarray:
    """The labels of the rows, int64 (n,), each a class of the data set."""
    column = table.data.column(dataset.label_column).to_pylist()
    values = [column[position] for position in rows.positions]
    for position, value in zip(rows.positions, values, strict=True):
        if type(value) is not int or not 0 <= value < dataset.classes:
            expected = f"{dataset.name} has labels 0 to {dataset.classes - 1}"
            raise VtzooError(f"label {value!r} in {rows.origin(int(position))}", expected)
    return np.array(values, dtype=np.int64)


def record_labels(dataset: Dataset, source: Path | None, file: Path) -> tuple[str, ...]:
    """Write the class names in the data into a JSON file of names by data set, and return them."""
    parts = dataset.test_splits
    table, _ = hub_rows(dataset, parts) if source is None else load_parquet(dataset, parts, source)
    names = class_names(table, dataset)
    if names is None:
        raise VtzooError(f"the labels in {source or dataset.hub_id} are plain numbers: no class names to record")
    recorded = json.loads(file.read_text(encoding="utf-8")) | {dataset.name: names}
    file.write_text(json.dumps(recorded, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    return names


if __name__ == "__main__":
    path = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    print(*record_labels(facts.named_set(sys.argv[1]), path, Path(facts.__file__).with_name("labels.json")), sep="\n")
