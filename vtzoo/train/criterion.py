"""The loss and the metrics of a classifier: single-label, or multi-label with unknown labels.

Targets are (images, classes). Single-label targets sum to 1 over the classes, mixed and smoothed ones too. Multi-label
targets are 1, 0 or, where the label is unknown, NaN.
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


def single_label_loss(logits: Matrix, targets: Matrix) -> Number:
    """The softmax cross-entropy, a mean over images."""
    return functional.cross_entropy(logits, targets)


def multi_label_loss(logits: Matrix, targets: Matrix) -> Number:
    """The binary cross-entropy of sigmoids, sum(known * loss) / sum(known); 0 if no label is known."""
    known = ~targets.isnan()
    losses = functional.binary_cross_entropy_with_logits(logits, targets.nan_to_num(), reduction="none")
    return (known * losses).sum() / known.sum().clamp(min=1)


def single_label_right(logits: Matrix, targets: Matrix) -> Number:
    """The number of images whose first class is right."""
    return (logits.argmax(1) == targets.argmax(1)).sum()


def multi_label_right(logits: Matrix, targets: Matrix) -> Number:
    """The sum over images of the fraction of known labels that a threshold of 0.5 predicts right."""
    known = ~targets.isnan()
    agree = known & ((logits > 0) == (targets > 0.5))
    return (agree.sum(1) / known.sum(1).clamp(min=1)).sum()


def accuracy(targets: np.ndarray, scores: np.ndarray) -> float:
    """The fraction of images whose first class is right; both arrays are (images, classes)."""
    return top1(targets.argmax(1), scores)


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """A loss and its metrics."""

    metric: str  # the key of `score` in result.json
    loss: Callable[[Tensor, Tensor], Tensor]  # of logits and targets
    right: Callable[[Tensor, Tensor], Tensor]  # of logits and targets: the number of images, or a sum of fractions
    score: Callable[[np.ndarray, np.ndarray], float]  # of all images' targets and scores, 0..1


SINGLE_LABEL = Criterion(metric="top1", loss=single_label_loss, right=single_label_right, score=accuracy)
MULTI_LABEL = Criterion(metric="map", loss=multi_label_loss, right=multi_label_right, score=mean_average_precision)


def one_hot(targets: np.ndarray, classes: int) -> np.ndarray:
    """Float32 targets (n, classes): class indices (n,) as one-hot rows, multi-label targets as they are."""
    return np.eye(classes, dtype=np.float32)[targets] if targets.ndim == 1 else targets
