"""Random resized crops: pixels against Pillow's, in two separate passes, columns first, and boxes against timm's.

Pillow keeps 22 bits of a weight and we keep 15, so each pass may round a value near a half differently: hence the
tolerance of two levels, and of 0.05 in the mean.
"""

import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from timm.data.transforms import RandomResizedCropAndInterpolation

from vtzoo.train.augment import mix
from vtzoo.train.pipeline import resized_crop

SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
PHOTOS = sorted((Path(__file__).parents[2] / "photos").glob("*.jpg"))
EXTENTS = [(32, 32), (60, 40), (333, 500), (30, 200), (200, 30)]


def drawn_boxes(count: int, extent: tuple[int, int], scale: tuple[float, float] = SCALE) -> torch.Tensor:
    uniform = mix.draws(1, 2, torch.arange(count), columns=resized_crop.BOX_DRAWS)
    return resized_crop.random_boxes(uniform, torch.tensor([extent]).expand(count, 2), scale, RATIO)


def reference_box(uniform: list[float], height: int, width: int) -> list[int] | None:
    """The first of ten random boxes that fits, in plain Python; None if none fits."""
    for share, aspect in zip(uniform[:10], uniform[10:20], strict=True):
        area = (SCALE[0] + share * (SCALE[1] - SCALE[0])) * height * width
        ratio = math.exp(math.log(RATIO[0]) + aspect * (math.log(RATIO[1]) - math.log(RATIO[0])))
        wide, tall = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 1 <= wide <= width and 1 <= tall <= height:
            return [int(uniform[20] * (height - tall + 1)), int(uniform[21] * (width - wide + 1)), tall, wide]
    return None


@pytest.mark.parametrize("extent", EXTENTS)
def test_a_box_is_the_first_of_ten_that_fits(extent: tuple[int, int]) -> None:
    uniform = mix.draws(0, 0, torch.arange(500), columns=resized_crop.BOX_DRAWS)
    boxes = resized_crop.random_boxes(uniform, torch.tensor([extent]).expand(500, 2), SCALE, RATIO)
    pairs = [(reference_box(row, *extent), box) for row, box in zip(uniform.tolist(), boxes.tolist(), strict=True)]
    assert all(expected == box for expected, box in pairs if expected)
    assert sum(expected is not None for expected, _ in pairs) > 100


@pytest.mark.parametrize(
    ("extent", "box"),
    [((300, 20), [136, 0, 27, 20]), ((20, 301), [0, 137, 20, 27]), ((20, 24), [0, 0, 20, 24]), ((1, 1), [0, 0, 1, 1])],
)
def test_if_no_random_box_fits_the_box_is_the_largest_central_one(extent: tuple[int, int], box: list[int]) -> None:
    assert drawn_boxes(20, extent, scale=(2.0, 2.0)).tolist() == [box] * 20


@pytest.mark.parametrize("extent", EXTENTS)
def test_boxes_are_distributed_as_timms(extent: tuple[int, int]) -> None:
    """Two-sample Kolmogorov-Smirnov tests at level 0.001 of area, aspect and place, with 5,000 boxes each."""
    random.seed(7)
    image = Image.new("RGB", (extent[1], extent[0]))
    timms = [RandomResizedCropAndInterpolation.get_params(image, SCALE, RATIO) for _ in range(5000)]
    boxes = drawn_boxes(5000, extent).numpy()
    for ours, theirs in zip(measures(boxes, extent), measures(np.array(timms), extent), strict=True):
        assert stats.ks_2samp(ours, theirs).pvalue > 1e-3


def measures(boxes: np.ndarray, extent: tuple[int, int]) -> np.ndarray:
    """Area, aspect, and top and left as fractions of their ranges; (4, n)."""
    top, left, tall, wide = boxes.T
    return np.stack([tall * wide, wide / tall, top / (extent[0] - tall + 1), left / (extent[1] - wide + 1)])


def test_every_image_has_a_box_within_its_own_extent() -> None:
    extents = torch.tensor([[20, 300], [64, 32], [7, 7]]).repeat(100, 1)
    uniform = mix.draws(0, 0, torch.arange(300), columns=resized_crop.BOX_DRAWS)
    boxes = resized_crop.random_boxes(uniform, extents, SCALE, RATIO)
    alone = [resized_crop.random_boxes(uniform[i : i + 1], extents[i : i + 1], SCALE, RATIO) for i in range(300)]
    assert torch.equal(boxes, torch.cat(alone))
    assert (boxes >= torch.tensor([0, 0, 1, 1])).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= extents).all()
    assert boxes.unique(dim=0).shape[0] > 150


def sources(height: int, width: int) -> torch.Tensor:
    """Two images of noise and four photographs of one size."""
    noise = torch.randint(256, (2, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    photos = (Image.open(path).convert("RGB") for path in PHOTOS)
    arrays = [np.asarray(photo.resize((width, height))).transpose(2, 0, 1) for photo in photos]
    return torch.cat([noise, torch.from_numpy(np.stack(arrays))])


def pillow_crop(pixels: torch.Tensor, box: list[int], size: int, interpolation: str) -> np.ndarray:
    """A box of an image, resized by Pillow, columns before rows; (3, size, size) integers."""
    top, left, tall, wide = box
    filter_ = Image.Resampling[interpolation.upper()]
    image = Image.fromarray(pixels.permute(1, 2, 0).numpy()).crop((left, top, left + wide, top + tall))
    return np.asarray(image.resize((size, tall), filter_).resize((size, size), filter_)).transpose(2, 0, 1).astype(int)


SIZES = [(32, 32, 32), (33, 47, 32), (64, 64, 32), (17, 300, 64), (300, 400, 224), (512, 384, 224), (40, 30, 224)]


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(("height", "width", "size"), SIZES)
def test_a_resized_crop_is_pillows(height: int, width: int, size: int, interpolation: str) -> None:
    pixels = sources(height, width).repeat(4, 1, 1, 1)
    boxes = drawn_boxes(24, (height, width), scale=(0.01, 1.0))
    boxes[0] = torch.tensor([0, 0, height, width])
    boxes[1] = torch.tensor([height // 3, width // 3, 1, 1])
    resized = resized_crop.resized_crop(pixels, boxes, size, torch.zeros(24, dtype=torch.bool), interpolation).numpy()
    for image, box, result in zip(pixels, boxes.tolist(), resized, strict=True):
        error = np.abs(result - pillow_crop(image, box, size, interpolation))
        assert error.max() <= 2
        assert error.mean() < 0.05


@pytest.mark.parametrize(("height", "width"), [(32, 32), (20, 32), (224, 300)])
def test_a_box_no_taller_than_the_result_is_resized_as_in_one_call_of_pillow(height: int, width: int) -> None:
    size = height if height > 32 else 32
    pixels = sources(height, width)
    whole = torch.tensor([[0, 0, height, width]]).expand(6, 4)
    resized = resized_crop.resized_crop(pixels, whole, size, torch.zeros(6, dtype=torch.bool)).numpy()
    for image, result in zip(pixels, resized, strict=True):
        once = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((size, size), Image.Resampling.BICUBIC)
        error = np.abs(result - np.asarray(once).transpose(2, 0, 1).astype(int))
        assert error.max() <= 2
        assert error.mean() < 0.05


def test_a_box_of_the_results_size_is_copied() -> None:
    pixels = sources(60, 70)
    boxes = torch.tensor([[3, 5, 32, 32], [28, 38, 32, 32]]).repeat(3, 1)
    resized = resized_crop.resized_crop(pixels, boxes, 32, torch.zeros(6, dtype=torch.bool))
    for image, result, (top, left, _, _) in zip(pixels, resized, boxes.tolist(), strict=True):
        assert torch.equal(result, image[:, top : top + 32, left : left + 32])


def test_a_mirrored_crop_is_the_mirror_image_of_the_crop() -> None:
    pixels, boxes = sources(50, 70), drawn_boxes(6, (50, 70))
    straight = resized_crop.resized_crop(pixels, boxes, 32, torch.zeros(6, dtype=torch.bool))
    mirrored = torch.tensor([True, False, True, True, False, False])
    expected = torch.where(mirrored[:, None, None, None], straight.flip(3), straight)
    assert torch.equal(resized_crop.resized_crop(pixels, boxes, 32, mirrored), expected)


def test_pixels_outside_of_the_box_do_not_matter() -> None:
    pixels = sources(60, 70)
    boxes, straight = torch.tensor([[10, 20, 25, 40]]).expand(6, 4), torch.zeros(6, dtype=torch.bool)
    painted = torch.full_like(pixels, 255)
    painted[:, :, 10:35, 20:60] = pixels[:, :, 10:35, 20:60]
    inside, outside = (resized_crop.resized_crop(images, boxes, 16, straight) for images in (pixels, painted))
    assert torch.equal(inside, outside)


@pytest.mark.parametrize("chunk", [1, 2**15, 2**22])
def test_an_image_is_resized_the_same_in_any_batch(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, boxes = sources(50, 70).repeat(6, 1, 1, 1), drawn_boxes(36, (50, 70))
    mirrored = torch.arange(36) % 3 == 0
    together = resized_crop.resized_crop(pixels, boxes, 31, mirrored)
    monkeypatch.setattr(resized_crop, "levels_at_once", lambda _: chunk)
    for cut in ([1] * 36, [7, 29], [36]):
        parts = zip(*(rows.split(cut) for rows in (pixels, boxes, mirrored)), strict=True)
        apart = [resized_crop.resized_crop(images, box, 31, mirror) for images, box, mirror in parts]
        assert torch.equal(torch.cat(apart), together)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [1, 7, 32, 224])
def test_a_weighted_sum_of_levels_is_exact_in_a_float(size: int, interpolation: str) -> None:
    length = torch.arange(1.0, 601.0)
    _, weights = resized_crop._taps(
        torch.zeros(600), length, 600, size, torch.zeros(600, dtype=torch.bool), interpolation
    )
    units = weights * 2**15
    assert torch.equal(units, units.round())
    assert 255 * units.abs().sum(2).max() < 2**24
    assert (units.sum(2) - 2**15).abs().max() < 2**15 / 255 / 2  # a plain white image stays white
