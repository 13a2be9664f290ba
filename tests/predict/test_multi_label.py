"""Multi-label models: an image may have several classes."""

import numpy as np
import pytest
from scipy.special import expit

from vtzoo.data.transform import Preprocess
from vtzoo.predict.bulk import predict
from vtzoo.predict.classifier import Classifier, sigmoid
from vtzoo.predict.sources import Source


class Fixed(Classifier):
    """A classifier with the same logits for every image."""

    def __init__(self, *logits: float, multi_label: bool) -> None:
        self.labels, self.preprocess = ("cat", "dog", "hat"), Preprocess(size=4, interpolation="bicubic", crop=1.0)
        self.logits, self.multi_label = np.array([logits], np.float32), multi_label

    def run(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.logits.repeat(len(pixels), axis=0), np.zeros((len(pixels), 2), np.float32)


def said(classifier: Fixed, top_k: int = 5) -> list[str]:
    image = Source(name="a", content=np.zeros((4, 4, 3), np.uint8))
    (batch,) = predict(classifier, [image], top_k)
    return [one.label for one in batch.images[0].predictions]


def test_a_sigmoid_is_scipys_without_overflow() -> None:
    logits = np.array([[-1e4, -88, -3, 0, 0.5, 88, 1e4]], np.float32)
    assert np.allclose(sigmoid(logits), expit(logits), atol=1e-6)
    assert sigmoid(logits).dtype == np.float32


def test_each_class_has_a_probability_of_its_own() -> None:
    pixels = np.zeros((2, 3, 4, 4), np.uint8)
    assert np.allclose(Fixed(2, -2, 0, multi_label=True)(pixels), [expit([2, -2, 0])] * 2)
    assert np.allclose(Fixed(2, -2, 0, multi_label=False)(pixels).sum(axis=1), 1)


@pytest.mark.parametrize(
    ("logits", "top_k", "labels"),
    [
        ((2, -2, 1), 5, ["cat", "hat"]),
        ((2, -2, 1), 1, ["cat"]),
        ((-3, -2, -4), 5, ["dog"]),  # no class is probable, so the most probable one is shown
        ((0, -1, -2), 5, ["cat"]),
    ],
)
def test_an_image_is_said_to_have_the_classes_that_are_likelier_than_not(
    logits: tuple[float, ...], top_k: int, labels: list[str]
) -> None:
    assert said(Fixed(*logits, multi_label=True), top_k) == labels


def test_of_one_class_an_image_the_best_five_are_said_however_unlikely() -> None:
    assert said(Fixed(9, 0, 0, multi_label=False)) == ["cat", "dog", "hat"]
