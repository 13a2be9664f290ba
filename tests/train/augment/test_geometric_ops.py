"""Each geometric operation against Pillow's, which timm calls, image by image.

Ours interpolates in 32 bits and Pillow in 64, and both truncate: fewer than one value in a hundred differs, by one
level.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import auto_augment as timms

from vtzoo.train.augment import geometric_ops

PHOTOS = sorted((Path(__file__).parents[2] / "photos").glob("*.jpg"))
FILL = (124, 116, 3)
CHANGES = {
    "rotate": (geometric_ops.rotate, timms.rotate, [-30, -27.3, -8.1, 0, 0.5, 15, 27, 30, 45]),
    "shear_x": (geometric_ops.shear_x, timms.shear_x, [-0.3, -0.27, -0.01, 0, 0.1, 0.25, 0.3]),
    "shear_y": (geometric_ops.shear_y, timms.shear_y, [-0.3, -0.27, -0.01, 0, 0.1, 0.25, 0.3]),
    "translate_x": (geometric_ops.translate_x, timms.translate_x_rel, [-0.45, -0.4, -0.125, 0, 0.031, 0.25, 0.45, 1.0]),
    "translate_y": (geometric_ops.translate_y, timms.translate_y_rel, [-0.45, -0.4, -0.125, 0, 0.031, 0.25, 0.45, 1.0]),
}


def sources(height: int, width: int) -> torch.Tensor:
    """Four photographs, a plain image and two noise images."""
    photos = [Image.open(path).convert("RGB").resize((width, height)) for path in PHOTOS]
    random = np.random.default_rng(0)
    arrays = [np.asarray(photo).transpose(2, 0, 1) for photo in photos]
    noise = random.integers(0, 256, (2, 3, height, width))
    plain = np.full((1, 3, height, width), 77)
    return torch.from_numpy(np.concatenate([np.stack(arrays), plain, noise]).astype(np.uint8))


def equal_amounts(amount: float, count: int = 7) -> torch.Tensor:
    return torch.full((count,), amount, dtype=torch.float64)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3), (32, 32), (31, 44), (224, 224)])
@pytest.mark.parametrize("name", CHANGES)
def test_a_warp_is_pillows(name: str, height: int, width: int) -> None:
    change, reference, amounts = CHANGES[name]
    images = sources(height, width)
    for amount in amounts:
        pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
        options = {"resample": Image.Resampling.BICUBIC, "fillcolor": FILL}
        expected = [np.asarray(reference(picture, amount, **options)).transpose(2, 0, 1) for picture in pictures]
        error = np.abs(change(images, equal_amounts(amount), FILL).numpy() - np.stack(expected).astype(int))
        assert error.max() <= 1
        assert error.mean() < 0.01


@pytest.mark.parametrize("name", CHANGES)
def test_pixels_from_outside_the_image_have_the_fill_colour(name: str) -> None:
    change, _, amounts = CHANGES[name]
    white = torch.full((1, 3, 32, 32), 255, dtype=torch.uint8)
    colours = change(white, equal_amounts(amounts[1], 1), FILL)[0].flatten(1).T.unique(dim=0)
    assert colours.tolist() == [list(FILL), [255] * 3]


@pytest.mark.parametrize("name", CHANGES)
def test_an_amount_of_zero_changes_nothing(name: str) -> None:
    images = sources(31, 44)
    assert torch.equal(CHANGES[name][0](images, equal_amounts(0.0), FILL), images)


@pytest.mark.parametrize("chunk", [1, 2**22])
@pytest.mark.parametrize("name", CHANGES)
def test_each_image_is_warped_by_its_own_amount_alone(name: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geometric_ops, "levels_at_once", lambda _: chunk)
    change, _, amounts = CHANGES[name]
    images, amounts = sources(32, 32), torch.tensor(amounts[:7], dtype=torch.float64)
    before = images.clone()
    alone = [change(image[None], amount[None], FILL) for image, amount in zip(images, amounts, strict=True)]
    assert torch.equal(change(images, amounts, FILL), torch.cat(alone))
    assert torch.equal(images, before)
