"""The images and labels of a named data set's split, from Parquet, folders or the Hub. No torch.

All reading goes through the `datasets` library, and nothing is copied to disk: Parquet and image folders become
in-memory tables of encoded images. Only the Hub uses the library's own cache.

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
from vtzoo.data.named import NamedSet
from vtzoo.data.rows import stored_images
from vtzoo.data.transform import SUFFIXES
from vtzoo.errors import VtzooError

if TYPE_CHECKING:
    import pyarrow

TEST_FOLDERS = ("test", "val", "validation")  # names of a folder of test images
ANOTHER = "is it another data set? its row is in vtzoo/data/named.py"  # the hint if the data contradict the row


def read(dataset: NamedSet, split: str, source: Path | None = None) -> LabelledImages:
    """The "train" or "test" split of a data set, checked against its row.

    `source` is a folder of Parquet files named {split}-*.parquet or of images (train/<class>/..., test/<class>/...);
    None reads the Hub at the row's revision.
    """
    splits = dataset.splits(split)
    if source is None:
        table, rows = hub_rows(dataset, splits)
    elif not source.is_dir():
        raise VtzooError(f"no folder {str(source)!r}", f"give the folder that holds {dataset.name}: --data PATH")
    elif any(source.glob("*.parquet")):
        table, rows = load_parquet(dataset, splits, source)
    else:
        table, rows = load_folders(dataset, split, source)
    if not len(rows):
        raise VtzooError(f"no images of {dataset.name} in split {split!r} of {source or dataset.hub_id}")
    names = class_names(table, dataset) or facts.labels(dataset.name) or tuple(map(str, range(dataset.classes)))
    return LabelledImages(
        encoded=rows, targets=read_labels(table, rows, dataset), classes=names, splits=np.full(len(rows), split),
        name=dataset.name,
    )  # fmt: skip


def hub_rows(dataset: NamedSet, splits: tuple[str, ...]) -> tuple[Any, EncodedImages]:
    """The table (datasets.Dataset) on the Hub at the pinned revision, and its rows of the domain."""
    joined, hint = "+".join(splits), f"check the connection, or read {dataset.name} from a folder: --data PATH"
    table = load_hub(dataset.hub_id, hint, dataset.config, revision=dataset.revision, split=joined)
    needed_columns(table.features.arrow_schema, dataset, dataset.hub_id)
    positions = np.flatnonzero(in_domain(table, dataset.domain))
    origin = partial("{}#{}".format, f"{dataset.hub_id}:{joined}")
    return table, EncodedImages(stored=encoded_column(table, dataset), positions=positions, origin=origin)


def load_parquet(dataset: NamedSet, splits: tuple[str, ...], folder: Path) -> tuple[Any, EncodedImages]:
    """The table (datasets.Dataset) of a folder's Parquet files, in memory, and its rows of the domain.

    pyarrow reads the files, because the library's own Parquet reader would first write a copy into its cache.
    """
    hub = library()
    import pyarrow

    from vtzoo.data.parquet import read_columns

    tables, origins, features = [], [], None
    for file in parquet_files(folder, splits):
        stored = read_columns(file, partial(needed_columns, dataset=dataset, where=file))
        # A given fingerprint spares the library computing it: hashing 100 MB takes longer than reading it.
        table = hub.Dataset(stored, fingerprint=file.name)
        if table.features != (features := features or table.features):
            raise VtzooError(f"{file} has other column types or classes than the files before it", ANOTHER)
        kept = in_domain(table, dataset.domain)
        tables.append(stored.filter(pyarrow.array(kept)) if dataset.domain else stored)
        origins += [f"{file.name}#{row}" for row in np.flatnonzero(kept)]
    table = hub.Dataset(pyarrow.concat_tables(tables), fingerprint=folder.name)
    positions = np.arange(len(table))
    return table, EncodedImages(stored=encoded_column(table, dataset), positions=positions, origin=origins.__getitem__)


def parquet_files(folder: Path, splits: tuple[str, ...]) -> list[Path]:
    """The Parquet files of all the splits, in order; a split without any is a VtzooError."""
    found = []
    for split in splits:
        files = sorted(folder.glob(f"{split}-*.parquet"))
        if not files:
            raise VtzooError(f"no {split}-*.parquet in {folder}", f"the folder has {names_in(folder, '*.parquet')}")
        found += files
    return found


def needed_columns(schema: "pyarrow.Schema", dataset: NamedSet, where: object) -> list[str]:
    """The row's columns; a column that the schema lacks is a VtzooError."""
    for column in dataset.columns:
        if column not in schema.names:
            raise VtzooError(f"no column {column!r} in {where}", f"it has {', '.join(schema.names)}; {ANOTHER}")
    return list(dataset.columns)


def encoded_column(table: Any, dataset: NamedSet) -> "pyarrow.ChunkedArray":
    """The encoded images of a table (datasets.Dataset), as {bytes, path}."""
    return stored_images(table, dataset.image_column, ANOTHER)


def load_folders(dataset: NamedSet, split: str, folder: Path) -> tuple[Any, EncodedImages]:
    """The table (datasets.Dataset) of the images under {split}/<class>/, and its rows.

    Classes are in the order of the recorded names, or alphabetical if none are recorded.
    """
    hub = library()
    folders = [split_folder(folder, name, split, dataset) for name in dataset.splits(split)]
    names = facts.labels(dataset.name) or tuple(sorted({path.name for path in visible(folder.glob("*/*/"))}))
    paths, labels = [], []
    for class_folder in visible(path for above in folders for path in above.glob("*/")):
        if class_folder.name not in names:
            raise errors.unknown("class", class_folder.name, names, ANOTHER)
        files = files_below(class_folder, SUFFIXES)
        paths += [str(file) for file in files]
        labels += [names.index(class_folder.name)] * len(files)
    features = {dataset.image_column: hub.Image(), dataset.label_column: hub.ClassLabel(names=list(names))}
    columns = {dataset.image_column: paths, dataset.label_column: labels}
    table = hub.Dataset.from_dict(columns, features=hub.Features(features))
    positions = np.arange(len(table))
    return table, EncodedImages(stored=encoded_column(table, dataset), positions=positions, origin=paths.__getitem__)


def split_folder(folder: Path, hub_split: str, split: str, dataset: NamedSet) -> Path:
    """The subfolder of one of the Hub's splits; test images may lie in any of TEST_FOLDERS without training images."""
    others = [name for name in TEST_FOLDERS if split == "test" and name not in dataset.train_splits]
    for name in dict.fromkeys([hub_split, *others]):
        if (folder / name).is_dir():
            return folder / name
    hint = f"expected {hub_split}-*.parquet or {hub_split}/<class>/<image> there; it has {names_in(folder, '*')}"
    raise VtzooError(f"no {hub_split!r} images of {dataset.name} in {folder}", hint)


def in_domain(table: Any, domain: str | None) -> np.ndarray:
    """Whether each row belongs to the domain, bool (n,); all rows if `domain` is None.

    The column `domain` has names, or numbers with the names in its features.
    """
    if domain is None:
        return np.ones(len(table), dtype=bool)
    names = getattr(table.features["domain"], "names", None)
    wanted = domain if names is None else names.index(domain) if domain in names else None
    return np.array([value == wanted for value in table.data.column("domain").to_pylist()], dtype=bool)


def class_names(table: Any, dataset: NamedSet) -> tuple[str, ...] | None:
    """The class names in the label column's features; None if it has plain numbers; a wrong count is a VtzooError."""
    names = getattr(table.features[dataset.label_column], "names", None)
    if names is not None and len(names) != dataset.classes:
        raise VtzooError(f"the data has {len(names)} classes, {dataset.name} has {dataset.classes}", ANOTHER)
    return None if names is None else tuple(names)


def read_labels(table: Any, rows: EncodedImages, dataset: NamedSet) -> np.ndarray:
    """The labels of the rows, int64 (n,); a label outside the data set's classes is a VtzooError."""
    column = table.data.column(dataset.label_column).to_pylist()
    values = [column[position] for position in rows.positions]
    for position, value in zip(rows.positions, values, strict=True):
        if type(value) is not int or not 0 <= value < dataset.classes:
            expected = f"{dataset.name} has labels 0 to {dataset.classes - 1}"
            raise VtzooError(f"label {value!r} in {rows.origin(int(position))}", expected)
    return np.array(values, dtype=np.int64)


def record_labels(dataset: NamedSet, source: Path | None, file: Path) -> tuple[str, ...]:
    """The class names in the data itself, written into a JSON file of names by data set."""
    splits = dataset.test_splits
    table, _ = hub_rows(dataset, splits) if source is None else load_parquet(dataset, splits, source)
    names = class_names(table, dataset)
    if names is None:
        raise VtzooError(f"the labels in {source or dataset.hub_id} are plain numbers: no class names to record")
    recorded = json.loads(file.read_text(encoding="utf-8")) | {dataset.name: names}
    file.write_text(json.dumps(recorded, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    return names


if __name__ == "__main__":
    path = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    print(*record_labels(facts.named_set(sys.argv[1]), path, Path(facts.__file__).with_name("labels.json")), sep="\n")
