"""The validation images that are drawn from the training images if none are given."""

import time

import numpy as np
import pytest
from sklearn.model_selection import StratifiedShuffleSplit

from vtzoo.data import split


def draw(targets: np.ndarray, seed: int = 0) -> np.ndarray:
    return split.draw_val(targets, np.ones(len(targets), dtype=bool), seed)


def test_a_fifth_of_each_class_is_drawn_as_scikit_learn_draws_it() -> None:
    targets = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [50, 100, 350]))
    splitter = StratifiedShuffleSplit(1, test_size=100, random_state=7)
    expected = next(splitter.split(targets, targets))[1]
    assert np.array_equal(np.flatnonzero(draw(targets, seed=7)), np.sort(expected))


@pytest.mark.parametrize("counts", [[2, 100], [2, 2, 2], [5, 5], [3, 1], [2] * 50 + [900], [1, 1, 2]])
def test_a_class_of_two_or_more_images_gives_and_keeps_at_least_one_and_a_single_image_stays(counts: list[int]) -> None:
    targets = np.repeat(np.arange(len(counts)), counts)
    for seed in range(5):
        held = np.bincount(targets[draw(targets, seed)], minlength=len(counts))
        several = np.array(counts) > 1
        assert np.all(held[several] >= 1)
        assert np.all(held < np.array(counts) + ~several)
        assert not held[~several].any()


def test_no_more_than_the_cap_is_drawn_from_many_images() -> None:
    assert np.count_nonzero(draw(np.arange(100_000) % 10)) == split.CAP


def test_only_free_images_are_drawn() -> None:
    targets = np.arange(100) % 2
    free = np.arange(100) < 20
    held = split.draw_val(targets, free, 0)
    assert np.count_nonzero(held) == 4
    assert not held[~free].any()


def test_nothing_is_drawn_if_no_class_has_two_images() -> None:
    assert not draw(np.arange(5)).any()


def test_equal_seeds_draw_the_same_images_and_other_seeds_draw_others() -> None:
    multi_label = np.random.default_rng(0).integers(0, 2, (200, 5)).astype(np.float32)
    for targets in (np.arange(200) % 5, multi_label):
        assert np.array_equal(draw(targets, 1), draw(targets, 1))
        assert not np.array_equal(draw(targets, 1), draw(targets, 2))


def test_multi_label_val_has_about_the_same_share_of_each_class() -> None:
    random = np.random.default_rng(0)
    rates = np.array([0.004, 0.02, 0.1, 0.5, 0.9])
    targets = (random.random((1_000, 5)) < rates).astype(np.float32)
    held = draw(targets)
    positives, held_positives = targets.sum(axis=0), targets[held].sum(axis=0)
    assert 180 <= held.sum() <= 230
    assert np.all(held_positives >= 1)
    assert np.all(np.abs(held_positives - 0.2 * positives) <= np.maximum(1, 0.03 * positives))


def test_multi_label_val_takes_no_class_s_last_training_image_and_ignores_unknown_labels() -> None:
    targets = np.array([[1, 1], [1, np.nan], [1, 0], [np.nan, np.nan], [0, 0]], dtype=np.float32)
    for seed in range(10):
        held = draw(targets, seed)
        assert held.any()
        assert not held[0]  # the only image of the second class
        assert (targets[~held, 0] == 1).any()


def test_drawing_from_100_000_classes_takes_less_than_a_minute() -> None:
    began = time.perf_counter()
    held = draw(np.arange(300_000) % 100_000)
    assert np.count_nonzero(held) == 100_000
    assert time.perf_counter() - began < 60
