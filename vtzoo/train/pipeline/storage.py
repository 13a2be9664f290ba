"""The forms in which decoded images are stored: none of them depends on the epoch, so images are decoded once.

Each has `pixels`, what is stored of an RGB image, uint8 (channels, height, width), and `extent`, the height and width
that are stored of one of a given height and width.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from PIL import Image

from vtzoo.data.transform import Preprocess, prepare

STRIP = 2  # the longest side that is stored, in shorter ones: beyond, an image is a strip, of which the middle is kept


@dataclass(frozen=True, kw_only=True)
class Square:
    """The square that a test image becomes too: its shorter side resized, and its centre."""

    side: int  # pixels

    def pixels(self, image: Image.Image) -> np.ndarray:
        """Uint8 (3, side, side)."""
        return prepare(image, Preprocess(size=self.side, interpolation="bicubic", crop=1.0))

    def extent(self, height: int, width: int) -> tuple[int, int]:
        """The same for every image."""
        return self.side, self.side


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What a model's own transform makes of an image."""

    how: Preprocess

    def pixels(self, image: Image.Image) -> np.ndarray:
        """Uint8 (3, height, width)."""
        return prepare(image, self.how)

    def extent(self, height: int, width: int) -> tuple[int, int]:
        """The same for every image."""
        _, rows, columns = self.how.shape
        return rows, columns


@dataclass(frozen=True, kw_only=True)
class Whole:
    """The whole image, shrunk where its shorter side is longer than `side`; of a strip, the middle."""

    side: int  # pixels

    def pixels(self, image: Image.Image) -> np.ndarray:
        """Uint8 (3, height, width)."""
        top, left, tall, wide = self.region(image.height, image.width)
        image = image.crop((left, top, left + wide, top + tall))
        height, width = self.extent(tall, wide)
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.BICUBIC)
        return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))

    def region(self, height: int, width: int) -> tuple[int, int, int, int]:
        """What is kept of an image, before it is shrunk: top, left, height and width."""
        longest = STRIP * max(self.side, min(height, width))
        tall, wide = min(height, longest), min(width, longest)
        return (height - tall) // 2, (width - wide) // 2, tall, wide

    def extent(self, height: int, width: int) -> tuple[int, int]:
        """The kept region's, at the same aspect, with a shorter side of `side` at most."""
        _, _, tall, wide = self.region(height, width)
        shrink = min(1.0, self.side / min(tall, wide))
        return round(tall * shrink), round(wide * shrink)


@dataclass(frozen=True, kw_only=True)
class Nothing:
    """No pixels at all: for a set that is decoded in every epoch, and only checked before."""

    form: Square | Prepared | Whole  # that each image is decoded into then: what cannot be, fails in the check

    def pixels(self, image: Image.Image) -> np.ndarray:
        """Uint8 (0, height, width): no channels."""
        return self.form.pixels(image)[:0]

    def extent(self, height: int, width: int) -> tuple[int, int]:
        """No height and no width."""
        return 0, 0


Form: TypeAlias = Square | Prepared | Whole | Nothing
