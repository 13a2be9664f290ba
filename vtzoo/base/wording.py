"""Names and numbers as sentences have them."""

from collections.abc import Sequence

SHOWN = 3  # names in a sentence


def few(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are: a, b, c and 4 more."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more:,} more" if more > 0 else "")


def counted(number: int, singular: str, plural: str | None = None) -> str:
    """A number and what it counts: 1 image, 2 images."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"
