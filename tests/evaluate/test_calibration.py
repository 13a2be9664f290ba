"""The calibration error against sums by hand and another form; the interval against two published formulas."""

from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from vtzoo.evaluate.calibration import BINS, RESAMPLES, interval, reliability


def test_two_bins_by_hand() -> None:
    # 0.9 and 0.92 are in the bin (13/15, 14/15]: one of two right, mean 0.91. 0.5 is in (7/15, 8/15]: right.
    found = reliability(np.array([0.9, 0.92, 0.5]), np.array([True, False, True]))
    assert found.error == pytest.approx(2 / 3 * abs(0.5 - 0.91) + 1 / 3 * abs(1 - 0.5))
    assert found.counts.tolist() == [0] * 7 + [1] + [0] * 5 + [2, 0]


def test_the_error_is_that_of_a_loop_over_the_bins_edges() -> None:
    random = np.random.default_rng(0)
    probabilities = random.beta(3, 1, 5000)
    right = random.random(5000) < probabilities**2
    expected, edges = 0.0, [number / BINS for number in range(BINS + 1)]
    for low, high in pairwise(edges):
        inside = [(p, r) for p, r in zip(probabilities, right, strict=True) if low < p <= high]
        if inside:
            expected += abs(sum(r for _, r in inside) - sum(p for p, _ in inside)) / 5000
    assert reliability(probabilities, right).error == pytest.approx(expected)
    assert expected > 0.05


def test_probabilities_of_zero_and_one_are_in_the_first_bin_and_in_the_last() -> None:
    found = reliability(np.array([0.0, 1.0], np.float32), np.array([False, True]))
    assert (found.counts[0], found.counts[-1], found.error) == (1, 1, 0.0)


def test_float32_sums_lose_nothing_over_a_million_predictions() -> None:
    probabilities = np.full(1_000_000, 0.7, np.float32)
    assert reliability(probabilities, np.ones(1_000_000, bool)).error == pytest.approx(0.3, abs=1e-6)


@pytest.mark.parametrize(("right", "images"), [(5777, 10_000), (700, 1000), (60, 100)])
def test_the_interval_is_near_the_normal_approximation_and_wilson_s(right: int, images: int) -> None:
    found, accuracy = interval(right, images), right / images
    half = 1.959964 * np.sqrt(accuracy * (1 - accuracy) / images)
    wilson = stats.binomtest(right, images).proportion_ci(0.95, "wilson")
    step = 1 / images  # the resamples' accuracies are multiples of it
    assert np.allclose(found, [accuracy - half, accuracy + half], atol=0.05 * half + step)
    assert np.allclose(found, [wilson.low, wilson.high], atol=0.1 * half + step)


def test_the_interval_is_that_of_resamples_that_are_drawn_image_by_image() -> None:
    answers = np.arange(200) < 150
    drawn = np.random.default_rng(1).integers(0, 200, (RESAMPLES, 200))
    expected = np.quantile(answers[drawn].mean(axis=1), [0.025, 0.975])
    assert np.allclose(interval(150, 200), expected, atol=0.006)


def test_the_interval_is_the_same_each_time_and_a_point_where_all_are_right() -> None:
    assert interval(7, 20) == interval(7, 20)
    assert interval(20, 20) == (1.0, 1.0)
