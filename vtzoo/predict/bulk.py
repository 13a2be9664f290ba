"""Predictions for many images, in order: all cores decode, and each thread classifies a batch."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from threading import Semaphore

import numpy as np

from vtzoo.base.machine import cores
from vtzoo.data.transform import Preprocess, prepare, read_image
from vtzoo.errors import VtzooError
from vtzoo.predict.classifier import Classifier, Prediction, top_predictions
from vtzoo.predict.sources import Source

BATCH = 32  # images
# Two runs of the model at once fill each other's gaps: one runs while the other waits for its slowest thread, or while
# Python prepares the next images. A third run would only take more memory.
RUNS = 2
LIKELY = 0.5  # probability from which on a multi-label model predicts a class


@dataclass(frozen=True, kw_only=True)
class ImagePredictions:
    """The predictions for one image, or the reason that it cannot be read."""

    image: str  # the name of its Source
    predictions: list[Prediction] = field(default_factory=list)  # best first; empty after an error
    error: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Images that the model classified together, in order."""

    images: list[ImagePredictions]
    features: np.ndarray  # pooled, float32 (m, width), of the m readable images

    @property
    def failed(self) -> list[ImagePredictions]:
        """The unreadable images."""
        return [image for image in self.images if image.error is not None]


def predict(
    classifier: Classifier, sources: Iterable[Source], top_k: int = 5, batch_size: int = BATCH
) -> Iterator[Batch]:
    """The predictions for each image, in order, a batch at a time; an unreadable image has its error instead.

    At most three batches a core, and one more, are in memory at once, however many images there are. The same images
    in the same batches give bitwise equal predictions.
    """
    for name, number in (("batch size", batch_size), ("number of classes to show", top_k)):
        if number < 1:
            raise VtzooError(f"the {name} must be at least 1, not {number}")
    images, turns = iter(sources), Semaphore(RUNS)
    pending = deque[Future[Batch]]()
    pool = ThreadPoolExecutor(cores())
    try:
        while group := list(islice(images, batch_size)):
            pending.append(pool.submit(_predict_batch, classifier, group, top_k, turns))
            while pending and (len(pending) > 3 * cores() or pending[0].done()):
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:  # also if the caller stops early
        pool.shutdown(cancel_futures=True)


def _predict_batch(classifier: Classifier, group: list[Source], top_k: int, turns: Semaphore) -> Batch:
    prepared = [_prepare(source, classifier.preprocess) for source in group]
    readable = [pixels for pixels in prepared if not isinstance(pixels, str)]
    features, found = np.zeros((0, 0), np.float32), iter(())
    if readable:
        with turns:
            logits, features = classifier.run(np.stack(readable))
        found = iter(_predictions(classifier, logits, top_k))
    images = [
        ImagePredictions(image=source.name, error=pixels)
        if isinstance(pixels, str)
        else ImagePredictions(image=source.name, predictions=next(found))
        for source, pixels in zip(group, prepared, strict=True)
    ]
    return Batch(images=images, features=features)


def _prepare(source: Source, preprocess: Preprocess) -> np.ndarray | str:
    """The prepared pixels of an image, or its error."""
    if isinstance(source.content, VtzooError):
        return source.content.message
    try:
        return prepare(read_image(source.content), preprocess)
    except VtzooError as error:
        return error.message


def _predictions(classifier: Classifier, logits: np.ndarray, k: int) -> list[list[Prediction]]:
    """The k most probable classes of each image; of a multi-label model, the best one and the others above LIKELY."""
    found = top_predictions(classifier.probabilities(logits), classifier.labels, k)
    if not classifier.multi_label:
        return found
    return [[best, *(other for other in rest if other.probability >= LIKELY)] for best, *rest in found]
