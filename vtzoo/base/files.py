"""Files that appear whole or not at all, and what they are known by."""

import hashlib
import os
from contextlib import suppress
from pathlib import Path


def write(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all: beside its place, then moved there. What stops it is an OSError."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        with suppress(OSError):  # it is gone where it became `path`
            partial.unlink()


def cache_folder() -> Path:
    """Where decoded images are kept: $VTZOO_CACHE, or vtzoo/ in the user's folder of caches."""
    return Path(os.environ.get("VTZOO_CACHE") or caches() / "vtzoo")


def caches() -> Path:
    """The user's folder of caches, of all programs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def sha256(path: Path) -> str:
    """A file's hash, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
