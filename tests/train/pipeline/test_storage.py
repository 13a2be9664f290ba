import numpy as np
import pytest
from PIL import Image

from vtzoo.data import transform
from vtzoo.errors import VtzooError
from vtzoo.train.pipeline.storage import CenterSquare, CheckOnly, WholeImage

SIZES = [(64, 64), (65, 64), (128, 64), (129, 64), (64, 500), (63, 500), (300, 200), (1, 1), (1, 900), (1000, 333)]


def noise(height: int, width: int) -> Image.Image:
    pixels = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def planes(image: Image.Image) -> np.ndarray:
    return np.asarray(image).transpose(2, 0, 1)


@pytest.mark.parametrize(("height", "width"), SIZES[:-2])
def test_a_square_is_the_centre_of_the_image_resized_by_its_shorter_side(height: int, width: int) -> None:
    short = min(height, width)
    across, down = 16 * width // short, 16 * height // short
    resized = noise(height, width).resize((across, down), Image.Resampling.BICUBIC)
    left, top = round((across - 16) / 2), round((down - 16) / 2)
    square = CenterSquare(side=16).pixels(noise(height, width))
    assert np.array_equal(square, planes(resized.crop((left, top, left + 16, top + 16))))
    assert square.shape[1:] == CenterSquare(side=16).extent(height, width)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (40, 128), (128, 3), (64, 90)])
def test_an_image_within_the_limit_is_kept_as_it_is(height: int, width: int) -> None:
    assert np.array_equal(WholeImage(side=64).pixels(noise(height, width)), planes(noise(height, width)))


@pytest.mark.parametrize(
    ("height", "width", "expected"), [(300, 200, (96, 64)), (65, 65, (64, 64)), (100, 190, (64, 122))]
)
def test_a_larger_image_is_shrunk_at_its_aspect(height: int, width: int, expected: tuple[int, int]) -> None:
    shrunk = noise(height, width).resize(expected[::-1], Image.Resampling.BICUBIC)
    assert np.array_equal(WholeImage(side=64).pixels(noise(height, width)), planes(shrunk))


@pytest.mark.parametrize(
    ("height", "width", "middle", "shrunk"),
    [
        (50, 1000, (436, 0, 564, 50), None),  # a shorter side below 64: 2 * 64 pixels of the length are kept
        (1000, 50, (0, 436, 50, 564), None),
        (100, 1000, (400, 0, 600, 100), (128, 64)),  # above 64: twice the shorter side is kept, then shrunk
    ],
)
def test_a_long_strip_keeps_its_middle(
    height: int, width: int, middle: tuple[int, int, int, int], shrunk: tuple[int, int] | None
) -> None:
    expected = noise(height, width).crop(middle)
    if shrunk:
        expected = expected.resize(shrunk, Image.Resampling.BICUBIC)
    assert np.array_equal(WholeImage(side=64).pixels(noise(height, width)), planes(expected))


@pytest.mark.parametrize("storage", [CenterSquare(side=16), WholeImage(side=64)], ids=str)
@pytest.mark.parametrize(("height", "width"), SIZES[:-2])
def test_the_extent_is_known_before_the_pixels(storage: CenterSquare | WholeImage, height: int, width: int) -> None:
    extent = storage.extent(height, width)
    assert storage.pixels(noise(height, width)).shape == (3, *extent)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_no_stored_image_is_longer_than_twice_the_limit_or_larger_than_it_was(height: int, width: int) -> None:
    extent = WholeImage(side=64).extent(height, width)
    assert 1 <= min(extent) <= 64
    assert max(extent) <= 128
    assert extent[0] <= height
    assert extent[1] <= width


def test_nothing_is_stored_of_an_image_that_is_only_checked() -> None:
    pixels = CheckOnly(storage=WholeImage(side=16)).pixels(noise(30, 20))
    assert (pixels.shape, pixels.nbytes) == ((0, 24, 16), 0)
    assert CheckOnly(storage=WholeImage(side=16)).extent(30, 20) == (0, 0)


def test_an_image_that_its_storage_refuses_fails_in_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transform, "PIXEL_CAP", 16 * 16 * 300)
    with pytest.raises(VtzooError, match="too narrow to be resized"):
        CheckOnly(storage=CenterSquare(side=16)).pixels(noise(1, 400))
