"""Storage: how a decoded image is kept. No storage depends on the epoch, so each image is decoded once.

Each has `pixels`, the stored part of an RGB image, uint8 (channels, height, width), and `extent`, the stored height and
width for an image's height and width.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from PIL import Image

from vtzoo.data.transform import Preprocess, prepare

STRIP = 2  # the largest stored aspect: the ends of a longer strip are cut off


@dataclass(frozen=True, kw_only=True)
class CenterSquare:
    """The shorter side resized to `side`, then the central square: the evaluation transform of test images."""

    side: int  # pixels

    def pixels(self, image: Image.Image) -> np.ndarray:
        """Uint8 (3, side, side)."""
        return prepare(image, Preprocess(size=self.side, interpolation="bicubic", crop=1.0))

    def extent(self, height: int, width: int) -> tuple[int, int]:
        """(side, side) for every image."""
        return self.side, self.side


@dataclass(frozen=True, kw_only=True)
class ModelInput:
    """The image after a model's own transform."""

    preprocess: Preprocess

    def pixels(self, image: Image.Image) -> np.ndarray:
        """Uint8 (3, height, width)."""
        return prepare(image, self.preprocess)

    def extent(self, height: int, width: int) -> tuple[int, int]:
        """The model's input size, for every image."""
        _, rows, columns = self.preprocess.shape
        return rows, columns


@dataclass(frozen=True, kw_only=True)
class WholeImage:
    """The whole image, shrunk so that its shorter side has at most `side` pixels; of a long strip, the middle."""

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
        """The stored region of an image before it is shrunk: top, left, height and width."""
        longest = STRIP * max(self.side, min(height, width))
        tall, wide = min(height, longest), min(width, longest)
        return (height - tall) // 2, (width - wide) // 2, tall, wide

    def extent(self, height: int, width: int) -> tuple[int, int]:
        """The region's height and width, shrunk at the same aspect to a shorter side of at most `side`."""
        _, _, tall, wide = self.region(height, width)
        shrink = min(1.0, self.side / min(tall, wide))
        return round(tall * shrink), round(wide * shrink)


@dataclass(frozen=True, kw_only=True)
class CheckOnly:
    """No pixels: checks that every image decodes, for a set that is decoded again in every epoch."""

    storage: CenterSquare | ModelInput | WholeImage  # an image that fails in this storage fails in the check

    def pixels(self, image: Image.Image) -> np.ndarray:
        """Uint8 (0, height, width): no channels."""
        return self.storage.pixels(image)[:0]

    def extent(self, height: int, width: int) -> tuple[int, int]:
        """(0, 0)."""
        return 0, 0


Storage: TypeAlias = CenterSquare | ModelInput | WholeImage | CheckOnly
