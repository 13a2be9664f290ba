"""What a classifier answers to labelled images, as far as they can be read."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from vtzoo.data.decoding import Pass, Split
from vtzoo.data.transform import prepare
from vtzoo.errors import VtzooError
from vtzoo.evaluate.single_label import require_finite
from vtzoo.predict.load import Classifier


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """The probabilities of those images that can be read, and the errors of the others, by their numbers."""

    numbers: np.ndarray  # int64 (m,), of the images that can be read
    probabilities: np.ndarray  # float32 (m, classes)
    errors: dict[int, VtzooError]
    manifest: str  # sha256 of these images' pixels and labels in order, as Split has it
    seconds: float  # reading, decoding and preprocessing included


def ask(
    classifier: Classifier, split: Split, *, batch_size: int = 256, progress: Callable[[int], None] | None = None
) -> Answers:
    """The answers to all the images of a split, preprocessed as the model's folder says; no image is kept.

    `progress` is called with the number of images after each batch.
    """
    started = time.perf_counter()
    images = Pass(split=split, keep=lambda image: prepare(image, classifier.preprocess))
    numbers = []
    probabilities = np.empty((len(split), len(classifier.labels)), np.float32)  # once: there may be a gigabyte of them
    for some, pixels in _batches(iter(images), batch_size):
        probabilities[len(numbers) : len(numbers) + len(some)] = classifier(pixels)
        numbers += some
        if progress:
            progress(len(some))
    if not numbers:
        raise next(iter(images.errors.values()), VtzooError("there are no images to measure on"))
    probabilities = probabilities[: len(numbers)]
    require_finite(probabilities)
    return Answers(
        numbers=np.array(numbers),
        probabilities=probabilities,
        errors=images.errors,
        manifest=images.manifest,
        seconds=time.perf_counter() - started,
    )


def _batches(images: Iterator[tuple[int, np.ndarray]], size: int) -> Iterator[tuple[list[int], np.ndarray]]:
    """The numbers of some images, and the images themselves as the model takes them, uint8 (batch, 3, size, size)."""
    while some := list(islice(images, size)):
        numbers, pixels = zip(*some, strict=True)
        yield list(numbers), np.stack(pixels)
