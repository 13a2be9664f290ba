"""Single-label metrics, against scikit-learn and by hand."""

import numpy as np
import pytest
from sklearn import metrics

from vtzoo.evaluate import single_label
from vtzoo.evaluate.single_label import ClassScores, Confusion, score, top1, top5

NAMES = tuple(f"class {number}" for number in range(10))


@pytest.fixture(scope="module")
def answers() -> tuple[np.ndarray, np.ndarray]:
    """Labels of 500 images, and probabilities that are often right."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 10, 500)
    logits = random.normal(size=(500, 10)) + 2 * np.eye(10)[labels]
    return labels, (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32)


def test_every_score_is_scikit_learn_s(answers: tuple[np.ndarray, np.ndarray]) -> None:
    labels, probabilities = answers
    found, predicted, hot = score(labels, probabilities, NAMES), probabilities.argmax(1), np.eye(10)[labels]
    assert found.top1 == metrics.accuracy_score(labels, predicted)
    assert found.top5 == metrics.top_k_accuracy_score(labels, probabilities, k=5)
    assert found.macro_f1 == pytest.approx(metrics.f1_score(labels, predicted, average="macro"))
    normal = probabilities.astype(np.float64) / probabilities.sum(axis=1, keepdims=True, dtype=np.float64)
    assert found.negative_log_likelihood == pytest.approx(metrics.log_loss(labels, normal), rel=1e-5)
    assert found.brier_score == pytest.approx(10 * metrics.mean_squared_error(hot, probabilities), rel=1e-5)
    assert found.top1_interval[0] < found.top1 < found.top1_interval[1]


def test_a_class_of_which_nothing_is_right_costs_no_infinite_likelihood() -> None:
    assert single_label.negative_log_likelihood(np.array([0]), np.array([[0, 1]], np.float32)) == pytest.approx(
        15.94, 1e-3
    )


def test_ranking_some_images_at_a_time_changes_no_accuracy(
    answers: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = top5(*answers)
    monkeypatch.setattr(single_label, "TOGETHER", 7)
    assert top5(*answers) == whole


def test_classes_that_are_never_shown_are_counted_in_the_top_five_all_the_same() -> None:
    falling = np.linspace(1, 0, 10)
    first_and_fifth = np.stack([falling, np.roll(falling, -4)])  # the rank of class 0
    labels = np.array([0, 0])
    assert (top1(labels, first_and_fifth), top5(labels, first_and_fifth)) == (0.5, 1.0)


def test_classes_without_images_have_no_row_and_take_no_part_in_the_mean() -> None:
    # Of three images of class 1, one is taken for class 3, which has no images; class 2 is always right.
    labels, predicted = np.array([1, 1, 1, 2]), np.array([1, 1, 3, 2])
    rows = single_label.each_class(labels, predicted, NAMES)
    assert rows == (
        ClassScores(label="class 1", precision=1.0, recall=pytest.approx(2 / 3), f1=pytest.approx(0.8), support=3),
        ClassScores(label="class 2", precision=1.0, recall=1.0, f1=1.0, support=1),
    )
    assert score(labels, np.eye(10, dtype=np.float32)[predicted], NAMES).macro_f1 == pytest.approx(0.9)


def test_the_pairs_that_are_confused_most_come_first_and_each_way_counts_by_itself() -> None:
    labels, predicted = np.array([0, 0, 1, 2, 2, 2, 3]), np.array([1, 1, 0, 0, 1, 1, 3])
    assert single_label.most_confused(labels, predicted, NAMES) == (
        Confusion(label="class 0", predicted="class 1", images=2),
        Confusion(label="class 2", predicted="class 1", images=2),
        Confusion(label="class 1", predicted="class 0", images=1),
        Confusion(label="class 2", predicted="class 0", images=1),
    )
    assert single_label.most_confused(labels, labels, NAMES) == ()
