"""Locks a folder, so that one sweep at a time works in it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vtzoo.errors import VtzooError

NAME = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Create and lock the folder, and yield the lock's file descriptor. Another sweep's lock is a VtzooError.

    The system releases the lock when every process with the file descriptor has ended, even after a kill.
    """
    try:
        import fcntl
    except ImportError:
        raise VtzooError("vtzoo sweep needs the file locks of Linux or macOS", "on Windows, run it in WSL") from None
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VtzooError(f"cannot create the folder {folder}: {error.strerror}", "choose another --out") from error
    with (folder / NAME).open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            hint = "wait until it has ended, or choose another --out"
            raise VtzooError(f"another sweep is in progress in {folder}", hint) from None
        yield file.fileno()
