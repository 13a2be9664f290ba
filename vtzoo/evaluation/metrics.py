"""How often a classifier is right on a labelled split. Works on either backend; no torch."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from vtzoo import datasets, hub, zoo
from vtzoo.errors import VtzooError
from vtzoo.inference import Classifier, load
from vtzoo.preprocess import Preprocess, prepare
from vtzoo.splits import Split, read

TIES = 5e-4  # of the images: those whose two best classes all but tie fall either way on another kind of CPU or GPU
HINT = "evaluate on the data set that the model was trained on: vtzoo show MODEL names it"


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """A classifier's accuracy on a split, and which images gave it."""

    top1: float  # fraction
    top5: float  # fraction; 1.0 with five classes or fewer
    images: int
    manifest: str  # sha256 of the images and labels in order
    seconds: float  # reading, decoding and preprocessing included

    def as_json(self) -> dict[str, float | int | str]:
        """The values under their own names, and the speed in images per second."""
        return {**asdict(self), "images_per_second": self.images / self.seconds}


def evaluate(
    classifier: Classifier, split: Split, batch_size: int = 256, progress: Callable[[int], None] | None = None
) -> Metrics:
    """The classifier's top-1 and top-5 on every image of the split, preprocessed as the model's folder says.

    `progress` is called with the number of images after each batch.
    """
    require_same_classes(classifier.labels, split.label_names)
    started = time.perf_counter()
    answers = []
    for batch in batches(split.images(), classifier.preprocess, batch_size):
        answers.append(classifier(batch))
        if progress:
            progress(len(batch))
    probabilities = np.concatenate(answers)
    top1, top5 = accuracies(split.labels, probabilities)
    manifest = split.manifest  # known after the pass over the images
    seconds = time.perf_counter() - started
    return Metrics(top1=top1, top5=top5, images=len(split), manifest=manifest, seconds=seconds)


def batches(images: Iterable[Image.Image], preprocess: Preprocess, batch_size: int) -> Iterator[np.ndarray]:
    """The images as the model takes them, uint8 (batch, 3, size, size)."""
    waiting = iter(images)
    while batch := [prepare(image, preprocess) for image in islice(waiting, batch_size)]:
        yield np.stack(batch)


def accuracies(labels: np.ndarray, probabilities: np.ndarray) -> tuple[float, float]:
    """Top-1 and top-5 as fractions, from labels (n,) and probabilities (n, classes)."""
    from sklearn.metrics import accuracy_score, top_k_accuracy_score  # heavy: only an evaluation pays for it

    if not np.isfinite(probabilities).all():
        row = int(np.flatnonzero(~np.isfinite(probabilities).all(axis=1))[0])
        raise VtzooError(f"the model answers image {row} with values that are not finite", "its weights may be damaged")
    classes = probabilities.shape[1]
    top1 = accuracy_score(labels, probabilities.argmax(axis=1))
    if classes <= 5:  # scikit-learn calls this undefined
        return float(top1), 1.0
    return float(top1), float(top_k_accuracy_score(labels, probabilities, k=5, labels=np.arange(classes)))


def require_same_classes(model: tuple[str, ...], data: tuple[str, ...]) -> None:
    """Raise unless the model answers with the data's classes, in the data's order."""
    if len(model) != len(data):
        raise VtzooError(f"the model has {len(model)} classes and the data {len(data)}", HINT)
    for number, (of_model, of_data) in enumerate(zip(model, data, strict=True)):
        if of_model != of_data:
            raise VtzooError(f"class {number} is {of_model!r} to the model and {of_data!r} to the data", HINT)


def evaluate_model(
    name: str, data: Path | None = None, *, revision: str | None = None, backend: str = "auto", device: str = "auto",
    progress: Callable[[int], None] | None = None,
) -> Metrics:  # fmt: skip
    """The accuracy of a model on the test split of the data set that it was trained on, as its result.json names it.

    `name` is a model of the zoo, a model folder or a model on the Hub, at `revision` where one is given; `data` is
    where the data set is read from, None for the Hub.
    """
    entry = hub.find(name, revision=revision, use=backend)
    return _measure(entry, data, backend=backend, device=device, progress=progress)


def reproduce(
    name: str, data: Path | None = None, *, backend: str = "auto", device: str = "auto",
    progress: Callable[[int], None] | None = None,
) -> dict[str, float | int | str | bool]:  # fmt: skip
    """A model's accuracy measured again: `top1`, `stated` (what its card says), `reproduced` (whether they are one).

    They are where the images are the same ones, by the manifest, and the fractions differ by TIES at most. Arguments as
    in `evaluate_model`.
    """
    entry = hub.find(name, use=backend)
    if "top1" not in entry.result:
        raise VtzooError(f"the result.json of {name} states no accuracy to reproduce", "vtzoo evaluate measures one")
    metrics, stated = _measure(entry, data, backend=backend, device=device, progress=progress), entry.result["top1"]
    same = metrics.manifest == entry.result.get("manifest") and abs(metrics.top1 - stated) <= TIES
    return {**metrics.as_json(), "stated": stated, "reproduced": same}


def _measure(
    entry: zoo.Entry, data: Path | None, *, backend: str, device: str, progress: Callable[[int], None] | None
) -> Metrics:
    trained_on = entry.result.get("dataset")
    if trained_on is None:
        where = f"the result.json of {entry.name}"
        raise VtzooError(f"{where} names no data set to evaluate on", "train it with vtzoo train")
    classifier = load(entry, backend=backend, device=device)
    return evaluate(classifier, read(datasets.find(trained_on), "test", data), progress=progress)
