"""Many images: decoded ahead on threads, classified in batches, answered in the order they came in."""

import glob
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from vtzoo.errors import VtzooError
from vtzoo.preprocess import SUFFIXES, Preprocess, prepare, read_image

from . import Prediction, top
from .classifier import Classifier

THREADS = min(8, os.cpu_count() or 1)  # that decode; Pillow's decoders leave Python free


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the model says about one image, or why it cannot."""

    image: str  # the path as given, joined with the name inside a folder
    predictions: list[Prediction] = field(default_factory=list)  # best first; none where there is an error
    error: str | None = None


def predict_files(
    classifier: Classifier, sources: Iterable[str], top_k: int = 5, batch_size: int = 32
) -> Iterator[Answer]:
    """An Answer for each image file, in order; one that cannot be read is answered by its error, the others normally.

    At most two batches are decoded ahead, so that memory does not grow with the number of files.
    """
    if batch_size < 1:
        raise VtzooError(f"the batch size must be at least 1, not {batch_size}")
    decoded = _decode(sources, classifier.preprocess, 2 * batch_size)
    while batch := list(islice(decoded, batch_size)):
        yield from _answer(classifier, batch, top_k)


def _answer(classifier: Classifier, batch: list[tuple[str, np.ndarray | str]], top_k: int) -> Iterator[Answer]:
    good = [pixels for _, pixels in batch if not isinstance(pixels, str)]
    probabilities = iter(classifier(np.stack(good)) if good else ())
    for name, pixels in batch:
        if isinstance(pixels, str):
            yield Answer(image=name, error=pixels)
        else:
            yield Answer(image=name, predictions=top(next(probabilities), classifier.labels, top_k))


def _decode(sources: Iterable[str], preprocess: Preprocess, ahead: int) -> Iterator[tuple[str, np.ndarray | str]]:
    """Each file's name with its prepared pixels, or with its error; `ahead` files are in the making at once."""
    names, waiting = iter(sources), deque[tuple[str, Future[np.ndarray | str]]]()
    pool = ThreadPoolExecutor(THREADS)
    try:
        while True:
            for name in islice(names, ahead - len(waiting)):
                waiting.append((name, pool.submit(_prepare, name, preprocess)))
            if not waiting:
                return
            name, pixels = waiting.popleft()
            yield name, pixels.result()
    finally:  # also where nobody wants the rest
        pool.shutdown(cancel_futures=True)


def _prepare(name: str, preprocess: Preprocess) -> np.ndarray | str:
    try:
        return prepare(read_image(name), preprocess)
    except VtzooError as error:
        return error.message


def expand(paths: Iterable[str]) -> list[str]:
    """The files that paths, folders and glob patterns stand for, in order; nothing is opened.

    A folder stands for the image files in it and below it, sorted, those of known suffixes and not hidden. What does
    not exist, and a folder without images, stays in the list as it is, to be answered by its error.
    """
    return [file for path in paths for file in _files(path)]


def _files(path: str) -> list[str]:
    # Each file once: `**` matches a folder and what is in it.
    return list(dict.fromkeys(file for match in _matches(path) for file in _walk(match) or [match]))


def _matches(path: str) -> list[str]:
    if os.path.lexists(path) or not glob.has_magic(path):
        return [path]
    return sorted(glob.glob(path, recursive=True)) or [path]  # noqa: PTH207 (Path.glob takes no absolute pattern)


def _walk(folder: str) -> list[str]:
    files = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        # os.path, because Path would drop the "./" of what was given.
        files += [os.path.join(parent, name) for name in names if _is_image(name)]  # noqa: PTH118
    return sorted(files, key=lambda file: Path(file).parts)


def _is_image(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(SUFFIXES)
