"""Multi-label metrics with unknown labels, against scikit-learn on the known labels and by hand."""

import numpy as np
import pytest
from sklearn import metrics

from vtzoo.errors import VtzooError
from vtzoo.evaluate.multi_label import ClassScores, score

NAN = np.nan
NAMES = ("wet", "cold", "red", "new")


def test_metrics_use_known_labels_alone() -> None:
    random = np.random.default_rng(0)
    targets = (random.random((300, 4)) < 0.3).astype(np.float32)
    probabilities = np.clip(0.5 * targets + random.random((300, 4)) * 0.6, 0, 1).astype(np.float32)
    targets[random.random((300, 4)) < 0.4] = NAN
    # Predictions of unknown labels do not count.
    garbage = np.where(np.isnan(targets), 1 - probabilities, probabilities).astype(np.float32)
    found = score(targets, probabilities, NAMES)
    assert score(targets, garbage, NAMES) == found
    columns = [(targets[there, k], probabilities[there, k]) for k, there in enumerate(~np.isnan(targets).T)]
    assert found.map == pytest.approx(np.mean([metrics.average_precision_score(*column) for column in columns]))
    assert found.macro_f1 == pytest.approx(np.mean([metrics.f1_score(t, p >= 0.5) for t, p in columns]))
    assert 0.5 < found.known < 0.7


def test_a_class_that_every_image_has_or_lacks_takes_no_part_in_the_means() -> None:
    targets = np.array([[1, 1, 0, NAN], [0, 1, 0, NAN], [1, NAN, 0, NAN]], np.float32)
    probabilities = np.array([[0.9, 0.1, 0.9, 0.5], [0.8, 0.1, 0.9, 0.5], [0.7, 0.1, 0.9, 0.5]], np.float32)
    found = score(targets, probabilities, NAMES)
    # Ranked 1, 0, 1: precision 1 at the first, 2/3 at the third. At 0.5 all three are predicted: 2 * 2 / (2 * 2 + 1).
    assert found.map == pytest.approx((1 + 2 / 3) / 2)
    assert found.macro_f1 == pytest.approx(0.8)
    assert found.per_class[1:] == (
        ClassScores(label="cold", average_precision=None, f1=None, positives=2, negatives=0),
        ClassScores(label="red", average_precision=None, f1=None, positives=0, negatives=3),
    )


def test_the_calibration_error_is_over_all_that_is_known() -> None:
    targets = np.array([[1, NAN], [0, 1], [1, 0]], np.float32)
    probabilities = np.array([[0.9, 0.2], [0.3, 0.9], [0.9, 0.3]], np.float32)
    # Three say 0.9 and are right, two say 0.3 and are wrong.
    found = score(targets, probabilities, NAMES[:2])
    assert found.expected_calibration_error == pytest.approx((3 * 0.1 + 2 * 0.3) / 5)


def test_where_no_class_has_a_yes_and_a_no_there_is_nothing_to_measure() -> None:
    with pytest.raises(
        VtzooError, match="no class has both an image known to have it and an image known not to have it"
    ):
        score(np.array([[1, 0], [1, NAN]], np.float32), np.full((2, 2), 0.5, np.float32), NAMES[:2])
