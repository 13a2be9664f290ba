"""The one exception that the command line turns into a sentence and a hint."""

from collections.abc import Iterable
from difflib import get_close_matches


class VtzooError(Exception):
    """A failure the user can act on: what went wrong, and what to type next.

    `message` is one sentence that names the offending value; `hint`, where there is one, is the next command or
    the nearest valid names.
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def unknown(kind: str, name: str, known: Iterable[str], hint: str | None = None) -> VtzooError:
    """The error for a name that is not one of `known`: it lists the nearest names, or all of a few.

    `kind` says what the name stands for ("model", "dataset"); `hint` is the command that lists the valid names.
    """
    known = sorted(known)
    near = get_close_matches(name, known, n=3, cutoff=0.5)
    listed = near or (known if len(known) <= 12 else [])
    suggestion = f"did you mean {' or '.join(listed)}?" if near else f"known: {', '.join(listed)}" if listed else ""
    parts = [part for part in (suggestion, hint) if part]
    return VtzooError(f"unknown {kind} {name!r}", (" " if near else "; ").join(parts) or None)
