"""The abstract classifier: images in, probabilities or features out."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vtzoo.data.transform import ImageSource, Preprocess, prepare, read_image
from vtzoo.errors import VtzooError

BATCH = 64  # images of a list, decoded and run at once

Images = ImageSource | Sequence[ImageSource]


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A class and its probability."""

    label: str
    probability: float  # 0 to 1


class Classifier(ABC):
    """A loaded model. Each backend implements `run`."""

    labels: tuple[str, ...]  # class names, in the order of the logits
    preprocess: Preprocess
    multi_label: bool = False  # an image may have several classes, each with its own probability

    @abstractmethod
    def run(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logits (n, classes) and pooled features (n, width), float32, of prepared images.

        `pixels` is uint8 (n, 3, height, width).
        """

    def __call__(self, images: Images) -> np.ndarray:
        """Probabilities, float32 (n, classes), of one image (n = 1) or a list of images.

        An image is a path, bytes, a PIL image or a uint8 array (height, width, 3). A uint8 array (n, 3, height, width)
        holds n prepared images, which run at once. An unreadable image is a VtzooError.
        """
        logits = [self.run(pixels)[0] for pixels in batches(images, self.preprocess)]
        return self.probabilities(np.concatenate(logits)) if logits else np.zeros((0, len(self.labels)), np.float32)

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Probabilities, float32 (n, classes), of logits: by sigmoid for a multi-label model, else by softmax."""
        return sigmoid(logits) if self.multi_label else softmax(logits)

    def embed(self, images: Images) -> np.ndarray:
        """Pooled features, float32 (n, width), of at least one image; `images` is as in a call."""
        features = [self.run(pixels)[1] for pixels in batches(images, self.preprocess)]
        if not features:
            raise VtzooError("there is no image to embed")
        return np.concatenate(features)


def batches(images: Images, preprocess: Preprocess) -> Iterator[np.ndarray]:
    """Prepared images in order, in arrays of uint8 (n, 3, height, width)."""
    if isinstance(images, np.ndarray) and images.ndim == 4:
        yield _prepared_batch(images, preprocess)
        return
    sources: list[Any] = list(images) if isinstance(images, list | tuple) else [images]
    for start in range(0, len(sources), BATCH):
        yield np.stack([prepare(read_image(source), preprocess) for source in sources[start : start + BATCH]])


def _prepared_batch(images: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    expected = preprocess.shape
    if images.dtype != np.uint8 or images.shape[1:] != expected:
        raise VtzooError(
            f"a batch of {images.dtype} {images.shape} cannot be classified",
            f"a prepared batch is uint8 (n, {', '.join(map(str, expected))}); give other images as a list",
        )
    return np.ascontiguousarray(images)


def top_predictions(probabilities: np.ndarray, labels: tuple[str, ...], k: int) -> list[list[Prediction]]:
    """The k most probable classes of each image, best first; all classes if there are fewer than k.

    `probabilities` is float (n, classes).
    """
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    values = np.take_along_axis(probabilities, order, axis=1).tolist()
    return [
        [Prediction(label=labels[index], probability=value) for index, value in zip(indices, row, strict=True)]
        for indices, row in zip(order.tolist(), values, strict=True)
    ]


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """An independent probability for each class, float32 (n, classes), without overflow."""
    return (0.5 + 0.5 * np.tanh(0.5 * logits)).astype(np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities that sum to 1 for each image, float32 (n, classes), without overflow."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32)
