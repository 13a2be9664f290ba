"""Atomic writes, file hashes, and the cache folder."""

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """A partial file beside `path` for the block to write. It becomes `path` when the block ends without an error.

    A killed process leaves the old file or the new one, and perhaps the partial file: see `remove_partials`. `durable`
    waits until the disk holds the content; without it, a power cut can damage the new file.
    """
    partial = path.with_name(f".{path.name}.{os.urandom(8).hex()}.partial")
    try:
        yield partial
        if durable:
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
        partial.replace(path)
    finally:
        with suppress(OSError):  # after `replace` there is none
            partial.unlink()


def write(path: Path, content: bytes) -> None:
    """Write a whole file atomically; an OSError leaves the old file in place."""
    with replacing(path) as partial:
        partial.write_bytes(content)


def remove_partials(path: Path, *, older_than: float = 0) -> None:
    """Remove the partial files of `path` that killed writers left, last written `older_than` seconds ago or earlier."""
    for partial in path.parent.glob(f".{escape(path.name)}.*partial"):
        with suppress(OSError):  # another process removed it first
            if time.time() - partial.lstat().st_mtime >= older_than:
                partial.unlink()


def cache_folder() -> Path:
    """The folder of decoded images: $VTZOO_CACHE, or vtzoo/ in the user's cache folder."""
    return Path(os.environ.get("VTZOO_CACHE") or user_cache_folder() / "vtzoo")


def user_cache_folder() -> Path:
    """The user's cache folder, shared by all programs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
