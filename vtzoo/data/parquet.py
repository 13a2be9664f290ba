"""Parquet files as labelled images, or as a stream of images; both take the same column for the images."""

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow
from pyarrow import parquet

from vtzoo.data import columns
from vtzoo.data.folder import files_below
from vtzoo.data.hub import library
from vtzoo.data.labelled_images import LabelledImages
from vtzoo.data.rows import Table, labelled_rows, recognise
from vtzoo.data.split import SPLIT_NAMES
from vtzoo.errors import VtzooError

SUFFIX = ".parquet"
ROWS = 64  # read at once
BUFFER = 1 << 20  # bytes read at once: a row group may be as large as the whole file

Streamed: TypeAlias = tuple[str, str | bytes | VtzooError]  # file#row, and the path, the encoded bytes or the error


def parquet_files(path: Path) -> list[Path]:
    """The Parquet file itself, or the Parquet files in a folder and below."""
    return [path] if path.is_file() else files_below(path, (SUFFIX,))


def read_parquet(path: Path, *, image_column: str | None = None, label_column: str | None = None) -> LabelledImages:
    """The images in a Parquet file, or in a folder's Parquet files: train-*.parquet, validation/*.parquet..."""
    files, folder = parquet_files(path), path if path.is_dir() else path.parent
    splits = [_split_of(file.relative_to(folder)) for file in files]
    if set(splits) - {None} and None in splits:
        message = f"{files[splits.index(None)]} does not say whether it is train, validation or test, and others do"
        raise VtzooError(message, "rename it, as train-0.parquet")
    tables = []
    for file, split in zip(files, splits, strict=True):

        def choose(schema: pyarrow.Schema, file: Path = file) -> list[str]:
            return recognise(features_of(schema), file, image_column, label_column).needed

        data = library().Dataset(_plain(read_columns(file, choose)), fingerprint=file.name)
        tables.append(Table(str(file.relative_to(folder)), split or "train", data))
    return labelled_rows(tables, image_column, label_column)


def read_columns(file: Path, choose: Callable[[pyarrow.Schema], list[str]]) -> pyarrow.Table:
    """The columns of a Parquet file that `choose` picks from its schema; an unreadable file is a VtzooError."""
    try:
        with parquet.ParquetFile(file) as opened:  # read_table would take folders called a=b for columns
            return opened.read(choose(opened.schema_arrow))
    except (OSError, pyarrow.ArrowException) as error:
        raise VtzooError(f"cannot read {file}: {str(error).partition(chr(10))[0]}", "fetch the file again") from error


def features_of(schema: pyarrow.Schema) -> Any:
    """The datasets.Features of a Parquet file's columns, without columns whose type the library does not know."""
    known, features = [], library().Features
    for field in schema:
        plain = field.with_type(_decoded(field.type))
        with suppress(NotImplementedError, ValueError):
            features.from_arrow_schema(pyarrow.schema([plain]))
            known.append(plain)
    return features.from_arrow_schema(pyarrow.schema(known, metadata=schema.metadata))


def stream_images(path: str) -> Iterator[Streamed]:
    """The images of a Parquet file in order; an unreadable file yields an error, a damaged row group one per row."""
    try:
        with parquet.ParquetFile(path, buffer_size=BUFFER) as file:
            column, first = _image_column(file.schema_arrow, path), 0
            for group in range(file.num_row_groups):
                last = first + file.metadata.row_group(group).num_rows
                yield from _group(file, group, column, path, range(first, last))
                first = last
    except VtzooError as error:
        yield path, error
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        yield path, _unreadable(path, error)


def _group(file: parquet.ParquetFile, group: int, column: str, path: str, rows: range) -> Iterator[Streamed]:
    """The images in a row group, read ROWS at a time."""
    names = (f"{path}#{row}" for row in rows)
    try:
        for batch in file.iter_batches(ROWS, row_groups=[group], columns=[column]):
            for stored in batch.column(0).to_pylist():
                name = next(names)
                yield name, _content(stored, name)
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        for name in names:
            yield name, _unreadable(path, error)


def _image_column(schema: pyarrow.Schema, path: str) -> str:
    column = columns.image_column(schema)
    if column is None:
        encoded = [field.name for field in schema if columns.is_encoded(field.type)]
        message = f"no column of images among {', '.join(schema.names)}"
        if encoded:
            message = f"several columns of images: {', '.join(encoded)}"
        raise VtzooError(f"{path!r} has {message}", "call the column `image`")
    return column


def _content(stored: Any, name: str) -> str | bytes | VtzooError:
    content, path = (stored.get("bytes"), stored.get("path")) if isinstance(stored, dict) else (stored, None)
    if content is not None:
        return content
    return VtzooError(f"there is no image in {name}") if path is None else path


def _unreadable(path: str, error: Exception) -> VtzooError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).partition("\n")[0]
    return VtzooError(f"cannot read {path!r}: {reason}")


def _split_of(file: Path) -> str | None:
    """The split in the names of a Parquet file's folders or in the first word of its own name; None without any."""
    words = [*file.parent.parts, re.split("[-_.]", file.stem)[0]]
    return next((SPLIT_NAMES[word.lower()] for word in words if word.lower() in SPLIT_NAMES), None)


def _plain(table: pyarrow.Table) -> pyarrow.Table:
    """The table with dictionary columns (pandas's categories) decoded to their values."""
    fields = [field.with_type(_decoded(field.type)) for field in table.schema]
    return table.cast(pyarrow.schema(fields, metadata=table.schema.metadata))


def _decoded(kind: pyarrow.DataType) -> Any:
    return kind.value_type if isinstance(kind, pyarrow.DictionaryType) else kind
