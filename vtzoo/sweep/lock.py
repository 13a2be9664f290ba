"""A folder that one sweep at a time may work in."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vtzoo.errors import VtzooError

NAME = ".lock"


@contextmanager
def held(folder: Path) -> Iterator[int]:
    """Make the folder and hold it; another sweep there is a VtzooError.

    The system lets go of it when the last process that has the yielded file descriptor has ended, however it ended.
    """
    try:
        import fcntl
    except ImportError:
        raise VtzooError("vtzoo sweep needs the file locks of Linux or macOS", "on Windows, run it in WSL") from None
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VtzooError(f"cannot make the folder {folder}: {error.strerror}", "choose another --out") from error
    with (folder / NAME).open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            hint = "wait until it has ended, or choose another --out"
            raise VtzooError(f"another sweep is at work in {folder}", hint) from None
        yield file.fileno()
