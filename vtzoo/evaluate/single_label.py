"""How right a classifier is where every image has one class."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from vtzoo.errors import VtzooError
from vtzoo.evaluate import calibration

TOGETHER = 8192  # images that are ranked at once: scikit-learn sorts all their classes, at 8 bytes each
PAIRS = 20  # of classes that are taken for one another


@dataclass(frozen=True, kw_only=True)
class ClassScores:
    """How right it is on one class."""

    label: str
    precision: float  # fraction; 0 where it is never predicted
    recall: float  # fraction
    f1: float
    support: int  # images of it


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """Images of a class that are taken for another."""

    label: str
    predicted: str
    images: int


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Accuracies are fractions; what is a mean over classes is one over those that have images."""

    top1: float
    top5: float  # 1.0 with five classes or fewer
    top1_interval: tuple[float, float]  # the bootstrap's, at 95%
    macro_f1: float  # the mean over classes
    expected_calibration_error: float  # of the first class's probability, in 15 bins
    negative_log_likelihood: float  # natural logarithm, the mean over images
    brier_score: float  # 0 to 2: squared errors summed over classes, the mean over images
    per_class: tuple[ClassScores, ...]  # those that have images, in the model's order
    confused: tuple[Confusion, ...]  # the PAIRS most frequent, the most frequent first


def score(labels: np.ndarray, probabilities: np.ndarray, names: tuple[str, ...]) -> Scores:
    """All scores, of labels int64 (n,) and probabilities float32 (n, classes)."""
    top1, top5 = accuracies(labels, probabilities)
    predicted = probabilities.argmax(axis=1)
    right = predicted == labels
    per_class = each_class(labels, predicted, names)
    return Scores(
        top1=top1,
        top5=top5,
        top1_interval=calibration.interval(int(right.sum()), len(right)),
        macro_f1=float(np.mean([one.f1 for one in per_class])),
        expected_calibration_error=calibration.reliability(probabilities.max(axis=1), right).error,
        negative_log_likelihood=negative_log_likelihood(labels, probabilities),
        brier_score=brier_score(labels, probabilities),
        per_class=per_class,
        confused=most_confused(labels, predicted, names),
    )


def accuracies(labels: np.ndarray, probabilities: np.ndarray) -> tuple[float, float]:
    """Top-1 and top-5 as fractions, from labels (n,) and probabilities (n, classes)."""
    from sklearn.metrics import accuracy_score, top_k_accuracy_score  # heavy: only an evaluation pays for it

    top1 = accuracy_score(labels, probabilities.argmax(axis=1))
    classes = probabilities.shape[1]
    if classes <= 5:  # scikit-learn calls this undefined
        return float(top1), 1.0
    hits = 0.0
    for first in range(0, len(labels), TOGETHER):
        some = slice(first, first + TOGETHER)
        hits += top_k_accuracy_score(labels[some], probabilities[some], k=5, labels=np.arange(classes), normalize=False)
    return float(top1), float(hits / len(labels))


def require_finite(probabilities: np.ndarray) -> None:
    """Raise where an answer is not a number."""
    finite = np.isfinite(probabilities).all(axis=1)
    if not finite.all():
        row = int(np.flatnonzero(~finite)[0])
        raise VtzooError(f"the model answers image {row} with values that are not finite", "its weights may be damaged")


def each_class(labels: np.ndarray, predicted: np.ndarray, names: tuple[str, ...]) -> tuple[ClassScores, ...]:
    """The scores of the classes that have images, in the model's order."""
    from sklearn.metrics import precision_recall_fscore_support

    present = np.unique(labels)
    never: Any = 0.0  # the precision of what is never predicted; its stub knows no numbers
    columns = precision_recall_fscore_support(labels, predicted, labels=present, average=None, zero_division=never)
    return tuple(
        ClassScores(label=names[number], precision=float(precision), recall=float(recall), f1=float(f1), support=int(n))
        for number, precision, recall, f1, n in zip(present, *columns, strict=True)  # pyright: ignore[reportArgumentType]
    )


def negative_log_likelihood(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The mean of -log of the true class's probability, which counts as 1.2e-7 where it is less, as in scikit-learn.

    Its own log_loss would hold another array of that size, in 8 bytes, as would its brier_score_loss.
    """
    own = np.take_along_axis(probabilities, labels[:, None], axis=1)[:, 0]
    return float(-np.log(np.maximum(own, np.finfo(np.float32).eps).astype(np.float64)).mean())


def brier_score(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The mean over images of sum over classes (probability - truth)^2: 0 at best, 2 where all is surely wrong.

    It is Brier's own definition (1950), for any number of classes, of which scikit-learn halves that for two.
    """
    own = np.take_along_axis(probabilities, labels[:, None], axis=1)[:, 0]
    squares = np.einsum("nk,nk->n", probabilities, probabilities)
    return float(np.mean(squares - 2.0 * own + 1.0, dtype=np.float64))


def most_confused(labels: np.ndarray, predicted: np.ndarray, names: tuple[str, ...]) -> tuple[Confusion, ...]:
    """The pairs of a class and another that its images are taken for, the most frequent first; PAIRS at most."""
    wrong = labels != predicted
    pairs, counts = np.unique(np.stack([labels[wrong], predicted[wrong]], axis=1), axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:PAIRS]
    return tuple(
        Confusion(label=names[label], predicted=names[taken], images=int(count))
        for (label, taken), count in zip(pairs[order], counts[order], strict=True)
    )
