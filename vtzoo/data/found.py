"""What a source of people's images holds, before anything is checked or split; and names as notes say them."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from unicodedata import normalize

import numpy as np

from vtzoo.data import named_reader
from vtzoo.data.decoding import Rows
from vtzoo.errors import unknown

TRAIN, HELD, TEST = 0, 1, 2
PART_NAMES = {"train": TRAIN, "training": TRAIN, "val": HELD, "valid": HELD, "validation": HELD, "test": TEST}
SHOWN = 3  # names in a sentence


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """Images and what is known of them."""

    classes: tuple[str, ...]
    rows: Rows
    targets: np.ndarray  # as in Labelled; -1 where the one class is not known
    parts: np.ndarray  # int8 (n,): TRAIN, HELD or TEST
    notes: tuple[str, ...] = ()

    @property
    def multi(self) -> bool:
        """Whether an image may have several classes."""
        return self.targets.ndim == 2

    def select(self, indices: np.ndarray, *notes: str) -> "Found":
        """The images at `indices`, in that order, with further notes."""
        return Found(
            classes=self.classes,
            rows=self.rows.select(indices),
            targets=self.targets[indices],
            parts=self.parts[indices],
            notes=(*self.notes, *notes),
        )


def of_files(paths: list[str]) -> Rows:
    """The rows of image files, which are read when they are asked for."""
    hub = named_reader.library()
    table = hub.Dataset.from_dict({"image": paths}, features=hub.Features({"image": hub.Image()}))
    encoded = named_reader.image_column(table, "image")
    return Rows(encoded=encoded, positions=np.arange(len(paths)), origin=paths.__getitem__)


def parts_of(cells: Sequence[str | None], where: Callable[[int], str]) -> np.ndarray:
    """The parts that cells name, int8 (n,): training where one is empty. `where` says of an index where its cell is."""
    for index, cell in enumerate(cells):
        if (cell or "train").lower() not in PART_NAMES:
            raise unknown("split", str(cell), PART_NAMES, f"{where(index)} says it")
    return np.array([PART_NAMES[(cell or "train").lower()] for cell in cells], dtype=np.int8)


def class_name(text: str) -> str:
    """A class's name without space around it, its accents composed (NFC), as macOS's file names have them not."""
    return normalize("NFC", text.strip())


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """The different names, sorted, with numbers in them by their value: 2 before 10."""
    return tuple(sorted(set(names), key=lambda name: (re.sub("[0-9]+", lambda found: found[0].zfill(20), name), name)))


def few(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more:,} more" if more > 0 else "")


def counted(number: int, singular: str, plural: str | None = None) -> str:
    """A number and what it counts: 1 image, 2 images."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"
