"""Class names as targets: one number per image, or multi-label with one column per class and NaN for unknown."""

import re
from collections.abc import Iterable, Sequence
from typing import TypeAlias
from unicodedata import normalize

import numpy as np

from vtzoo.base.wording import counted
from vtzoo.data.labelled_images import UNKNOWN
from vtzoo.errors import VtzooError

LARGEST = 1 << 32  # bytes of multi-label targets
CELL_VALUES = {  # where each class has its own column
    "": np.nan, "0": 0.0, "0.0": 0.0, "false": 0.0, "no": 0.0, "1": 1.0, "1.0": 1.0, "true": 1.0, "yes": 1.0,
}  # fmt: skip

Names: TypeAlias = "Sequence[str] | None"  # of an image's classes; None if unknown
ClassesAndTargets: TypeAlias = tuple[tuple[str, ...], np.ndarray]


def class_name(text: str) -> str:
    """The class name without surrounding space, with composed accents (NFC): macOS decomposes them in file names."""
    return normalize("NFC", text.strip())


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """The distinct names, sorted, with the numbers in them by value: 2 before 10."""
    return tuple(sorted(set(names), key=lambda name: (re.sub("[0-9]+", lambda match: match[0].zfill(20), name), name)))


def single_label(names: Sequence[str | None], classes: tuple[str, ...] | None = None) -> ClassesAndTargets:
    """The classes, and the class of each image, int64 (n,), or UNKNOWN."""
    classes = classes or in_order(name for name in names if name is not None)
    numbers: dict[str | None, int] = {name: number for number, name in enumerate(classes)}
    return classes, np.array([numbers.get(name, UNKNOWN) for name in names], dtype=np.int64)


def multi_label(
    names: Sequence[Names], masks: Sequence[Names], classes: tuple[str, ...] | None = None
) -> ClassesAndTargets:  # fmt: skip
    """The classes, and the multi-label targets, float32 (n, classes): 1 yes, 0 no, NaN unknown.

    A mask names the classes that the annotators of an image looked for; None stands for all. Other classes are unknown,
    unless the image has them. Targets of more than LARGEST bytes are a VtzooError.
    """
    classes = classes or in_order(name for some in (*names, *masks) for name in some or ())
    numbers = {name: number for number, name in enumerate(classes)}
    targets = _unknown(len(names), len(classes))
    for row, (present, mask) in enumerate(zip(names, masks, strict=True)):
        if mask is not None:
            targets[row, [numbers[name] for name in mask]] = 0
        elif present is not None:
            targets[row] = 0
        targets[row, [numbers[name] for name in present or ()]] = 1
    return classes, targets


def column_per_class(columns: dict[str, list[str]], where: object) -> ClassesAndTargets:
    """The classes in the order of their columns, and targets as in `multi_label`, from cells of 1, 0 or nothing."""
    targets = _unknown(len(next(iter(columns.values()))), len(columns))
    for number, (name, cells) in enumerate(columns.items()):
        strange = next((cell for cell in cells if cell.strip().lower() not in CELL_VALUES), None)
        if strange is not None:
            message = f"no column of labels in {where}, and column {name!r} has {strange!r} where 1 or 0 is expected"
            raise VtzooError(message, "call the column of labels `label`, or name it: --label-column NAME")
        targets[:, number] = [CELL_VALUES[cell.strip().lower()] for cell in cells]
    return tuple(columns), targets


def labelled(targets: np.ndarray) -> np.ndarray:
    """Whether each image has a known label, bool (n,)."""
    unknown = targets == UNKNOWN if targets.ndim == 1 else np.isnan(targets).all(axis=1)
    return np.logical_not(unknown)


def _unknown(images: int, classes: int) -> np.ndarray:
    """Multi-label targets that are all unknown, float32 (images, classes)."""
    if 4 * images * classes > LARGEST:
        message = f"{counted(images, 'image')} with several of {classes:,} classes each would take"
        raise VtzooError(f"{message} {4 * images * classes / 1e9:,.0f} GB", "give fewer classes, or one class an image")
    return np.full((images, classes), np.nan, dtype=np.float32)
