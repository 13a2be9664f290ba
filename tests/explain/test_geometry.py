"""The part of a photograph that a model sees, against pixels that encode their position."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from vtzoo.data.transform import Preprocess, prepare
from vtzoo.explain.geometry import Box, expand_cells, visible_box


@pytest.mark.parametrize(
    ("width", "height", "settings"),
    [
        (480, 320, {"size": 32, "crop": 1.0}),
        (480, 320, {"size": 224, "crop": 0.875}),
        (97, 311, {"size": 64, "crop": 0.9}),
        (300, 200, {"size": 64, "width": 96, "crop": 0.8}),
        (300, 200, {"size": 64, "crop": 0.8, "mode": "squash"}),
    ],
)
def test_the_box_is_where_the_pixels_that_the_model_sees_are_from(
    width: int, height: int, settings: dict[str, Any]
) -> None:
    preprocess = Preprocess(interpolation="bilinear", **settings)
    # Red grows from left to right, green from top to bottom: a pixel's colour encodes its position.
    across = np.broadcast_to(np.linspace(0, 255, width)[None], (height, width))
    down = np.broadcast_to(np.linspace(0, 255, height)[:, None], (height, width))
    photo = Image.fromarray(np.stack([across, down, 0 * down], axis=2).round().astype(np.uint8))
    cut = prepare(photo, preprocess).astype(float)
    box = visible_box(width, height, preprocess)
    _, rows, columns = preprocess.shape
    step_across, step_down = (box.right - box.left) / columns, (box.bottom - box.top) / rows
    middle_column, middle_row = columns // 2, rows // 2  # not at the borders, where resampling lacks neighbours
    column = cut[0, middle_row, middle_column] / 255 * (width - 1) + 0.5
    row = cut[1, middle_row, middle_column] / 255 * (height - 1) + 0.5
    assert box.left + (middle_column + 0.5) * step_across == pytest.approx(column, abs=1.5 * width / 255)
    assert box.top + (middle_row + 0.5) * step_down == pytest.approx(row, abs=1.5 * height / 255)


def test_a_square_out_of_the_middle_of_a_wide_photograph_has_both_ends_cut_off() -> None:
    box = visible_box(480, 320, Preprocess(size=32, interpolation="bicubic", crop=1.0))
    assert box.pixels(480, 320) == [80, 0, 400, 320]


def test_a_border_makes_the_box_larger_than_the_photograph_and_its_pixels_are_those_within() -> None:
    box = visible_box(200, 100, Preprocess(size=50, interpolation="bicubic", crop=1.0, mode="border"))
    # 25 rows of 50: 12 above, 13 below, of 4 pixels each.
    assert box == Box(left=0.0, top=-48.0, right=200.0, bottom=152.0)
    assert box.pixels(200, 100) == [0, 0, 200, 100]


def test_values_are_spread_over_the_box_and_nothing_else() -> None:
    cells = np.array([[1, 2], [3, 4]], np.float32)
    found = expand_cells(cells, Box(left=2.0, top=0.0, right=6.0, bottom=4.0), 8, 4, smooth=False)
    row = [np.nan, np.nan, 1, 1, 2, 2, np.nan, np.nan]
    np.testing.assert_array_equal(found[:2], [row, row])
    np.testing.assert_array_equal(found[2:, 2:6], np.repeat([[3, 3, 4, 4]], 2, axis=0))


def test_of_a_box_with_a_border_the_middle_is_spread_over_the_photograph() -> None:
    cells = np.arange(4, dtype=np.float32)[:, None]
    found = expand_cells(cells, Box(left=0.0, top=-2.0, right=3.0, bottom=6.0), 3, 4, smooth=False)
    np.testing.assert_array_equal(found, np.repeat([[1], [1], [2], [2]], 3, axis=1))


def test_smooth_values_stay_within_those_of_the_cells_and_peak_in_the_middle_of_the_largest() -> None:
    cells = np.zeros((4, 4), np.float32)
    cells[1, 2] = 1
    found = expand_cells(cells, Box(left=0.0, top=0.0, right=40.0, bottom=40.0), 40, 40, smooth=True)
    assert found.min() == 0  # only bicubic interpolation goes below
    assert 0.98 < found.max() <= 1
    rows, columns = np.nonzero(found > 0.98)
    assert (rows.mean(), columns.mean()) == (14.5, 24.5)
