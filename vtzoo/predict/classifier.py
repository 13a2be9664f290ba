"""What every backend shares: images in, probabilities or features out."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from vtzoo.data.transform import ImageSource, Preprocess, prepare, read_image
from vtzoo.errors import VtzooError

BATCH = 64  # images decoded and run at once, where a list of them is given

Images = ImageSource | Sequence[ImageSource]


class Classifier(Protocol):
    """A model that is ready to classify. Backends inherit it and write `run`."""

    labels: tuple[str, ...]  # names of the classes, in the order of the outputs
    preprocess: Preprocess
    multi_label: bool = False  # an image may have several classes: each has a probability of its own

    def run(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logits (n, classes) and pooled features (n, width), float32, from prepared uint8 (n, 3, size, size)."""
        ...

    def __call__(self, images: Images) -> np.ndarray:
        """Probabilities, float32 (n, classes), of one image (n = 1) or a list of them.

        An image is a path, bytes, a PIL image or a uint8 array (height, width, 3). A uint8 array (n, 3, size, size) is
        taken as n prepared images and run at once. An image that cannot be read is a VtzooError.
        """
        logits = [self.run(pixels)[0] for pixels in batches(images, self.preprocess)]
        return self.probabilities(np.concatenate(logits)) if logits else np.zeros((0, len(self.labels)), np.float32)

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """What logits (n, classes) stand for, float32: shares of one, or where there may be several, each its own."""
        return sigmoid(logits) if self.multi_label else softmax(logits)

    def embed(self, images: Images) -> np.ndarray:
        """Pooled features, float32 (n, width), of images as in a call; of at least one."""
        features = [self.run(pixels)[1] for pixels in batches(images, self.preprocess)]
        if not features:
            raise VtzooError("there is no image to embed")
        return np.concatenate(features)


def batches(images: Images, preprocess: Preprocess) -> Iterator[np.ndarray]:
    """Prepared uint8 (n, 3, size, size) arrays, in the order of the images."""
    if isinstance(images, np.ndarray) and images.ndim == 4:
        yield _ready(images, preprocess)
        return
    sources: list[Any] = list(images) if isinstance(images, list | tuple) else [images]
    for start in range(0, len(sources), BATCH):
        yield np.stack([prepare(read_image(source), preprocess) for source in sources[start : start + BATCH]])


def _ready(images: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    expected = preprocess.shape
    if images.dtype != np.uint8 or images.shape[1:] != expected:
        raise VtzooError(
            f"a batch of {images.dtype} {images.shape} cannot be classified",
            f"a ready batch is uint8 (n, {', '.join(map(str, expected))}); give other images as a list",
        )
    return np.ascontiguousarray(images)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """A probability for each class by itself, float32 (n, classes), without overflow."""
    return (0.5 + 0.5 * np.tanh(0.5 * logits)).astype(np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities, float32 (n, classes), without overflow."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32)
