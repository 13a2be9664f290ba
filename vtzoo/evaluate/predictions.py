"""A classifier's predictions on labelled images."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from vtzoo.data.labelled_images import DecodingPass, LabelledImages
from vtzoo.data.transform import prepare
from vtzoo.errors import VtzooError
from vtzoo.predict.classifier import Classifier


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """The probabilities of the readable images, and the errors of the others by index."""

    numbers: np.ndarray  # int64 (m,), the indices of the readable images
    probabilities: np.ndarray  # float32 (m, classes)
    errors: dict[int, VtzooError]
    fingerprint: str  # of the readable images
    seconds: float  # reading, decoding and preprocessing included


def predict_images(
    classifier: Classifier, images: LabelledImages, *, batch_size: int = 256,
    progress: Callable[[int], None] | None = None,
) -> Predictions:  # fmt: skip
    """The predictions on all images, each preprocessed for the classifier and then dropped.

    `progress` is called with the number of images after each batch. Images of which none is readable, and probabilities
    that are not finite, are VtzooErrors.
    """
    started = time.perf_counter()
    decoding = DecodingPass(images=images, keep=lambda image: prepare(image, classifier.preprocess))
    numbers = []
    probabilities = np.empty((len(images), len(classifier.labels)), np.float32)  # allocated once: may take a gigabyte
    for some, pixels in _batches(iter(decoding), batch_size):
        probabilities[len(numbers) : len(numbers) + len(some)] = classifier(pixels)
        numbers += some
        if progress:
            progress(len(some))
    if not numbers:
        raise next(iter(decoding.errors.values()), VtzooError("there are no images to measure on"))
    probabilities = probabilities[: len(numbers)]
    finite = np.isfinite(probabilities).all(axis=1)
    if not finite.all():
        message = f"the model answers image {np.argmin(finite)} with values that are not finite"
        raise VtzooError(message, "its weights may be damaged")
    return Predictions(
        numbers=np.array(numbers), probabilities=probabilities, errors=decoding.errors,
        fingerprint=decoding.fingerprint, seconds=time.perf_counter() - started,
    )  # fmt: skip


def _batches(images: Iterator[tuple[int, np.ndarray]], size: int) -> Iterator[tuple[list[int], np.ndarray]]:
    """Indices and prepared images, uint8 (batch, 3, height, width)."""
    while some := list(islice(images, size)):
        numbers, pixels = zip(*some, strict=True)
        yield list(numbers), np.stack(pixels)
