"""The part of a photograph that a model sees, in the photograph's own pixels."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from vtzoo.data.transform import Preprocess, offset, resized


@dataclass(frozen=True, kw_only=True)
class Box:
    """A rectangle in pixels from the photograph's upper left corner. A border makes it larger than the photograph."""

    left: float
    top: float
    right: float
    bottom: float

    def pixels(self, width: int, height: int) -> list[int]:
        """Left, top, right and bottom of the box, clipped to a photograph of that size."""
        sides = ((self.left, width), (self.top, height), (self.right, width), (self.bottom, height))
        return [round(min(max(value, 0), side)) for value, side in sides]

    def scaled(self, factor: float) -> "Box":
        """The rectangle in a photograph of `factor` times the size."""
        left, top, right, bottom = (factor * side for side in (self.left, self.top, self.right, self.bottom))
        return Box(left=left, top=top, right=right, bottom=bottom)


def visible_box(width: int, height: int, preprocess: Preprocess) -> Box:
    """The part that `vtzoo.data.transform.prepare` keeps of a photograph of that size in pixels."""
    (wide, high), (_, rows, columns) = resized(width, height, preprocess), preprocess.shape
    left, top = -offset(columns, wide), -offset(rows, high)
    across, down = width / wide, height / high
    return Box(left=left * across, top=top * down, right=(left + columns) * across, bottom=(top + rows) * down)


def expand_cells(cells: np.ndarray, box: Box, width: int, height: int, *, smooth: bool) -> np.ndarray:
    """The values of a grid, enlarged to the box in a photograph, float32 (height, width); NaN outside the box.

    `smooth` interpolates between the centres of cells; otherwise each cell has one value.
    """
    left, top, right, bottom = round(box.left), round(box.top), round(box.right), round(box.bottom)
    method = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    size = max(right - left, 1), max(bottom - top, 1)
    grown = np.asarray(Image.fromarray(cells.astype(np.float32)).resize(size, method))
    grown = grown.clip(cells.min(), cells.max())  # bicubic overshoots
    expanded = np.full((height, width), np.nan, np.float32)
    visible = grown[max(-top, 0) : height - top, max(-left, 0) : width - left]
    expanded[max(top, 0) : max(top, 0) + visible.shape[0], max(left, 0) : max(left, 0) + visible.shape[1]] = visible
    return expanded
