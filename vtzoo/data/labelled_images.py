"""Labelled images of named data sets and of users, with the hashes that identify them. No torch."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from itertools import chain, count
from typing import Generic, TypeVar

import numpy as np
from PIL import Image

from vtzoo.data.decoding import in_threads
from vtzoo.data.encoded_images import EncodedImages, unreadable
from vtzoo.data.transform import Preprocess, prepare
from vtzoo.errors import VtzooError

Result = TypeVar("Result")
SPLITS = ("train", "val", "test")
UNKNOWN = -1  # the class of a single-label image without a label


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledImages:
    """Encoded images with targets, in a fixed order."""

    encoded: EncodedImages  # decoded on access, with the name of each image
    targets: np.ndarray  # int64 (n,), a class or UNKNOWN; multi-label float32 (n, classes): 1, 0, NaN if unknown
    classes: tuple[str, ...]
    splits: np.ndarray  # str (n,), each in SPLITS
    name: str = "images"  # of the data set, in the letters of a model's name
    val_drawn: bool = False  # whether the validation images were drawn from the training images
    notes: tuple[str, ...] = ()  # sentences for the user, about oddities of the source

    def __len__(self) -> int:
        return len(self.encoded)

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several classes: sigmoid, not softmax."""
        return self.targets.ndim == 2

    @cached_property
    def train(self) -> "LabelledImages":
        """The training images."""
        return self.split("train")

    @cached_property
    def val(self) -> "LabelledImages":
        """The validation images."""
        return self.split("val")

    @cached_property
    def test(self) -> "LabelledImages":
        """The test images."""
        return self.split("test")

    def split(self, name: str) -> "LabelledImages":
        """The images of a split; empty if the source lacks the split."""
        return self.select(np.flatnonzero(self.splits == name))

    def select(self, indices: np.ndarray) -> "LabelledImages":
        """The images at `indices`, in that order."""
        targets, splits = self.targets[indices], self.splits[indices]
        return replace(self, encoded=self.encoded.select(indices), targets=targets, splits=splits)

    def noting(self, *notes: str) -> "LabelledImages":
        """The same images with further notes."""
        return replace(self, notes=(*self.notes, *notes))

    @cached_property
    def fingerprint(self) -> str:
        """The sha256 of each readable image's height, width, target and decoded pixels, in order.

        Two encodings of the same pixels agree. result.json, cards and reports call it `manifest`.
        """
        decoding = DecodingPass(images=self, keep=lambda image: None)
        for _ in decoding:
            pass
        return decoding.fingerprint

    @cached_property
    def content_hash(self) -> str:
        """The sha256 of each image's encoded bytes and target, in order: ties a checkpoint or a cache to its files."""
        digest = sha256()
        contents = in_threads(lambda index: sha256(self.encoded.content(index) or b"").digest(), len(self))
        for content, target in zip(chain.from_iterable(contents), self.targets, strict=True):
            digest.update(content + _little_endian(target))
        return digest.hexdigest()

    def is_recorded(self, manifest: str | None) -> bool:
        """Whether a result's manifest identifies these images; older fine-tuned models recorded `content_hash`."""
        return manifest is not None and manifest in (self.content_hash, self.fingerprint)

    def pixels(self, how: Preprocess) -> np.ndarray:
        """The images preprocessed for a model, uint8 (n, 3, height, width); an unreadable image is a VtzooError."""
        made = np.empty((len(self), *how.shape), dtype=np.uint8)
        for index, image in enumerate(self.encoded):
            made[index] = prepare(image, how)
        return made

    def hold_out(self, fraction: float, seed: int) -> tuple["LabelledImages", "LabelledImages"]:
        """The images without a random slice, and the slice: `fraction` of all and, within one image, of each class.

        Single-label images only. A slice of no image or of all images is a VtzooError.
        """
        count = round(len(self) * fraction)
        if not 0 < count < len(self):
            raise VtzooError(f"cannot hold out {fraction} of {len(self)} images", "choose a fraction between 0 and 1")
        drawn = np.random.default_rng(seed).permutation(len(self))
        by_class = drawn[np.argsort(self.targets[drawn], kind="stable")]
        out = np.zeros(len(self), dtype=bool)
        out[by_class[np.arange(count) * len(self) // count]] = True  # evenly spaced over the classes
        return self.select(np.flatnonzero(~out)), self.select(np.flatnonzero(out))


@dataclass(kw_only=True, eq=False)
class DecodingPass(Generic[Result]):
    """One pass over images on all cores: yields (index, keep(image)) of each readable image, in order.

    After the pass, `fingerprint` identifies the readable images, and `errors` has the error of each unreadable image.
    """

    images: LabelledImages
    keep: Callable[[Image.Image], Result]
    progress: Callable[[int], None] | None = None  # called with each number of further images
    fingerprint: str = ""
    errors: dict[int, VtzooError] = field(default_factory=dict)

    def __iter__(self) -> Iterator[tuple[int, Result]]:
        digest, numbers = sha256(), count()
        for results in in_threads(self._read, len(self.images)):
            for result, number in zip(results, numbers, strict=False):
                if isinstance(result, VtzooError):
                    self.errors[number] = result
                else:
                    digest.update(result[0])
                    yield number, result[1]
            if self.progress:
                self.progress(len(results))
        self.fingerprint = digest.hexdigest()

    def _read(self, number: int) -> tuple[bytes, Result] | VtzooError:
        encoded = self.images.encoded
        try:
            image = encoded[number]
        except VtzooError as error:
            return error
        try:
            return signature(image, self.images.targets[number]), self.keep(image)
        except VtzooError as error:
            return unreadable(encoded.name(number), error)


def signature(image: Image.Image, target: np.ndarray) -> bytes:
    """The bytes of an image that a fingerprint hashes: height, width, target, pixels."""
    size = np.array([image.height, image.width], dtype="<i8")
    return size.tobytes() + _little_endian(target) + image.tobytes()


def _little_endian(target: np.ndarray) -> bytes:
    return target.astype(target.dtype.newbyteorder("<")).tobytes()
