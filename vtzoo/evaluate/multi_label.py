"""How right a classifier is where an image may have several classes, over what is known alone."""

from dataclasses import dataclass

import numpy as np

from vtzoo.errors import VtzooError
from vtzoo.evaluate import calibration

THRESHOLD = 0.5  # from which probability on a class is predicted


@dataclass(frozen=True, kw_only=True)
class ClassScores:
    """How right it is on one class, over the images of which it is known."""

    label: str
    average_precision: float | None  # None, as is f1, unless it is known to be in one image and not in another
    f1: float | None  # at THRESHOLD
    positives: int  # images that are known to have it
    negatives: int  # images that are known not to


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Means over the classes that are known to be in one image, and not in another."""

    map: float  # mean average precision, a fraction
    macro_f1: float  # at THRESHOLD
    expected_calibration_error: float  # of every known class of every image, in 15 bins
    known: float  # fraction of the classes of all images
    per_class: tuple[ClassScores, ...]  # those of which anything is known, in the model's order


def score(targets: np.ndarray, probabilities: np.ndarray, names: tuple[str, ...]) -> Scores:
    """All scores, of targets (n, classes), 1, 0 or NaN where it is not known, and probabilities of that shape."""
    known = ~np.isnan(targets)
    per_class = tuple(
        one_class(targets[known[:, number], number] > 0, probabilities[known[:, number], number], names[number])
        for number in np.flatnonzero(known.any(axis=0))
    )
    precisions = [one.average_precision for one in per_class if one.average_precision is not None]
    if not precisions:
        raise VtzooError(
            "of no class is one image known to have it, and another not to have it",
            "there is nothing to measure: say both of a class at least",
        )
    return Scores(
        map=float(np.mean(precisions)),
        macro_f1=float(np.mean([one.f1 for one in per_class if one.f1 is not None])),
        expected_calibration_error=calibration.reliability(probabilities[known], targets[known] > 0).error,
        known=float(known.mean()),
        per_class=per_class,
    )


def one_class(truth: np.ndarray, probabilities: np.ndarray, name: str) -> ClassScores:
    """The scores of a class, from whether each image has it, bool (n,), and the probabilities that it has, (n,)."""
    from sklearn.metrics import average_precision_score, f1_score

    positives, negatives = int(truth.sum()), int((~truth).sum())
    defined = positives > 0 and negatives > 0
    return ClassScores(
        label=name,
        average_precision=float(average_precision_score(truth, probabilities)) if defined else None,
        f1=float(f1_score(truth, probabilities >= THRESHOLD)) if defined else None,
        positives=positives,
        negatives=negatives,
    )
