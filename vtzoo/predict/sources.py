"""Where images come from: files, folders, glob patterns, a list on stdin, and the rows of Parquet files.

Everything is streamed: what is known of all images at once is no more than the names in one folder, to sort them.
"""

import glob
import os
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, NamedTuple

from vtzoo.data.transform import SUFFIXES
from vtzoo.errors import VtzooError

STDIN = "-"
PARQUET = ".parquet"
ROWS = 64  # of a Parquet file, read at once
COLUMNS = ("image", "img")  # what data sets call their images
BUFFER = 1 << 20  # bytes of a Parquet file, read at once: a group of rows may be as large as the whole file
CHUNK = 1 << 16  # bytes of a list whose paths end with NUL


class Source(NamedTuple):
    """An image that is to be read."""

    name: str  # the path as given, joined with the name inside a folder; a row of a Parquet file is file#row
    content: str | bytes | VtzooError  # its path; what its file would hold; or why there is nothing to read


def find(paths: Iterable[str], stdin: BinaryIO | None = None, *, null: bool = False) -> Iterator[Source]:
    """The images that paths, folders and patterns stand for, in order; "-" is a list of paths on `stdin`, one a line.

    A folder stands for the images in it and below it, sorted, those of known suffixes and not hidden; one that has
    none of them stands for the rows of the Parquet files there. What does not exist, and a folder without either, is
    a source too, to be answered by its error. With `null`, each path on stdin ends with NUL instead of a line's end.
    """
    for path in paths:
        for name in _listed(stdin, null) if path == STDIN else [path]:
            for found in _expand(name):
                yield from _rows(found.name) if _is_parquet(found.content) else (found,)


def count(paths: Iterable[str]) -> int | None:
    """How many images `find` gives; None where only reading stdin, or a damaged Parquet file, would say."""
    total = 0
    for path in paths:
        if path == STDIN:
            return None
        for found in _expand(path):
            try:
                total += load_arrow().parquet.read_metadata(found.name).num_rows if _is_parquet(found.content) else 1
            except Exception:  # that file is answered by its error, later
                return None
    return total


def _listed(stdin: BinaryIO | None, null: bool) -> Iterator[str]:
    """The paths on stdin as they come."""
    if stdin is None:
        raise VtzooError(
            "stdin is closed, and - stands for a list of images on it", "ls photos/*.jpg | vtzoo predict -"
        )
    for line in _ending_with_null(stdin) if null else (line.rstrip(b"\r\n") for line in stdin):
        if line:
            yield os.fsdecode(line)


def _ending_with_null(stdin: BinaryIO) -> Iterator[bytes]:
    read, rest = getattr(stdin, "read1", stdin.read), b""  # read1 does not wait until there is a whole chunk
    while chunk := read(CHUNK):
        *whole, rest = (rest + chunk).split(b"\0")
        yield from whole
    yield rest


def _expand(path: str) -> Iterator[Source]:
    """The images and Parquet files that one path stands for."""
    if os.path.lexists(path) or not glob.has_magic(path):
        yield from _inside(path)
        return
    seen = set[str]()  # `**` matches a folder and what is in it
    for match in sorted(glob.glob(path, recursive=True)) or [path]:  # noqa: PTH207 (Path.glob takes no absolute one)
        for found in _inside(match):
            if found.name not in seen:
                seen.add(found.name)
                yield found


def _inside(path: str) -> Iterator[Source]:
    if not os.path.isdir(path):  # noqa: PTH112 (Path.is_dir raises on a name that is too long)
        yield Source(path, path)
        return
    for suffixes in (SUFFIXES, (PARQUET,)):
        files = _walk(path, suffixes, ())
        if first := next(files, None):
            yield first
            yield from files
            return
    yield Source(path, path)


def _walk(folder: str, suffixes: tuple[str, ...], above: tuple[tuple[int, int], ...]) -> Iterator[Source]:
    """The files of these suffixes in the folder and below, sorted by the names on their way; links are followed.

    `above` are the folders (device, inode) on the way here: a link back to one of them leads nowhere.
    """
    try:
        status = os.stat(folder)  # noqa: PTH116
        here = status.st_dev, status.st_ino
        with os.scandir(folder) as entries:
            names = sorted((entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith("."))
    except OSError as error:
        yield Source(folder, VtzooError(f"cannot read the folder {folder!r}: {error.strerror}"))
        return
    for name, is_folder in names if here not in above else ():
        path = os.path.join(folder, name)  # noqa: PTH118 (Path would drop the "./" of what was given)
        if is_folder:
            yield from _walk(path, suffixes, (*above, here))
        elif name.lower().endswith(suffixes):
            yield Source(path, path)


def _is_parquet(content: Any) -> bool:
    return isinstance(content, str) and content.lower().endswith(PARQUET)


def _rows(path: str) -> Iterator[Source]:
    """The images in a Parquet file, or its error; a damaged group of rows has an error for each row that is lost."""
    arrow = load_arrow()  # without it nothing can be read, and that is no error of this file
    try:
        with arrow.parquet.ParquetFile(path, buffer_size=BUFFER) as file:
            column, first = _image_column(file.schema_arrow, path), 0
            for group in range(file.num_row_groups):
                last = first + file.metadata.row_group(group).num_rows
                yield from _group(file, group, column, path, range(first, last))
                first = last
    except VtzooError as error:
        yield Source(path, error)
    except (OSError, ValueError, arrow.ArrowException) as error:
        yield Source(path, _unreadable(path, error))


def _group(file: Any, group: int, column: str, path: str, rows: range) -> Iterator[Source]:
    """The images in a group of rows, read some at a time."""
    names = (f"{path}#{row}" for row in rows)
    try:
        for batch in file.iter_batches(ROWS, row_groups=[group], columns=[column]):
            for stored in batch.column(0).to_pylist():
                name = next(names)
                yield Source(name, _content(stored, name))
    except (OSError, ValueError, load_arrow().ArrowException) as error:
        for name in names:
            yield Source(name, _unreadable(path, error))


def _unreadable(path: str, error: Exception) -> VtzooError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).partition("\n")[0]
    return VtzooError(f"cannot read {path!r}: {reason}")


def load_arrow() -> Any:
    """The module pyarrow, with its Parquet, which only the extra [train] installs."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        hint = 'install it: pip install "vtzoo[train]"'
        raise VtzooError("Parquet files need pyarrow, which is not installed", hint) from error
    return pyarrow


def _image_column(schema: Any, path: str) -> str:
    """The column that holds images, bytes or structs of {bytes, path}: the only one, or the one of a usual name."""
    from pyarrow import types

    def encoded(kind: Any) -> bool:
        return types.is_binary(kind) or types.is_large_binary(kind)

    found = [
        field.name
        for field in schema
        if encoded(field.type)
        or (types.is_struct(field.type) and any(one.name == "bytes" and encoded(one.type) for one in field.type))
    ]
    usual = [name for name in COLUMNS if name in found]
    if len(found) != 1 and not usual:
        told = f"several: {', '.join(found)}" if found else f"none among {', '.join(schema.names)}"
        raise VtzooError(f"{path!r} has no one column of images, but {told}", "call the column `image`")
    return (usual or found)[0]


def _content(stored: Any, name: str) -> str | bytes | VtzooError:
    content, path = (stored.get("bytes"), stored.get("path")) if isinstance(stored, dict) else (stored, None)
    if content is not None:
        return content
    return VtzooError(f"there is no image in {name}") if path is None else path
