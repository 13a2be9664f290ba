"""Class names as numbers, and what is not known of an image as NaN."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from vtzoo.data.found import counted, in_order
from vtzoo.errors import VtzooError

LARGEST = 1 << 32  # bytes, of the targets where an image may have several classes
ANSWERS = {  # of a cell, where each class has a column
    "": np.nan, "0": 0.0, "0.0": 0.0, "false": 0.0, "no": 0.0, "1": 1.0, "1.0": 1.0, "true": 1.0, "yes": 1.0,
}  # fmt: skip
UNKNOWN = -1  # the one class of an image of which it is not known

Names: TypeAlias = "Sequence[str] | None"  # of an image's classes; None where nothing is known


def one_each(names: Sequence[str | None], classes: tuple[str, ...] | None = None) -> tuple[tuple[str, ...], np.ndarray]:
    """The classes, and that of each image, int64 (n,), or UNKNOWN."""
    classes = classes or in_order(name for name in names if name is not None)
    numbers: dict[str | None, int] = {name: number for number, name in enumerate(classes)}
    return classes, np.array([numbers.get(name, UNKNOWN) for name in names], dtype=np.int64)


def several_each(
    names: Sequence[Names], masks: Sequence[Names], classes: tuple[str, ...] | None = None
) -> tuple[tuple[str, ...], np.ndarray]:
    """The classes, and what is known of each in each image, float32 (n, classes): 1 yes, 0 no, NaN unknown.

    A mask names the classes that were looked for in an image; None stands for all. Of the others, only what the image
    is said to have is known.
    """
    mentioned = {name for some in (*names, *masks) for name in some or ()}
    classes = classes or in_order(mentioned)
    numbers = {name: number for number, name in enumerate(classes)}
    targets = _unknown(len(names), len(classes))
    for row, (present, mask) in enumerate(zip(names, masks, strict=True)):
        if mask is not None:
            targets[row, [numbers[name] for name in mask]] = 0
        elif present is not None:
            targets[row] = 0
        targets[row, [numbers[name] for name in present or ()]] = 1
    return classes, targets


def a_column_each(columns: dict[str, list[str]], where: object) -> tuple[tuple[str, ...], np.ndarray]:
    """The classes, in the order of their columns, and their cells as in `several_each`: 1, 0 or empty."""
    targets = _unknown(len(next(iter(columns.values()))), len(columns))
    for number, (name, cells) in enumerate(columns.items()):
        strange = next((cell for cell in cells if cell.strip().lower() not in ANSWERS), None)
        if strange is not None:
            hint = "call the column of labels `label`, or name it: --label-column NAME"
            told = f"no column of labels in {where}, and column {name!r} says neither 1 nor 0, but {strange!r}"
            raise VtzooError(told, hint)
        targets[:, number] = [ANSWERS[cell.strip().lower()] for cell in cells]
    return tuple(columns), targets


def known(targets: np.ndarray) -> np.ndarray:
    """Of which images anything is known, bool (n,)."""
    nothing = targets == UNKNOWN if targets.ndim == 1 else np.isnan(targets).all(axis=1)
    return np.logical_not(nothing)


def _unknown(images: int, classes: int) -> np.ndarray:
    if 4 * images * classes > LARGEST:
        told = f"{counted(images, 'image')} with several of {classes:,} classes each would take"
        raise VtzooError(f"{told} {4 * images * classes / 1e9:,.0f} GB", "give fewer classes, or one class an image")
    return np.full((images, classes), np.nan, dtype=np.float32)
