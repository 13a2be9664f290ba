"""What a classifier is taught and measured by: one class an image, or several of which some may be unknown.

Targets are (images, classes). Of one class an image they are shares that sum to 1, as mixing and smoothing leave them;
of several each is 1, 0 or, where nobody knows, NaN.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

Matrix = Float[Tensor, "b k"]
Number = Float[Tensor, ""]


def one_class(logits: Matrix, targets: Matrix) -> Number:
    """The cross-entropy of a softmax, a mean over images."""
    return functional.cross_entropy(logits, targets)


def several_classes(logits: Matrix, targets: Matrix) -> Number:
    """The binary cross-entropy of sigmoids, sum(known * loss) / sum(known); 0 where nothing is known."""
    known = ~targets.isnan()
    losses = functional.binary_cross_entropy_with_logits(logits, targets.nan_to_num(), reduction="none")
    return (known * losses).sum() / known.sum().clamp(min=1)


def right_class(logits: Matrix, targets: Matrix) -> Number:
    """The number of images whose first class is right."""
    return (logits.argmax(1) == targets.argmax(1)).sum()


def right_classes(logits: Matrix, targets: Matrix) -> Number:
    """The sum over images of the fraction of known classes that fall on the right side of a half."""
    known = ~targets.isnan()
    agree = known & ((logits > 0) == (targets > 0.5))
    return (agree.sum(1) / known.sum(1).clamp(min=1)).sum()


def accuracy(scores: np.ndarray, targets: np.ndarray) -> float:
    """The fraction of images whose first class is right; both arrays are (images, classes)."""
    return float((scores.argmax(1) == targets.argmax(1)).mean())


def mean_average_precision(scores: np.ndarray, targets: np.ndarray) -> float:
    """The mean over classes of scikit-learn's average precision, each over the images of which it is known.

    A class counts that one of them is known to have, and another not to have; without any it is 0.
    """
    from sklearn.metrics import average_precision_score

    known = ~np.isnan(targets)
    found = [
        average_precision_score(truth[there], score[there])
        for score, truth, there in zip(scores.T, targets.T, known.T, strict=True)
        if len(np.unique(truth[there])) == 2
    ]
    return float(np.mean(found)) if found else 0.0


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """A loss, and what counts as right."""

    metric: str  # what `score` is called in result.json
    loss: Callable[[Tensor, Tensor], Tensor]  # of logits and targets
    right: Callable[[Tensor, Tensor], Tensor]  # likewise, the number of images
    score: Callable[[np.ndarray, np.ndarray], float]  # of all images' scores and targets, 0..1


ONE = Criterion(metric="top1", loss=one_class, right=right_class, score=accuracy)
SEVERAL = Criterion(metric="map", loss=several_classes, right=right_classes, score=mean_average_precision)


def hot(targets: np.ndarray, classes: int) -> np.ndarray:
    """Targets as float32 (n, classes): those of one class an image, int64 (n,), become rows with a single 1."""
    return np.eye(classes, dtype=np.float32)[targets] if targets.ndim == 1 else targets
