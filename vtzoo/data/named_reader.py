"""The one door to data: the images and labels of a split, from Parquet, folders or the Hub. No torch.

Everything goes through the `datasets` library, and nothing is copied to disk on the way: Parquet and image folders
become in-memory tables of encoded images, and only the Hub uses the library's own cache.

`python -m vtzoo.data.named_reader NAME [PATH]` reads a data set's class names and writes them into labels.json.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from vtzoo import errors
from vtzoo.data import named as facts
from vtzoo.data.decoding import Rows, Split
from vtzoo.data.named import Dataset
from vtzoo.data.transform import SUFFIXES
from vtzoo.errors import VtzooError

if TYPE_CHECKING:
    import pyarrow

TEST_FOLDERS = ("test", "val", "validation")  # what a folder of test images may be called
ANOTHER = "is it another data set? its row is in vtzoo/data/named.py"  # the hint for data that contradict it


def read(dataset: Dataset, split: str, source: Path | None = None) -> Split:
    """The "train" or "test" split of a data set, checked against its row.

    `source` is a folder of Parquet files named {split}-*.parquet or of images (train/<class>/..., test/<class>/...);
    None reads the Hub at the row's revision.
    """
    parts = dataset.splits(split)
    if source is None:
        table, rows = load_hub(dataset, parts)
    elif not source.is_dir():
        raise VtzooError(f"no folder {str(source)!r}", f"give the folder that holds {dataset.name}: --data PATH")
    elif any(source.glob("*.parquet")):
        table, rows = load_parquet(dataset, parts, source)
    else:
        table, rows = load_folders(dataset, split, source)
    if not len(rows):
        raise VtzooError(f"no images of {dataset.name} in split {split!r} of {source or dataset.hub_id}")
    names = class_names(table, dataset) or facts.labels(dataset.name) or tuple(map(str, range(dataset.classes)))
    return Split(labels=read_labels(table, rows, dataset), label_names=names, rows=rows)


def library() -> ModuleType:
    """The `datasets` library, which only the extra [train] installs."""
    try:
        import datasets
    except ImportError as error:
        raise VtzooError("reading data needs the datasets library", "pip install 'vtzoo[train]'") from error
    return datasets


def load_hub(dataset: Dataset, parts: tuple[str, ...]) -> tuple[Any, Rows]:
    """The table (datasets.Dataset) on the Hub at the pinned revision, and its rows that count."""
    hint = f"check the connection, or read {dataset.name} from a folder: --data PATH"
    table = ask_hub(dataset.hub_id, hint, dataset.config, revision=dataset.revision, split="+".join(parts))
    require_columns(table.column_names, dataset, dataset.hub_id)
    positions = np.flatnonzero(in_domain(table, dataset.domain))
    named = partial("{}#{}".format, f"{dataset.hub_id}:{'+'.join(parts)}")
    return table, Rows(encoded=image_column(table, dataset.image_column), positions=positions, origin=named)


def ask_hub(hub_id: str, hint: str, config: str | None = None, **choice: str | None) -> Any:
    """What `datasets.load_dataset` gives of a data set on the Hub; a failure is a sentence with the hint."""
    hub = library()
    from huggingface_hub.errors import HTTPError  # the HTTP client's own: a failed connection is no OSError

    try:
        return hub.load_dataset(hub_id, config, **choice)
    except (OSError, ValueError, HTTPError, hub.exceptions.DatasetsError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise VtzooError(f"cannot read {hub_id} from the Hub: {reason}", hint) from error


def load_parquet(dataset: Dataset, parts: tuple[str, ...], folder: Path) -> tuple[Any, Rows]:
    """The table (datasets.Dataset) of a folder's Parquet files, in memory, and its rows.

    The library's own Parquet reader would first write a copy into its cache: we hand it tables instead.
    """
    hub = library()
    import pyarrow

    tables, origins, features = [], [], None
    for file in parquet_files(folder, parts):
        stored = read_parquet(file, partial(needed_columns, dataset=dataset, where=file))
        # A fingerprint that is given is not computed: hashing 100 MB takes longer than reading it.
        table = hub.Dataset(stored, fingerprint=file.name)
        if table.features != (features := features or table.features):
            raise VtzooError(f"{file} has other column types or classes than the files before it", ANOTHER)
        kept = in_domain(table, dataset.domain)
        tables.append(stored.filter(pyarrow.array(kept)) if dataset.domain else stored)
        origins += [f"{file.name}#{row}" for row in np.flatnonzero(kept)]
    table = hub.Dataset(pyarrow.concat_tables(tables), fingerprint=folder.name)
    encoded = image_column(table, dataset.image_column)
    return table, Rows(encoded=encoded, positions=np.arange(len(table)), origin=origins.__getitem__)


def parquet_files(folder: Path, parts: tuple[str, ...]) -> list[Path]:
    """The Parquet files of all the parts, in order; each part must have one."""
    found = [sorted(folder.glob(f"{part}-*.parquet")) for part in parts]
    for part, files in zip(parts, found, strict=True):
        if not files:
            raise VtzooError(f"no {part}-*.parquet in {folder}", f"the folder has {names_in(folder, '*.parquet')}")
    return [file for files in found for file in files]


def needed_columns(schema: "pyarrow.Schema", dataset: Dataset, where: Path) -> list[str]:
    """The columns that count of a data set's Parquet file."""
    require_columns(schema.names, dataset, where)
    return list(dataset.columns)


def read_parquet(file: Path, choose: Callable[["pyarrow.Schema"], list[str]]) -> "pyarrow.Table":
    """The columns that `choose` names of one Parquet file."""
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(file) as opened:  # read_table would take folders called a=b for columns
            return opened.read(choose(opened.schema_arrow))
    except (OSError, pyarrow.ArrowException) as error:
        raise VtzooError(f"cannot read {file}: {str(error).partition(chr(10))[0]}", "fetch the file again") from error


def load_folders(dataset: Dataset, split: str, folder: Path) -> tuple[Any, Rows]:
    """The table (datasets.Dataset) of the images under {split}/<class>/, and its rows.

    Classes are in the order of the recorded names, or in alphabetical order where there are none.
    """
    hub = library()
    parts = [split_folder(folder, part, split, dataset) for part in dataset.splits(split)]
    names = facts.labels(dataset.name) or tuple(sorted({found.name for found in visible(folder.glob("*/*/"))}))
    paths, labels = [], []
    for class_folder in visible(path for part in parts for path in part.glob("*/")):
        if class_folder.name not in names:
            raise errors.unknown("class", class_folder.name, names, ANOTHER)
        files = image_files(class_folder)
        paths += [str(file) for file in files]
        labels += [names.index(class_folder.name)] * len(files)
    features = {dataset.image_column: hub.Image(), dataset.label_column: hub.ClassLabel(names=list(names))}
    columns = {dataset.image_column: paths, dataset.label_column: labels}
    table = hub.Dataset.from_dict(columns, features=hub.Features(features))
    encoded = image_column(table, dataset.image_column)
    return table, Rows(encoded=encoded, positions=np.arange(len(table)), origin=paths.__getitem__)


def split_folder(folder: Path, part: str, split: str, dataset: Dataset) -> Path:
    """The subfolder of one part; a test split goes by several names, but never by that of training images."""
    others = [name for name in TEST_FOLDERS if split == "test" and name not in dataset.train_splits]
    for name in dict.fromkeys([part, *others]):
        if (folder / name).is_dir():
            return folder / name
    expected = f"expected {part}-*.parquet or {part}/<class>/<image> there"
    raise VtzooError(f"no {part!r} images of {dataset.name} in {folder}", f"{expected}; it has {names_in(folder, '*')}")


def visible(paths: Iterable[Path]) -> list[Path]:
    """The paths whose own name is not hidden, in order."""
    return sorted(path for path in paths if not path.name.startswith("."))


def image_files(folder: Path) -> list[Path]:
    """The image files under a folder, recursively, in order; hidden ones and other suffixes are skipped."""
    return [file for file in files_below(folder) if file.suffix.lower() in SUFFIXES]


def files_below(folder: Path) -> list[Path]:
    """The files under a folder, recursively, in order; hidden ones are skipped.

    Links are followed, but to no folder twice, and not back to one above: loops end, and a class has its own images.
    """
    found, seen = [], {str(above) for above in Path(os.path.realpath(folder)).parents}
    for here, below, names in os.walk(folder, onerror=_refuse, followlinks=True):
        if (real := os.path.realpath(here)) in seen:
            below.clear()
            continue
        seen.add(real)
        below[:] = sorted(name for name in below if not name.startswith("."))
        found += [Path(here, name) for name in names if not name.startswith(".")]
    return sorted(found)


def _refuse(error: OSError) -> None:
    raise VtzooError(f"cannot read the folder {str(error.filename)!r}: {error.strerror}", "make it readable") from error


def names_in(folder: Path, pattern: str) -> str:
    """What a message says that a folder holds: a few names."""
    names = [path.name for path in visible(folder.glob(pattern))]
    return ", ".join(names[:5] + ["..."] * (len(names) > 5)) or "nothing"


def require_columns(columns: list[str], dataset: Dataset, where: object) -> None:
    """Raise unless the row's columns are among those found."""
    for column in dataset.columns:
        if column not in columns:
            raise VtzooError(f"no column {column!r} in {where}", f"it has {', '.join(columns)}; {ANOTHER}")


def in_domain(table: Any, domain: str | None) -> np.ndarray:
    """Which rows belong to the domain, bool (n,): all where there is none. The column holds names or their numbers."""
    if domain is None:
        return np.ones(len(table), dtype=bool)
    names = getattr(table.features["domain"], "names", None)
    wanted = domain if names is None else names.index(domain) if domain in names else None
    return np.array([value == wanted for value in table.data.column("domain").to_pylist()], dtype=bool)


def image_column(table: Any, column: str, hint: str = ANOTHER) -> "pyarrow.ChunkedArray":
    """The encoded images as {bytes, path}; plain bytes, or a column that lost its metadata, are taken for images."""
    import pyarrow

    stored = table.data.column(column).type
    types = pyarrow.types
    if not (types.is_struct(stored) or types.is_binary(stored) or types.is_large_binary(stored)):
        raise VtzooError(f"column {column!r} holds {stored}, not images", hint)
    return table.cast_column(column, library().Image()).data.column(column)


def class_names(table: Any, dataset: Dataset) -> tuple[str, ...] | None:
    """The names that the label column itself carries, as many as the row says; None where it has plain numbers."""
    names = getattr(table.features[dataset.label_column], "names", None)
    if names is not None and len(names) != dataset.classes:
        raise VtzooError(f"the data has {len(names)} classes, {dataset.name} has {dataset.classes}", ANOTHER)
    return None if names is None else tuple(names)


def read_labels(table: Any, rows: Rows, dataset: Dataset) -> np.ndarray:
    """The labels of the rows that count, int64 (n,), each within the data set's classes."""
    column = table.data.column(dataset.label_column).to_pylist()
    values = [column[position] for position in rows.positions]
    for position, value in zip(rows.positions, values, strict=True):
        if type(value) is not int or not 0 <= value < dataset.classes:
            expected = f"{dataset.name} has labels 0 to {dataset.classes - 1}"
            raise VtzooError(f"label {value!r} in {rows.origin(int(position))}", expected)
    return np.array(values, dtype=np.int64)


def record_labels(dataset: Dataset, source: Path | None, file: Path) -> tuple[str, ...]:
    """Write the class names that the data itself carries into a JSON file of names by data set, and return them."""
    parts = dataset.test_splits
    table, _ = load_hub(dataset, parts) if source is None else load_parquet(dataset, parts, source)
    names = class_names(table, dataset)
    if names is None:
        raise VtzooError(f"the labels in {source or dataset.hub_id} are plain numbers: no class names to record")
    recorded = json.loads(file.read_text(encoding="utf-8")) | {dataset.name: names}
    file.write_text(json.dumps(recorded, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    return names


if __name__ == "__main__":
    path = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    print(*record_labels(facts.find(sys.argv[1]), path, Path(facts.__file__).with_name("labels.json")), sep="\n")
