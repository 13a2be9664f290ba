"""The calibration error of probabilities, and the confidence interval of an accuracy."""

from dataclasses import dataclass

import numpy as np

BINS = 15  # of equal width
RESAMPLES = 10_000
LEVEL = 0.95  # of confidence


@dataclass(frozen=True, kw_only=True, eq=False)
class Reliability:
    """Predictions in bins of equal width by their probability; each array has one entry per bin."""

    counts: np.ndarray  # int64, of predictions
    probability: np.ndarray  # float64, the mean; 0 in an empty bin
    frequency: np.ndarray  # float64, the fraction of correct predictions; 0 in an empty bin

    @property
    def error(self) -> float:
        """The expected calibration error: sum over bins of count / n * |frequency - mean probability|.

        With 15 bins, ((b - 1) / 15, b / 15], as in Guo et al., On Calibration of Modern Neural Networks (ICML 2017).
        """
        return float(np.sum(self.counts * np.abs(self.frequency - self.probability)) / max(self.counts.sum(), 1))


def reliability(probabilities: np.ndarray, true: np.ndarray) -> Reliability:
    """The reliability of probabilities (n,), 0 to 1, in BINS bins; `true` marks the correct predictions, bool (n,)."""
    bins = np.clip(np.ceil(probabilities.astype(np.float64) * BINS).astype(np.int64) - 1, 0, BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    sums = (np.bincount(bins, weights=values, minlength=BINS) for values in (probabilities, true))
    probability, frequency = (total / np.maximum(counts, 1) for total in sums)
    return Reliability(counts=counts, probability=probability, frequency=frequency)


def interval(right: int, images: int, seed: int = 0) -> tuple[float, float]:
    """The bootstrap percentile interval of an accuracy, as fractions: LEVEL of the resamples lie within.

    A resample draws as many images as the data set has, with replacement. Its number of correct images is binomial, so
    the numbers of all RESAMPLES are drawn at once, without any resample in memory. If all images are correct, or none,
    all resamples agree and the interval is a point: for few images it is too narrow.
    """
    accuracies = np.random.default_rng(seed).binomial(images, right / images, RESAMPLES) / images
    low, high = np.quantile(accuracies, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
