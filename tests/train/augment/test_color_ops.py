"""Each color operation against Pillow's, which timm calls, image by image."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import auto_augment as timms
from torchvision.transforms import functional

from vtzoo.train.augment import color_ops

PHOTOS = sorted((Path(__file__).parents[2] / "photos").glob("*.jpg"))
Change = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Reference = Callable[[Image.Image], Image.Image]
FACTORS = [0.0, 0.1, 0.19, 0.5, 0.999, 1.0, 1.1, 1.5, 1.9, 3.0]


def sources(size: int) -> torch.Tensor:
    """Four photographs, the same four with low contrast, two plain images, three with two levels, and two of noise."""
    photos = [Image.open(path).convert("RGB").resize((size, size)) for path in PHOTOS]
    bright = np.stack([np.asarray(photo).transpose(2, 0, 1) for photo in photos])
    plain = np.stack([np.full((3, size, size), level) for level in (0, 77)])
    random = np.random.default_rng(0)
    binary = np.stack([random.choice(pair, (3, size, size)) for pair in ((0, 1), (9, 255), (254, 255))])
    noise = random.integers(0, 256, (2, 3, size, size))
    return torch.from_numpy(np.concatenate([bright, bright // 5 + 40, plain, binary, noise]).astype(np.uint8))


def picture(pixels: torch.Tensor) -> Image.Image:
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def differences(change: Change, reference: Reference, size: int, amount: float) -> np.ndarray:
    """The absolute differences, in levels, of an operation's images from its reference's, at the same amount."""
    images = sources(size)
    amounts = torch.full((len(images),), amount, dtype=torch.float64)
    changed = change(images, amounts).numpy().astype(int)
    expected = np.stack([np.asarray(reference(picture(image))).transpose(2, 0, 1) for image in images])
    return np.abs(changed - expected)


@pytest.mark.parametrize("size", [1, 2, 32, 224])
@pytest.mark.parametrize("name", ["auto_contrast", "equalize", "invert"])
def test_an_operation_without_an_amount_is_pillows(name: str, size: int) -> None:
    assert differences(getattr(color_ops, name), getattr(timms, name), size, 0.0).max() == 0


@pytest.mark.parametrize("size", [32, 224])
@pytest.mark.parametrize(
    ("name", "amount"),
    [
        *(("posterize", bits) for bits in range(1, 9)),
        *(("solarize", threshold) for threshold in (0, 1, 26, 128, 255, 256)),
        *(("solarize_add", addend) for addend in (0, 1, 55, 99, 110, 128)),
    ],
)
def test_an_operation_with_integer_amounts_is_pillows(name: str, amount: int, size: int) -> None:
    reference = getattr(timms, name)
    assert differences(getattr(color_ops, name), lambda image: reference(image, amount), size, amount).max() == 0


@pytest.mark.parametrize("size", [1, 2, 3, 32, 224])
@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("name", ["brightness", "contrast", "color", "sharpness"])
def test_a_blend_is_pillows(name: str, factor: float, size: int) -> None:
    """Results are equal if Pillow's compiler multiplies and adds in two steps, as on x86; else a level may differ."""
    error = differences(getattr(color_ops, name), lambda image: getattr(timms, name)(image, factor), size, factor)
    assert error.max() <= 1
    assert error.mean() < 0.001


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_an_adjustment_is_torchvisions_on_pil_images(name: str, factor: float) -> None:
    change, adjust = getattr(color_ops, name.replace("saturation", "color")), getattr(functional, f"adjust_{name}")
    error = differences(change, lambda image: adjust(image, factor), 32, factor)
    assert error.max() <= 1
    assert error.mean() < 0.001


@pytest.mark.parametrize(
    ("change", "amounts"),
    [
        (color_ops.auto_contrast, torch.zeros(15)),
        (color_ops.equalize, torch.zeros(15)),
        (color_ops.posterize, torch.arange(15.0) % 8 + 1),
        (color_ops.solarize, torch.arange(15.0) * 18),
        (color_ops.solarize_add, torch.arange(15.0) * 9),
        (color_ops.brightness, torch.linspace(0.1, 1.9, 15)),
        (color_ops.contrast, torch.linspace(0.1, 1.9, 15)),
        (color_ops.color, torch.linspace(0.1, 1.9, 15)),
        (color_ops.sharpness, torch.linspace(0.1, 1.9, 15)),
    ],
)
def test_each_image_is_changed_by_its_own_amount_alone(change: Change, amounts: torch.Tensor) -> None:
    images = sources(33)
    before = images.clone()
    alone = [change(image[None], amount[None]) for image, amount in zip(images, amounts, strict=True)]
    assert torch.equal(change(images, amounts), torch.cat(alone))
    assert torch.equal(images, before)
