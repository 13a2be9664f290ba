"""Where images come from: files, folders, glob patterns, a list on stdin, and the rows of Parquet files.

Everything is streamed: what is known of all images at once is no more than the names in one folder, to sort them.
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
CHUNK = 1 << 16  # bytes of a list whose paths end with NUL


class Source(NamedTuple):
    """An image that is to be read."""

    name: str  # the path as given, joined with the name inside a folder; a row of a Parquet file is file#row
    content: str | bytes | VtzooError  # its path; what its file would hold; or why there is nothing to read


def image_sources(paths: Iterable[str], stdin: BinaryIO | None = None, *, null: bool = False) -> Iterator[Source]:
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
    """How many images `image_sources` yields; None where only reading stdin, or a damaged Parquet file, would say."""
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
        files = (Source(name, error or name) for name, error in walk(path, suffixes))
        if first := next(files, None):
            yield first
            yield from files
            return
    yield Source(path, path)


def _is_parquet(content: Any) -> bool:
    return isinstance(content, str) and content.lower().endswith(PARQUET)


def _rows(path: str) -> Iterator[Source]:
    load_arrow()  # a missing pyarrow is no error of this file
    from vtzoo.data.parquet import stream_images

    yield from (Source(*found) for found in stream_images(path))


def load_arrow() -> Any:
    """The module pyarrow, with its Parquet, which only the extra [train] installs."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        hint = 'install it: pip install "vtzoo[train]"'
        raise VtzooError("Parquet files need pyarrow, which is not installed", hint) from error
    return pyarrow
