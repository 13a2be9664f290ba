"""The metrics of a multi-label classifier, over the known labels alone."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from vtzoo.errors import VtzooError
from vtzoo.evaluate import calibration

THRESHOLD = 0.5  # a class is predicted from this probability on


@dataclass(frozen=True, kw_only=True)
class ClassScores:
    """The metrics of one class, over the images with a known label."""

    label: str
    average_precision: float | None  # None, like f1, without both a positive and a negative image
    f1: float | None  # at THRESHOLD
    positives: int  # images known to have the class
    negatives: int  # images known not to have the class


@dataclass(frozen=True, kw_only=True)
class Scores:
    """All metrics; means are over the classes with both a positive and a negative image."""

    map: float  # mean average precision, a fraction
    macro_f1: float  # at THRESHOLD
    expected_calibration_error: float  # over all known labels, in 15 bins
    known: float  # fraction of known labels
    per_class: tuple[ClassScores, ...]  # of the classes with a known label, in the model's order


def score(targets: np.ndarray, probabilities: np.ndarray, names: tuple[str, ...]) -> Scores:
    """All metrics of targets (n, classes), 1, 0 or NaN if unknown, and probabilities of that shape."""
    known = ~np.isnan(targets)
    per_class = tuple(
        one_class(targets[known[:, number], number] > 0, probabilities[known[:, number], number], names[number])
        for number in np.flatnonzero(known.any(axis=0))
    )
    if all(scores.f1 is None for scores in per_class):
        hint = "there is nothing to measure: label a class with both 1 and 0"
        raise VtzooError("no class has both an image known to have it and an image known not to have it", hint)
    return Scores(
        map=_mean(scores.average_precision for scores in per_class), macro_f1=_mean(scores.f1 for scores in per_class),
        expected_calibration_error=calibration.reliability(probabilities[known], targets[known] > 0).error,
        known=float(known.mean()), per_class=per_class,
    )  # fmt: skip


def mean_average_precision(targets: np.ndarray, scores: np.ndarray) -> float:
    """The mean of the average precisions of the classes with both a positive and a negative image; 0 without any.

    targets (n, classes), 1, 0 or NaN if unknown; scores of that shape. Unknown labels are left out.
    """
    columns = zip(targets.T, scores.T, ~np.isnan(targets).T, strict=True)
    return _mean(average_precision(truth[known] > 0, score[known]) for truth, score, known in columns)


def _mean(values: Iterable[float | None]) -> float:
    """The mean of the defined values; 0 without any."""
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else 0.0


def average_precision(truth: np.ndarray, scores: np.ndarray) -> float | None:
    """The average precision, by scikit-learn, of truth bool (n,) and scores (n,); None unless both values occur."""
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(truth, scores)) if truth.any() and not truth.all() else None


def one_class(truth: np.ndarray, probabilities: np.ndarray, name: str) -> ClassScores:
    """The metrics of a class, from its targets, bool (n,), and its probabilities, (n,)."""
    from sklearn.metrics import f1_score

    precision = average_precision(truth, probabilities)
    return ClassScores(
        label=name, average_precision=precision, positives=int(truth.sum()), negatives=int((~truth).sum()),
        f1=None if precision is None else float(f1_score(truth, probabilities >= THRESHOLD)),
    )  # fmt: skip
