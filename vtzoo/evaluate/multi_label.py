"""The metrics of a multi-label classifier, over known labels only."""

from dataclasses import dataclass

import numpy as np

from vtzoo.errors import VtzooError
from vtzoo.evaluate import calibration

THRESHOLD = 0.5  # the least probability of a predicted class


@dataclass(frozen=True, kw_only=True)
class ClassScores:
    """The metrics of one class, over the images whose label is known."""

    label: str
    average_precision: float | None  # None, like f1, without a positive or without a negative image
    f1: float | None  # at THRESHOLD
    positives: int  # images that have the class
    negatives: int  # images known to lack the class


@dataclass(frozen=True, kw_only=True)
class Scores:
    """All metrics; means are over the classes with a positive and a negative image."""

    map: float  # mean average precision, a fraction
    macro_f1: float  # at THRESHOLD
    expected_calibration_error: float  # of every known class of every image, in 15 bins
    known: float  # fraction of the classes of all images
    per_class: tuple[ClassScores, ...]  # classes with any known label, in the model's order


def score(targets: np.ndarray, probabilities: np.ndarray, names: tuple[str, ...]) -> Scores:
    """All metrics of targets (n, classes), 1, 0 or NaN if unknown, and probabilities of that shape."""
    known = ~np.isnan(targets)
    per_class = tuple(
        one_class(targets[known[:, number], number] > 0, probabilities[known[:, number], number], names[number])
        for number in np.flatnonzero(known.any(axis=0))
    )
    if all(one.average_precision is None for one in per_class):
        raise VtzooError(
            "of no class is one image known to have it, and another not to have it",
            "there is nothing to measure: say both of a class at least",
        )
    return Scores(
        map=mean_average_precision(targets, probabilities),
        macro_f1=float(np.mean([one.f1 for one in per_class if one.f1 is not None])),
        expected_calibration_error=calibration.reliability(probabilities[known], targets[known] > 0).error,
        known=float(known.mean()),
        per_class=per_class,
    )


def mean_average_precision(targets: np.ndarray, scores: np.ndarray) -> float:
    """The mean over classes of the average precision, each over the images whose label is known; 0 without any.

    targets (n, classes), 1, 0 or NaN if unknown; scores of that shape. Only classes with a positive and a negative
    image count.
    """
    known = ~np.isnan(targets)
    columns = zip(targets.T, scores.T, known.T, strict=True)
    each = [average_precision(truth[there] > 0, score[there]) for truth, score, there in columns]
    defined = [precision for precision in each if precision is not None]
    return float(np.mean(defined)) if defined else 0.0


def average_precision(truth: np.ndarray, scores: np.ndarray) -> float | None:
    """scikit-learn's average precision of truth bool (n,) and scores (n,); None unless both values occur."""
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(truth, scores)) if truth.any() and not truth.all() else None


def one_class(truth: np.ndarray, probabilities: np.ndarray, name: str) -> ClassScores:
    """The metrics of a class, from its targets, bool (n,), and its probabilities, (n,)."""
    from sklearn.metrics import f1_score

    precision = average_precision(truth, probabilities)
    return ClassScores(
        label=name,
        average_precision=precision,
        f1=None if precision is None else float(f1_score(truth, probabilities >= THRESHOLD)),
        positives=int(truth.sum()),
        negatives=int((~truth).sum()),
    )
