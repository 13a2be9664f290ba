"""A slice of the training images that tells when to stop, drawn where none is given."""

import numpy as np

from vtzoo.data.checks import images_a_class

FRACTION = 0.2  # of the training images
CAP = 5_000  # images: more than that tell hardly more


def draw(targets: np.ndarray, free: np.ndarray, seed: int) -> np.ndarray:
    """Which of the training images are held out, bool (n,): about a fifth, at most CAP, and of every class.

    Only those that are `free`, bool (n,), are drawn. A class with two of these or more gives at least one, and keeps
    one. Where images have several classes, float32 (n, classes), this is attempted, the rarest class first.
    """
    held = np.zeros(len(targets), dtype=bool)
    candidates = np.flatnonzero(free)
    drawn = _one_each if targets.ndim == 1 else _several_each
    held[candidates[drawn(targets[candidates], seed)]] = True
    return held


def size(images: int, classes: int) -> int:
    """How many of the images are held out, where that many classes have two or more."""
    return max(min(round(FRACTION * images), CAP), classes)


def _one_each(targets: np.ndarray, seed: int) -> np.ndarray:
    """The indices of a slice, each class in proportion. int64 (n,) -> int64 (m,)"""
    from sklearn.model_selection import StratifiedShuffleSplit

    counts = np.bincount(targets)
    several = np.flatnonzero(counts[targets] > 1)
    if not len(several):
        return several
    count = size(len(several), int(np.count_nonzero(counts > 1)))
    splitter = StratifiedShuffleSplit(1, test_size=count, random_state=seed)
    held = several[next(splitter.split(several, targets[several]))[1]]
    # In proportion, a class of few images may come away with none: it gives one more.
    shuffled = np.random.default_rng(seed).permutation(several)
    present, first = np.unique(targets[shuffled], return_index=True)
    return np.concatenate([held, shuffled[first[~np.isin(present, targets[held])]]])


def _several_each(targets: np.ndarray, seed: int) -> np.ndarray:
    """The indices of a slice in which each class has about its share. float32 (n, classes) -> int64 (m,)

    After the iterative stratification of Sechidis et al. (2011), for two subsets of which one is much smaller: a class
    after the other, from the rarest, takes what its share lacks from its images that no rarer class has decided on.
    """
    positive = targets == 1
    left = images_a_class(targets, targets.shape[1])  # in train, of each class
    total = size(len(targets), int(np.count_nonzero(left > 1)))
    share = np.maximum(np.round(left * total / max(len(targets), 1)), left > 1).astype(int)
    undecided, held = np.random.default_rng(seed).permutation(len(targets)), np.zeros(len(targets), dtype=bool)
    for one in np.argsort(left, kind="stable"):
        having = positive[undecided, one]
        for index in undecided[having]:
            if np.count_nonzero(positive[held, one]) >= share[one]:
                break
            if np.all(left[positive[index]] > 1):  # every class keeps an image to learn from
                held[index] = True
                left[positive[index]] -= 1
        undecided = undecided[~having]
    held[undecided[: max(total - np.count_nonzero(held), 0)]] = True  # of those that have no class at all
    return np.flatnonzero(held)
