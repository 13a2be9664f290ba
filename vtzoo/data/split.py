"""Splits: their usual names, and validation images drawn from the training images."""

from collections.abc import Callable, Sequence

import numpy as np

from vtzoo.errors import unknown

SPLIT_NAMES = {  # usual name -> split
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test",
}  # fmt: skip

FRACTION = 0.2  # of the training images
CAP = 5_000  # images: more add little


def split_names(cells: Sequence[str | None], where: Callable[[int], str]) -> np.ndarray:
    """The splits that cells name, str (n,); an empty cell is train. `where` describes a cell's place for errors."""
    for index, cell in enumerate(cells):
        if (cell or "train").lower() not in SPLIT_NAMES:
            raise unknown("split", str(cell), SPLIT_NAMES, f"{where(index)} says it")
    return np.array([SPLIT_NAMES[(cell or "train").lower()] for cell in cells], dtype=str)


def images_per_class(targets: np.ndarray, classes: int) -> np.ndarray:
    """The number of images of each class, int64 (classes,)."""
    return np.bincount(targets, minlength=classes) if targets.ndim == 1 else np.count_nonzero(targets == 1, axis=0)


def draw_val(targets: np.ndarray, free: np.ndarray, seed: int) -> np.ndarray:
    """Whether each training image is drawn for val, bool (n,): about a fifth of every class, at most CAP in all.

    Only `free` images, bool (n,), are drawn. A class with two or more free images gives at least one and keeps at least
    one. Multi-label targets, float32 (n, classes), follow this rule where possible, the rarest class first.
    """
    drawn = np.zeros(len(targets), dtype=bool)
    candidates = np.flatnonzero(free)
    draw = _stratified if targets.ndim == 1 else _iteratively_stratified
    drawn[candidates[draw(targets[candidates], seed)]] = True
    return drawn


def size(images: int, classes: int) -> int:
    """The number of images to draw, at least one for each of `classes`, those with two images or more."""
    return max(min(round(FRACTION * images), CAP), classes)


def _stratified(targets: np.ndarray, seed: int) -> np.ndarray:
    """The indices of a slice, each class in proportion. int64 (n,) -> int64 (m,)"""
    from sklearn.model_selection import StratifiedShuffleSplit

    counts = np.bincount(targets)
    candidates = np.flatnonzero(counts[targets] > 1)
    if not len(candidates):
        return candidates
    count = size(len(candidates), int(np.count_nonzero(counts > 1)))
    splitter = StratifiedShuffleSplit(1, test_size=count, random_state=seed)
    drawn = candidates[next(splitter.split(candidates, targets[candidates]))[1]]
    # The share of a class with few images may round to none: then one image is drawn.
    shuffled = np.random.default_rng(seed).permutation(candidates)
    present, first = np.unique(targets[shuffled], return_index=True)
    return np.concatenate([drawn, shuffled[first[~np.isin(present, targets[drawn])]]])


def _iteratively_stratified(targets: np.ndarray, seed: int) -> np.ndarray:
    """The indices of a slice with about the same share of each class. float32 (n, classes) -> int64 (m,)

    After the iterative stratification of Sechidis et al. (2011), for two subsets of which one is much smaller: from the
    rarest class to the most frequent, each class adds its missing images, out of those without a rarer class.
    """
    positive = targets == 1
    left = images_per_class(targets, targets.shape[1])  # in train, of each class
    total = size(len(targets), int(np.count_nonzero(left > 1)))
    share = np.maximum(np.round(left * total / max(len(targets), 1)), left > 1).astype(int)
    undecided, drawn = np.random.default_rng(seed).permutation(len(targets)), np.zeros(len(targets), dtype=bool)
    for number in np.argsort(left, kind="stable"):
        has_class = positive[undecided, number]
        for index in undecided[has_class]:
            if np.count_nonzero(positive[drawn, number]) >= share[number]:
                break
            if np.all(left[positive[index]] > 1):  # every class keeps an image to learn from
                drawn[index] = True
                left[positive[index]] -= 1
        undecided = undecided[~has_class]
    drawn[undecided[: max(total - np.count_nonzero(drawn), 0)]] = True  # images without any class
    return np.flatnonzero(drawn)
