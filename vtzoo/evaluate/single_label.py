"""The metrics of a single-label classifier."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from vtzoo.evaluate import calibration

TOGETHER = 8192  # images ranked at once: scikit-learn sorts all their classes, at 8 bytes each
PAIRS = 20  # of confused classes


@dataclass(frozen=True, kw_only=True)
class ClassScores:
    """The metrics of one class."""

    label: str
    precision: float  # fraction; 0 if the class is never predicted
    recall: float  # fraction
    f1: float
    support: int  # images of the class


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """The number of images of a class that the model takes for another."""

    label: str
    predicted: str
    images: int


@dataclass(frozen=True, kw_only=True)
class Scores:
    """All metrics. Accuracies are fractions; means over classes leave out classes without images."""

    top1: float
    top5: float  # 1.0 with five classes or fewer
    top1_interval: tuple[float, float]  # bootstrap, 95%
    macro_f1: float  # the mean over classes
    expected_calibration_error: float  # of the first class's probability, in 15 bins
    negative_log_likelihood: float  # natural logarithm, the mean over images
    brier_score: float  # 0 to 2: squared errors summed over classes, the mean over images
    per_class: tuple[ClassScores, ...]  # of the classes with images, in the model's order
    confused: tuple[Confusion, ...]  # the PAIRS most frequent, the most frequent first


def score(labels: np.ndarray, probabilities: np.ndarray, names: tuple[str, ...]) -> Scores:
    """All metrics of labels int64 (n,) and probabilities float32 (n, classes)."""
    predicted = probabilities.argmax(axis=1)
    right = predicted == labels
    per_class = each_class(labels, predicted, names)
    return Scores(
        top1=top1(labels, probabilities), top5=top5(labels, probabilities),
        top1_interval=calibration.interval(int(right.sum()), len(right)),
        macro_f1=float(np.mean([scores.f1 for scores in per_class])),
        expected_calibration_error=calibration.reliability(probabilities.max(axis=1), right).error,
        negative_log_likelihood=negative_log_likelihood(labels, probabilities),
        brier_score=brier_score(labels, probabilities),
        per_class=per_class, confused=most_confused(labels, predicted, names),
    )  # fmt: skip


def top1(labels: np.ndarray, scores: np.ndarray) -> float:
    """The fraction of images whose highest score is their label's: labels (n,), scores (n, classes)."""
    from sklearn.metrics import accuracy_score  # slow to import

    return float(accuracy_score(labels, scores.argmax(axis=1)))


def top5(labels: np.ndarray, scores: np.ndarray) -> float:
    """The fraction of images whose label is among the five highest scores, with ties broken as scikit-learn does.

    With five classes or fewer, where scikit-learn's metric is undefined, it is 1.
    """
    from sklearn.metrics import top_k_accuracy_score

    classes, hits = scores.shape[1], 0.0
    if classes <= 5:
        return 1.0
    for first in range(0, len(labels), TOGETHER):
        some = slice(first, first + TOGETHER)
        hits += top_k_accuracy_score(labels[some], scores[some], k=5, labels=np.arange(classes), normalize=False)
    return float(hits / len(labels))


def each_class(labels: np.ndarray, predicted: np.ndarray, names: tuple[str, ...]) -> tuple[ClassScores, ...]:
    """The scores of the classes with images, in the model's order."""
    from sklearn.metrics import precision_recall_fscore_support

    present = np.unique(labels)
    never: Any = 0.0  # the precision of a class that is never predicted; Any, because the stub takes only text
    columns = precision_recall_fscore_support(labels, predicted, labels=present, average=None, zero_division=never)
    return tuple(
        ClassScores(label=names[number], precision=float(precision), recall=float(recall), f1=float(f1), support=int(n))
        for number, precision, recall, f1, n in zip(present, *columns, strict=True)  # pyright: ignore[reportArgumentType]
    )


def negative_log_likelihood(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The mean of -log of the true class's probability, which is at least 1.2e-7, as in scikit-learn.

    scikit-learn's log_loss and brier_score_loss would need another array of that shape, in float64.
    """
    own = np.take_along_axis(probabilities, labels[:, None], axis=1)[:, 0]
    return float(-np.log(np.maximum(own, np.finfo(np.float32).eps).astype(np.float64)).mean())


def brier_score(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The mean over images of sum over classes (probability - truth)^2: 0 at best, 2 if always wrong with certainty.

    This is Brier's definition (1950) for any number of classes; scikit-learn's value for two classes is half of it.
    """
    own = np.take_along_axis(probabilities, labels[:, None], axis=1)[:, 0]
    squares = np.einsum("nk,nk->n", probabilities, probabilities)
    return float(np.mean(squares - 2.0 * own + 1.0, dtype=np.float64))


def most_confused(labels: np.ndarray, predicted: np.ndarray, names: tuple[str, ...]) -> tuple[Confusion, ...]:
    """The pairs of a class and the class that its images are taken for, the most frequent first; at most PAIRS."""
    wrong = labels != predicted
    pairs, counts = np.unique(np.stack([labels[wrong], predicted[wrong]], axis=1), axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:PAIRS]
    return tuple(Confusion(label=names[label], predicted=names[taken], images=int(count))
                 for (label, taken), count in zip(pairs[order], counts[order], strict=True))  # fmt: skip
