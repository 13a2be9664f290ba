"""Splits: their names in users' data, and validation images drawn from the training images."""

from collections.abc import Callable, Sequence

import numpy as np

from vtzoo.errors import unknown

SPLIT_NAMES = {  # the split by its usual names
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test",
}  # fmt: skip

FRACTION = 0.2  # of the training images
CAP = 5_000  # images: more improve the estimate little


def split_names(cells: Sequence[str | None], where: Callable[[int], str]) -> np.ndarray:
    """The splits named in cells, str (n,); an empty cell is train. `where` describes the place of a cell for errors."""
    for index, cell in enumerate(cells):
        if (cell or "train").lower() not in SPLIT_NAMES:
            raise unknown("split", str(cell), SPLIT_NAMES, f"{where(index)} says it")
    return np.array([SPLIT_NAMES[(cell or "train").lower()] for cell in cells], dtype=str)


def images_per_class(targets: np.ndarray, classes: int) -> np.ndarray:
    """The number of images of each class, int64 (classes,)."""
    return np.bincount(targets, minlength=classes) if targets.ndim == 1 else np.count_nonzero(targets == 1, axis=0)


def draw_val(targets: np.ndarray, free: np.ndarray, seed: int) -> np.ndarray:
    """Whether each training image becomes a validation image, bool (n,): about a fifth, at most CAP, stratified.

    Only `free` images, bool (n,), are drawn. A class with at least two of them gives at least one and keeps at least
    one; with multi-label targets, float32 (n, classes), as far as possible, the rarest class first.
    """
    drawn = np.zeros(len(targets), dtype=bool)
    candidates = np.flatnonzero(free)
    draw = _stratified if targets.ndim == 1 else _iteratively_stratified
    drawn[candidates[draw(targets[candidates], seed)]] = True
    return drawn


def size(images: int, classes: int) -> int:
    """The number of images to draw, if `classes` classes have at least two."""
    return max(min(round(FRACTION * images), CAP), classes)


def _stratified(targets: np.ndarray, seed: int) -> np.ndarray:
    """Indices drawn in proportion to each class. int64 (n,) -> int64 (m,)"""
    from sklearn.model_selection import StratifiedShuffleSplit

    counts = np.bincount(targets)
    several = np.flatnonzero(counts[targets] > 1)
    if not len(several):
        return several
    count = size(len(several), int(np.count_nonzero(counts > 1)))
    splitter = StratifiedShuffleSplit(1, test_size=count, random_state=seed)
    drawn = several[next(splitter.split(several, targets[several]))[1]]
    # A small class that gives none in proportion gives one.
    shuffled = np.random.default_rng(seed).permutation(several)
    present, first = np.unique(targets[shuffled], return_index=True)
    return np.concatenate([drawn, shuffled[first[~np.isin(present, targets[drawn])]]])


def _iteratively_stratified(targets: np.ndarray, seed: int) -> np.ndarray:
    """Indices drawn so that each class has about its share. float32 (n, classes) -> int64 (m,)

    Iterative stratification (Sechidis et al. 2011) into two subsets, the second much smaller: each class in turn, from
    the rarest, fills its share with images that no rarer class has decided on.
    """
    positive = targets == 1
    left = images_per_class(targets, targets.shape[1])  # in train, of each class
    total = size(len(targets), int(np.count_nonzero(left > 1)))
    share = np.maximum(np.round(left * total / max(len(targets), 1)), left > 1).astype(int)
    undecided, drawn = np.random.default_rng(seed).permutation(len(targets)), np.zeros(len(targets), dtype=bool)
    for one in np.argsort(left, kind="stable"):
        having = positive[undecided, one]
        for index in undecided[having]:
            if np.count_nonzero(positive[drawn, one]) >= share[one]:
                break
            if np.all(left[positive[index]] > 1):  # every class keeps an image to learn from
                drawn[index] = True
                left[positive[index]] -= 1
        undecided = undecided[~having]
    drawn[undecided[: max(total - np.count_nonzero(drawn), 0)]] = True  # images without any class
    return np.flatnonzero(drawn)
