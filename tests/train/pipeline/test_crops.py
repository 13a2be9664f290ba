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
BOXED = Crops(size=14, padding=0, box=BOX, flip=True)  # out of images with a shorter side of 16 at most
SHIFTED = Crops(size=14, padding=3, box=None, flip=True)
EXTENTS = [(16, 16), (16, 31), (20, 7), (3, 5), (32, 16), (9, 12)]  # within the limit


def noise(extents: list[tuple[int, int]]) -> list[Image.Image]:
    """Noise of medium levels: if resizing overshoots 0 or 255, the order of Pillow's two passes matters."""
    random = np.random.default_rng(4)
    return [Image.fromarray(random.integers(80, 176, (*extent, 3), dtype=np.uint8)) for extent in extents]


def scene(height: int, width: int) -> Image.Image:
    """Large soft shapes, which look the same at any resolution."""
    random = np.random.default_rng(height)
    coarse = Image.fromarray(random.integers(0, 256, (7, 7, 3), dtype=np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


def stored(images: list[Image.Image], crops: Crops) -> Pixels:
    pixels = [crops.storage.pixels(image) for image in images]
    extents = torch.tensor([one.shape[1:] for one in pixels])
    return Pixels(torch.from_numpy(np.concatenate([one.ravel() for one in pixels])), extents, CPU)


def out_of_pixels(images: list[Image.Image], crops: Crops, epoch: int = 0) -> torch.Tensor:
    chosen = torch.arange(len(images))
    return crops.of_pixels(stored(images, crops), chosen, crops.uniform(5, epoch, chosen))


def out_of_images(images: list[Image.Image], crops: Crops, epoch: int = 0) -> torch.Tensor:
    uniform = crops.uniform(5, epoch, torch.arange(len(images)))
    single = [crops.of_image(image, uniform[number : number + 1]) for number, image in enumerate(images)]
    return crops.finish(torch.from_numpy(np.stack(single)), uniform)


def apart(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return (one.int() - other.int()).abs()


def test_crops_of_224_pixels_come_out_of_images_of_256() -> None:
    assert Crops(size=224, padding=0, box=BOX, flip=True).storage == WholeImage(side=256)
    assert Crops(size=224, padding=4, box=None, flip=True).storage == CenterSquare(side=224)


@pytest.mark.parametrize("epoch", range(5))
def test_boxes_give_the_same_crops_of_stored_pixels_and_of_images_to_two_levels_of_255(epoch: int) -> None:
    images = noise(EXTENTS)
    difference = apart(out_of_pixels(images, BOXED, epoch), out_of_images(images, BOXED, epoch))
    assert difference.max() <= 2  # of rounding, once a side


@pytest.mark.parametrize("extents", [EXTENTS, [(100, 80), (14, 14), (40, 900)]])
def test_shifts_give_the_same_crops_of_stored_pixels_and_of_images_bit_for_bit(extents: list[tuple[int, int]]) -> None:
    images = noise(extents)
    assert torch.equal(out_of_pixels(images, SHIFTED), out_of_images(images, SHIFTED))


@pytest.mark.parametrize("extent", [(160, 240), (400, 90), (1000, 100), (60, 500)])
def test_of_images_beyond_the_limit_both_show_the_same_region(extent: tuple[int, int]) -> None:
    images = [scene(*extent)] * 40  # forty boxes of one image
    difference = apart(out_of_pixels(images, BOXED), out_of_images(images, BOXED)).float()
    others = apart(out_of_pixels(images, BOXED), out_of_images(images, BOXED, epoch=1)).float()
    assert difference.mean() < 3
    assert difference.mean() < others.mean() / 8


def test_a_crop_is_what_pil_makes_of_the_drawn_box() -> None:
    images = noise(EXTENTS)
    uniform = BOXED.uniform(5, 0, torch.arange(len(images)))
    boxes = random_boxes(uniform[:, mix.DRAWS :], torch.tensor(EXTENTS), BOX.scale, BOX.ratio).tolist()
    expected = []
    for image, (top, left, height, width), numbers in zip(images, boxes, uniform, strict=True):
        square = image.crop((left, top, left + width, top + height)).resize((14, 14), Image.Resampling.BICUBIC)
        if numbers[mix.FLIP] < 0.5:
            square = square.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        expected.append(np.asarray(square).transpose(2, 0, 1))
    assert torch.equal(out_of_images(images, BOXED), torch.from_numpy(np.stack(expected)))


@pytest.mark.parametrize("make", [out_of_pixels, out_of_images])
@pytest.mark.parametrize("crops", [BOXED, SHIFTED], ids=["boxes", "shifts"])
def test_what_may_not_be_mirrored_is_not(crops: Crops, make: Callable[..., torch.Tensor]) -> None:
    dark_to_light = np.broadcast_to(np.linspace(0, 255, 14, dtype=np.uint8)[None, :, None], (14, 14, 3))
    images = [Image.fromarray(dark_to_light)] * 32
    still = Crops(**{**vars(crops), "padding": 0, "flip": False})
    squares = make(images, still)
    assert (squares[:, 0, 7, -1] > squares[:, 0, 7, 0]).all()
    squares = make(images, Crops(**{**vars(still), "flip": True}))
    assert 0 < int((squares[:, 0, 7, -1] < squares[:, 0, 7, 0]).sum()) < 32


def test_erasing_and_shifting_draw_the_same_numbers_whether_or_not_boxes_are_drawn() -> None:
    chosen = torch.arange(7)
    boxed, shifted = (crops.uniform(5, 2, chosen) for crops in (BOXED, SHIFTED))
    assert torch.equal(boxed[:, : mix.DRAWS], shifted)
