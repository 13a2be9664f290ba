"""Many images: decoded and classified on all cores, a batch a thread, and answered in the order they came in."""

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
from vtzoo.predict.classifier import Classifier
from vtzoo.predict.load import Prediction
from vtzoo.predict.sources import Source

BATCH = 32  # images
# Two runs of the model at once fill each other's gaps: where one waits for its slowest thread, or Python prepares
# the next images. A third would add nothing but memory.
RUNS = 2
LIKELY = 0.5  # the probability from which on an image is said to have a class, where it may have several


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the model says about one image, or why it cannot."""

    image: str  # as its Source calls it
    predictions: list[Prediction] = field(default_factory=list)  # best first; none where there is an error
    error: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Images that were answered together, in order."""

    answers: list[Answer]
    features: np.ndarray  # float32 (m, width), pooled, of those m images alone that could be read

    @property
    def failed(self) -> list[Answer]:
        """The answers to images that could not be read."""
        return [answer for answer in self.answers if answer.error is not None]


def predict(
    classifier: Classifier, sources: Iterable[Source], top_k: int = 5, batch_size: int = BATCH
) -> Iterator[Batch]:
    """An Answer for each image, in order and a batch at a time; one that cannot be read is answered by its error.

    At most three batches a core, and one more, are in the making or wait to be taken, so that memory does not grow
    with the number of images. The same images in the same batches give the same answers to the last bit.
    """
    for name, number in (("batch size", batch_size), ("number of classes to show", top_k)):
        if number < 1:
            raise VtzooError(f"the {name} must be at least 1, not {number}")
    images, turns = iter(sources), Semaphore(RUNS)
    waiting = deque[Future[Batch]]()
    pool = ThreadPoolExecutor(cores())
    try:
        while group := list(islice(images, batch_size)):
            waiting.append(pool.submit(_answer, classifier, group, top_k, turns))
            while waiting and (len(waiting) > 3 * cores() or waiting[0].done()):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:  # also where nobody wants the rest
        pool.shutdown(cancel_futures=True)


def _answer(classifier: Classifier, group: list[Source], top_k: int, turns: Semaphore) -> Batch:
    decoded = [_prepare(source, classifier.preprocess) for source in group]
    good = [pixels for pixels in decoded if not isinstance(pixels, str)]
    features, found = np.zeros((0, 0), np.float32), iter(())
    if good:
        with turns:
            logits, features = classifier.run(np.stack(good))
        found = iter(_best(classifier, logits, top_k))
    answers = [
        Answer(image=source.name, error=pixels)
        if isinstance(pixels, str)
        else Answer(image=source.name, predictions=next(found))
        for source, pixels in zip(group, decoded, strict=True)
    ]
    return Batch(answers=answers, features=features)


def _prepare(source: Source, preprocess: Preprocess) -> np.ndarray | str:
    """The image's pixels as the model takes them, or what is wrong with it."""
    if isinstance(source.content, VtzooError):
        return source.content.message
    try:
        return prepare(read_image(source.content), preprocess)
    except VtzooError as error:
        return error.message


def _best(classifier: Classifier, logits: np.ndarray, k: int) -> list[list[Prediction]]:
    """What is said of each image: the k most probable classes, or where it may have several, which of them it has.

    These are the classes that are more probable than not, and the most probable one in any case.
    """
    found = _top(classifier.probabilities(logits), classifier.labels, k)
    if not classifier.multi_label:
        return found
    return [[one, *(other for other in more if other.probability >= LIKELY)] for one, *more in found]


def _top(probabilities: np.ndarray, labels: tuple[str, ...], k: int) -> list[list[Prediction]]:
    """The k most probable classes of each image, (n, classes), best first; all of them where there are fewer."""
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    values = np.take_along_axis(probabilities, order, axis=1).tolist()
    return [
        [Prediction(label=labels[index], probability=value) for index, value in zip(indices, row, strict=True)]
        for indices, row in zip(order.tolist(), values, strict=True)
    ]
