"""The images to predict: files, folders, glob patterns, a list on stdin, and the rows of Parquet files.

Images are streamed: only the names in one folder are in memory at once, to sort them.
"""

import glob
import os
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, NamedTuple

from vtzoo.data.folder import walk
from vtzoo.data.transform import SUFFIXES
from vtzoo.errors import VtzooError

STDIN = "-"
PARQUET = ".parquet"
CHUNK = 1 << 16  # bytes read at once of a list with NUL


class Source(NamedTuple):
    """An image to predict."""

    name: str  # the path as given, joined with the name inside a folder; a row of a Parquet file is file#row
    content: str | bytes | VtzooError  # its path, its encoded bytes, or its error


def image_sources(paths: Iterable[str], stdin: BinaryIO | None = None, *, null: bool = False) -> Iterator[Source]:
    """The images of paths, folders and patterns, in order; "-" reads a list of paths from `stdin`, one a line.

    A folder gives the images in it and below, sorted, with known suffixes and not hidden; a folder without images
    gives the rows of its Parquet files. A missing path, and a folder without either, is a source too, whose prediction
    is its error. With `null`, NUL ends each path on stdin, not a line break.
    """
    for path in paths:
        for name in _listed(stdin, null) if path == STDIN else [path]:
            for found in _expand(name):
                yield from _rows(found.name) if _is_parquet(found.content) else (found,)


def count(paths: Iterable[str]) -> int | None:
    """The number of images that `image_sources` gives; None with stdin or with a damaged Parquet file."""
    total = 0
    for path in paths:
        if path == STDIN:
            return None
        for found in _expand(path):
            try:
                total += load_arrow().parquet.read_metadata(found.name).num_rows if _is_parquet(found.content) else 1
            except Exception:  # the file's error is its prediction, later
                return None
    return total


def _listed(stdin: BinaryIO | None, null: bool) -> Iterator[str]:
    """The paths on stdin, as they arrive."""
    if stdin is None:
        raise VtzooError(
            "stdin is closed, and - stands for a list of images on it", "ls photos/*.jpg | vtzoo predict -"
        )
    for line in _ending_with_null(stdin) if null else (line.rstrip(b"\r\n") for line in stdin):
        if line:
            yield os.fsdecode(line)


def _ending_with_null(stdin: BinaryIO) -> Iterator[bytes]:
    read, rest = getattr(stdin, "read1", stdin.read), b""  # read1 does not wait for a whole chunk
    while chunk := read(CHUNK):
        *whole, rest = (rest + chunk).split(b"\0")
        yield from whole
    yield rest


def _expand(path: str) -> Iterator[Source]:
    """The images and Parquet files of a path."""
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
        files = (Source(name, error or name) for name, error in walk(path, suffixes))
        if first := next(files, None):
            yield first
            yield from files
            return
    yield Source(path, path)


def _is_parquet(content: Any) -> bool:
    return isinstance(content, str) and content.lower().endswith(PARQUET)


def _rows(path: str) -> Iterator[Source]:
    load_arrow()  # raises its own error without pyarrow
    from vtzoo.data.parquet import stream_images

    yield from (Source(*found) for found in stream_images(path))


def load_arrow() -> Any:
    """The module pyarrow with its Parquet, a dependency of the extra [train]."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        hint = 'install it: pip install "vtzoo[train]"'
        raise VtzooError("Parquet files need pyarrow, which is not installed", hint) from error
    return pyarrow
