"""Crops of stored pixels equal crops of newly decoded images, and Pillow's."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image

from vtzoo.train.augment import mix
from vtzoo.train.pipeline.crops import Crops
from vtzoo.train.pipeline.pixels import Pixels
from vtzoo.train.pipeline.resized_crop import random_boxes
from vtzoo.train.pipeline.storage import CenterSquare, WholeImage
from vtzoo.zoo.recipe import RandomResizedCrop

CPU = torch.device("cpu")
BOX = RandomResizedCrop(scale=(0.08, 1.0), ratio=(0.75, 4 / 3))
BOXED = Crops(size=14, padding=0, box=BOX, flip=True)  # stores images with a shorter side of at most 16 pixels
SHIFTED = Crops(size=14, padding=3, box=None, flip=True)
EXTENTS = [(16, 16), (16, 31), (20, 7), (3, 5), (32, 16), (9, 12)]  # within that limit


def noise(extents: list[tuple[int, int]]) -> list[Image.Image]:
    """Noise of medium levels: if resizing overshoots 0 or 255, the order of Pillow's two passes matters."""
    random = np.random.default_rng(4)
    return [Image.fromarray(random.integers(80, 176, (*extent, 3), dtype=np.uint8)) for extent in extents]


def scene(height: int, width: int) -> Image.Image:
    """An image of large soft shapes, which look the same at any resolution."""
    random = np.random.default_rng(height)
    coarse = Image.fromarray(random.integers(0, 256, (7, 7, 3), dtype=np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


def stored(images: list[Image.Image], crops: Crops) -> Pixels:
    pixels = [crops.storage.pixels(image) for image in images]
    extents = torch.tensor([image.shape[1:] for image in pixels])
    return Pixels(torch.from_numpy(np.concatenate([image.ravel() for image in pixels])), extents, CPU)


def crops_of_pixels(images: list[Image.Image], crops: Crops, epoch: int = 0) -> torch.Tensor:
    chosen = torch.arange(len(images))
    return crops.of_pixels(stored(images, crops), chosen, crops.uniform(5, epoch, chosen))


def crops_of_images(images: list[Image.Image], crops: Crops, epoch: int = 0) -> torch.Tensor:
    uniform = crops.uniform(5, epoch, torch.arange(len(images)))
    single = [crops.of_image(image, uniform[number : number + 1]) for number, image in enumerate(images)]
    return crops.finish(torch.from_numpy(np.stack(single)), uniform)


def distance(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return (first.int() - second.int()).abs()


def test_crops_of_224_pixels_are_cut_from_images_of_256() -> None:
    assert Crops(size=224, padding=0, box=BOX, flip=True).storage == WholeImage(side=256)
    assert Crops(size=224, padding=4, box=None, flip=True).storage == CenterSquare(side=224)


@pytest.mark.parametrize("epoch", range(5))
def test_boxes_give_the_same_crops_of_stored_pixels_and_of_images_to_two_levels_of_255(epoch: int) -> None:
    images = noise(EXTENTS)
    difference = distance(crops_of_pixels(images, BOXED, epoch), crops_of_images(images, BOXED, epoch))
    assert difference.max() <= 2  # from rounding, once per axis


@pytest.mark.parametrize("extents", [EXTENTS, [(100, 80), (14, 14), (40, 900)]])
def test_shifts_give_the_same_crops_of_stored_pixels_and_of_images_bit_for_bit(extents: list[tuple[int, int]]) -> None:
    images = noise(extents)
    assert torch.equal(crops_of_pixels(images, SHIFTED), crops_of_images(images, SHIFTED))


@pytest.mark.parametrize("extent", [(160, 240), (400, 90), (1000, 100), (60, 500)])
def test_crops_of_stored_pixels_and_of_images_beyond_the_limit_show_the_same_region(extent: tuple[int, int]) -> None:
    images = [scene(*extent)] * 40  # forty boxes of one image
    difference = distance(crops_of_pixels(images, BOXED), crops_of_images(images, BOXED)).float()
    other_epoch = distance(crops_of_pixels(images, BOXED), crops_of_images(images, BOXED, epoch=1)).float()
    assert difference.mean() < 3
    assert difference.mean() < other_epoch.mean() / 8


def test_a_crop_is_pils_crop_of_the_drawn_box() -> None:
    images = noise(EXTENTS)
    uniform = BOXED.uniform(5, 0, torch.arange(len(images)))
    boxes = random_boxes(uniform[:, mix.DRAWS :], torch.tensor(EXTENTS), BOX.scale, BOX.ratio).tolist()
    expected = []
    for image, (top, left, height, width), draws in zip(images, boxes, uniform, strict=True):
        square = image.crop((left, top, left + width, top + height)).resize((14, 14), Image.Resampling.BICUBIC)
        if draws[mix.FLIP] < 0.5:
            square = square.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        expected.append(np.asarray(square).transpose(2, 0, 1))
    assert torch.equal(crops_of_images(images, BOXED), torch.from_numpy(np.stack(expected)))


@pytest.mark.parametrize("make", [crops_of_pixels, crops_of_images])
@pytest.mark.parametrize("crops", [BOXED, SHIFTED], ids=["boxes", "shifts"])
def test_images_are_mirrored_only_if_flip_is_on(crops: Crops, make: Callable[..., torch.Tensor]) -> None:
    dark_to_light = np.broadcast_to(np.linspace(0, 255, 14, dtype=np.uint8)[None, :, None], (14, 14, 3))
    images = [Image.fromarray(dark_to_light)] * 32
    unflipped = Crops(**{**vars(crops), "padding": 0, "flip": False})
    squares = make(images, unflipped)
    assert (squares[:, 0, 7, -1] > squares[:, 0, 7, 0]).all()
    squares = make(images, Crops(**{**vars(unflipped), "flip": True}))
    assert 0 < int((squares[:, 0, 7, -1] < squares[:, 0, 7, 0]).sum()) < 32


def test_erasing_and_shifting_draw_the_same_numbers_whether_or_not_boxes_are_drawn() -> None:
    chosen = torch.arange(7)
    boxed, shifted = (crops.uniform(5, 2, chosen) for crops in (BOXED, SHIFTED))
    assert torch.equal(boxed[:, : mix.DRAWS], shifted)
