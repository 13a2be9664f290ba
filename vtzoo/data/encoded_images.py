"""Encoded images, decoded on access. No torch."""

import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from vtzoo.data.transform import read_image
from vtzoo.errors import VtzooError

if TYPE_CHECKING:
    import pyarrow

HEAD = 16  # bytes, enough for Pillow to recognise an image's format


@dataclass(frozen=True, kw_only=True, eq=False)
class EncodedImages:
    """Files or Parquet rows that decode to RGB images on access; an unreadable image is an error that names it."""

    stored: "pyarrow.ChunkedArray"  # of {bytes, path}, as the `datasets` library stores images
    positions: np.ndarray  # int64 (n,), into `stored`
    origin: Callable[[int], str]  # the name of the image at a position: file#row, or its path

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
        """The name of an image: file#row, or its path."""
        return self.origin(int(self.positions[index]))

    def content(self, index: int) -> bytes | None:
        """The encoded bytes of an image; None if there are none, or its file cannot be read."""
        source = self._source(index)
        try:
            return source.read_bytes() if isinstance(source, Path) else source
        except OSError:
            return None

    def glance(self, index: int) -> tuple[int, bytes]:
        """The size in bytes of an encoded image, and its first bytes, which identify its format."""
        source = self._source(index)
        try:
            if isinstance(source, Path):
                with source.open("rb") as file:
                    return os.fstat(file.fileno()).st_size, file.read(HEAD)
        except OSError:
            return 0, b""
        return len(source or b""), (source or b"")[:HEAD]

    def shape(self, index: int) -> tuple[int, int] | None:
        """The height and width in an image's header, before any rotation; None without a readable header."""
        content = self.content(index)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about large images: nothing is decoded here
                with Image.open(BytesIO(content or b"")) as image:
                    return image.height, image.width
        except Exception:  # Pillow's readers raise errors of any type on hostile bytes
            return None

    def select(self, indices: np.ndarray) -> "EncodedImages":
        """The images at `indices`, in that order."""
        return EncodedImages(stored=self.stored, positions=self.positions[indices], origin=self.origin)

    def _source(self, index: int) -> bytes | Path | None:
        stored = self.stored[int(self.positions[index])].as_py() or {}
        if stored.get("bytes") is not None:
            return stored["bytes"]
        return None if stored.get("path") is None else Path(stored["path"])


def unreadable(name: str, error: VtzooError) -> VtzooError:
    """The error of an unreadable image, with the image's name in it."""
    return VtzooError(f"unreadable image {name}: {error.message}", error.hint)
