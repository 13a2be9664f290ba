"""People's own images as training and measuring take them: splits with a code for a label, pixels, and metrics."""

from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from vtzoo.base.files import cache_folder
from vtzoo.data.collection import Labelled
from vtzoo.data.decoding import Split, in_threads
from vtzoo.data.transform import Preprocess, prepare
from vtzoo.errors import VtzooError
from vtzoo.predict.load import Classifier
from vtzoo.train.criterion import Criterion, hot
from vtzoo.train.pipeline import cache
from vtzoo.train.pipeline.batches import refusal
from vtzoo.train.pipeline.storage import Nothing, Prepared

TOGETHER = 128  # images that a classifier answers at once


def split_of(images: Labelled, classes: tuple[str, ...]) -> Split:
    """The images as a split; what is known of one that may have several classes becomes a number, its hash."""
    labels = images.targets
    if labels.ndim == 2:
        hashes = [sha256(row.astype("<f4").tobytes()).digest()[:7] for row in labels]
        labels = np.array([int.from_bytes(digest, "little") for digest in hashes], dtype=np.int64)
    return Split(labels=labels, label_names=classes, rows=images.rows)


def open_images(
    images: Labelled, classes: tuple[str, ...], how: Preprocess, *, name: str, skip_bad: bool, pixels: bool = True,
    progress: Callable[[int], None] | None = None,
) -> tuple[Labelled, UInt8[Tensor, "*shape"]]:  # fmt: skip
    """The images that can be read, and their pixels (n, 3, height, width) as the model's own transform makes them.

    They come out of the cache, where they are decoded once; without `pixels` they are only looked at. Unreadable
    images are a VtzooError, but with `skip_bad` they are left out.
    """
    split, form = split_of(images, classes), Prepared(how=how)
    try:
        stored = cache.open_stored(
            split, form if pixels else Nothing(form=form), name=name, folder=cache_folder(), progress=progress
        )
    except cache.NoRoomError as error:
        raise VtzooError(f"there is no room for the decoded images: {error}", "make room, or train on fewer") from error
    kept = np.flatnonzero(stored.extents.any(1).numpy())
    if len(kept) < len(split) and not (skip_bad and len(kept)):
        raise refusal(split, form, np.setdiff1d(np.arange(len(split)), kept))
    return (images if len(kept) == len(images) else images.select(kept)), stored.pixels


def measure(classifier: Classifier, images: Labelled, criterion: Criterion) -> dict[str, Any]:
    """What result.json says of a classifier on labelled images: top1 and top5, or map, all fractions; images, manifest.

    With five classes or fewer top5 is 1.
    """
    logits = np.concatenate([classifier.run(pixels)[0] for pixels in _prepared(images, classifier.preprocess)])
    found: dict[str, Any] = {criterion.metric: criterion.score(logits, hot(images.targets, logits.shape[1]))}
    if images.targets.ndim == 1:
        own = np.take_along_axis(logits, images.targets[:, None], axis=1)
        found["top5"] = float(((logits > own).sum(axis=1) < 5).mean())
    return found | {"images": len(images), "manifest": images.manifest}


def _prepared(images: Labelled, how: Preprocess) -> Iterator[np.ndarray]:
    """Batches of prepared images, uint8 (b, 3, height, width), in order."""
    waiting: list[np.ndarray] = []
    for some in in_threads(lambda number: prepare(images.rows[number], how), len(images)):
        waiting += some
        if len(waiting) >= TOGETHER:
            yield np.stack(waiting)
            waiting = []
    if waiting:
        yield np.stack(waiting)
