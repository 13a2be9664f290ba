"""A slice of the training images that tells when to stop, drawn where none is given."""

import numpy as np

FRACTION = 0.2  # of the training images
CAP = 5_000  # images


def draw(targets: np.ndarray, seed: int) -> np.ndarray:
    """Which of the training images are held out, bool (n,): about a fifth, and one at least of a class of two or more.

    `targets` is int64 (n,).
    """
    from sklearn.model_selection import StratifiedShuffleSplit

    held = np.zeros(len(targets), dtype=bool)
    counts = np.bincount(targets)
    usable = np.flatnonzero(counts[targets] > 1)
    classes = np.count_nonzero(counts > 1)
    if not classes:
        return held
    count = max(min(round(FRACTION * len(usable)), CAP), classes)
    splitter = StratifiedShuffleSplit(1, test_size=count, random_state=seed)
    held[usable[next(splitter.split(usable, targets[usable]))[1]]] = True
    shuffled = np.random.default_rng(seed).permutation(usable)
    present, first = np.unique(targets[shuffled], return_index=True)
    held[shuffled[first[~np.isin(present, targets[held])]]] = True  # of the classes that came away empty-handed
    return held
