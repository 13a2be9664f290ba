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

from vtzoo.evaluate.multi_label import mean_average_precision
from vtzoo.evaluate.single_label import top1

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


def accuracy(targets: np.ndarray, scores: np.ndarray) -> float:
    """Top-1 of targets and scores, both (images, classes)."""
    return top1(targets.argmax(1), scores)


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """A loss, and what counts as right."""

    metric: str  # what `score` is called in result.json
    loss: Callable[[Tensor, Tensor], Tensor]  # of logits and targets
    right: Callable[[Tensor, Tensor], Tensor]  # likewise, the number of images
    score: Callable[[np.ndarray, np.ndarray], float]  # of all images' targets and scores, 0..1


ONE = Criterion(metric="top1", loss=one_class, right=right_class, score=accuracy)
SEVERAL = Criterion(metric="map", loss=several_classes, right=right_classes, score=mean_average_precision)


def hot(targets: np.ndarray, classes: int) -> np.ndarray:
    """Targets as float32 (n, classes): those of one class an image, int64 (n,), become rows with a single 1."""
    return np.eye(classes, dtype=np.float32)[targets] if targets.ndim == 1 else targets
