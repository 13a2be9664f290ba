"""The labelled images of a split, decoded when they are asked for: one by one, or all on all cores. No torch."""

import os
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
from PIL import Image

from vtzoo.base.machine import cores
from vtzoo.data.transform import Preprocess, prepare, read_image
from vtzoo.errors import VtzooError

if TYPE_CHECKING:
    import pyarrow

Result = TypeVar("Result")
HEAD = 16  # bytes, of which Pillow tells an image's kind
TOGETHER = (
    16  # images that a thread takes at a time: handing each over alone would cost as much as a small one's decoding
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """Images that are decoded when they are asked for, as RGB; an unreadable one is an error that names it."""

    encoded: "pyarrow.ChunkedArray"  # of {bytes, path}, as the `datasets` library stores images
    positions: np.ndarray  # into `encoded`, one a row
    origin: Callable[[int], str]  # what to call the image at a position: file#row, or its path

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int) -> Image.Image:
        source = self._source(index)
        if source is None:
            raise VtzooError(f"no image in {self.name(index)}")
        try:
            return read_image(source)
        except VtzooError as error:
            raise unreadable(self.name(index), error) from error

    def __iter__(self) -> Iterator[Image.Image]:
        return (self[index] for index in range(len(self)))

    def name(self, index: int) -> str:
        """What to call an image."""
        return self.origin(int(self.positions[index]))

    def content(self, index: int) -> bytes | None:
        """An image as it is stored, encoded; None where there is none, or its file cannot be read."""
        source = self._source(index)
        try:
            return source.read_bytes() if isinstance(source, Path) else source
        except OSError:
            return None

    def glance(self, index: int) -> tuple[int, bytes]:
        """An image's size in bytes, encoded, and the first of them, which tell its kind; nothing of a file is kept."""
        source = self._source(index)
        try:
            if isinstance(source, Path):
                with source.open("rb") as file:
                    return os.fstat(file.fileno()).st_size, file.read(HEAD)
        except OSError:
            return 0, b""
        return len(source or b""), (source or b"")[:HEAD]

    def shape(self, index: int) -> tuple[int, int] | None:
        """An image's height and width as its header says, before any rotation; None where it has no such header."""
        content = self.content(index)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of large images: they are measured here, not decoded
                with Image.open(BytesIO(content or b"")) as image:
                    return image.height, image.width
        except Exception:  # Pillow's readers answer hostile bytes with errors of any type
            return None

    def select(self, indices: np.ndarray) -> "Rows":
        """The rows at `indices`, in that order."""
        return Rows(encoded=self.encoded, positions=self.positions[indices], origin=self.origin)

    def _source(self, index: int) -> bytes | Path | None:
        stored = self.encoded[int(self.positions[index])].as_py() or {}
        if stored.get("bytes") is not None:
            return stored["bytes"]
        return None if stored.get("path") is None else Path(stored["path"])


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """The labelled images of one split, in a fixed order."""

    labels: np.ndarray  # int64 (n,)
    label_names: tuple[str, ...]
    rows: Rows

    def __len__(self) -> int:
        return len(self.labels)

    def images(self) -> Iterator[Image.Image]:
        """Every image as RGB, in order; a complete pass leaves the manifest known, so it costs no second one."""
        digest = sha256()
        for label, image in zip(self.labels, self.rows, strict=True):
            digest.update(signature(image, label))
            yield image
        self.__dict__["manifest"] = digest.hexdigest()  # where cached_property looks first

    @cached_property
    def manifest(self) -> str:
        """The sha256 of every image's shape, label and decoded pixels in order: two encodings of the same agree."""
        for _ in self.images():
            pass
        return self.__dict__["manifest"]

    def array(self, size: int) -> np.ndarray:
        """Every image as uint8 (n, 3, size, size).

        An image of that size keeps its pixels; any other has its shorter side resized to `size` (bicubic) and its
        centre cropped.
        """
        fit = Preprocess(size=size, interpolation="bicubic", crop=1.0)
        pixels = np.empty((len(self), 3, size, size), dtype=np.uint8)
        for index, image in enumerate(self.images()):
            pixels[index] = prepare(image, fit)
        return pixels

    def select(self, indices: np.ndarray) -> "Split":
        """The rows at `indices`, in that order."""
        return Split(labels=self.labels[indices], label_names=self.label_names, rows=self.rows.select(indices))

    def hold_out(self, fraction: float, seed: int) -> tuple["Split", "Split"]:
        """The split without a drawn slice, and that slice: `fraction` of the rows and, within one, of each class."""
        count = round(len(self) * fraction)
        if not 0 < count < len(self):
            raise VtzooError(f"cannot hold out {fraction} of {len(self)} images", "choose a fraction between 0 and 1")
        drawn = np.random.default_rng(seed).permutation(len(self))
        by_class = drawn[np.argsort(self.labels[drawn], kind="stable")]
        held = np.zeros(len(self), dtype=bool)
        held[by_class[np.arange(count) * len(self) // count]] = True  # evenly spaced over the classes
        return self.select(np.flatnonzero(~held)), self.select(np.flatnonzero(held))


@dataclass(kw_only=True, eq=False)
class Pass(Generic[Result]):
    """One pass over a split on all cores: the number of each image that can be read, and what `keep` makes of it.

    They come in order. When it is through, `manifest` is that of these images as a split of their own, and `errors`
    says of each of the others, by number, why it cannot be read.
    """

    split: Split
    keep: Callable[[Image.Image], Result]
    progress: Callable[[int], None] | None = None  # called with every further number of images
    manifest: str = ""
    errors: dict[int, VtzooError] = field(default_factory=dict)

    def __iter__(self) -> Iterator[tuple[int, Result]]:
        digest, numbers = sha256(), count()
        for results in in_threads(self._read, len(self.split)):
            for result, number in zip(results, numbers, strict=False):
                if isinstance(result, VtzooError):
                    self.errors[number] = result
                else:
                    digest.update(result[0])
                    yield number, result[1]
            if self.progress:
                self.progress(len(results))
        self.manifest = digest.hexdigest()

    def _read(self, number: int) -> tuple[bytes, Result] | VtzooError:
        rows = self.split.rows
        try:
            image = rows[number]
        except VtzooError as error:
            return error
        try:
            return signature(image, self.split.labels[number]), self.keep(image)
        except VtzooError as error:
            return unreadable(rows.name(number), error)


def signature(image: Image.Image, label: np.int64) -> bytes:
    """What a manifest hashes of an image: its height, width, label and pixels."""
    return np.array([image.height, image.width, label], dtype="<i8").tobytes() + image.tobytes()


def unreadable(name: str, error: VtzooError) -> VtzooError:
    """The error of an image that cannot be read, with the image's name in it."""
    return VtzooError(f"unreadable image {name}: {error.message}", error.hint)


def in_threads(function: Callable[[int], Result], total: int) -> Iterator[list[Result]]:
    """What `function` returns for 0, 1, ... up to `total`, in order and some at a time, computed on all cores.

    Threads keep a little ahead of what is asked for: results that wait need memory.
    """
    waiting: deque[Future[list[Result]]] = deque()
    with ThreadPoolExecutor(cores()) as pool:
        try:
            for first in range(0, total, TOGETHER):
                numbers = range(first, min(first + TOGETHER, total))
                waiting.append(pool.submit(lambda numbers: [function(number) for number in numbers], numbers))
                if len(waiting) > 2 * cores():
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
