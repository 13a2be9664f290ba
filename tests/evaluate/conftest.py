"""Images whose brightness encodes their class, and a model that decodes it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vtzoo.data.transform import Preprocess

STEP = 16  # of brightness, from a class to the next


class Sees:
    """A classifier that predicts the class of an image's brightness, or with multi-label the classes of its colours."""

    preprocess = Preprocess(size=8, interpolation="bicubic", crop=1.0)

    def __init__(self, *labels: str, multi: bool = False, sure: float = 0.7) -> None:
        self.labels, self.multi_label, self.sure = labels, multi, sure

    def __call__(self, images: Any) -> np.ndarray:
        classes = len(self.labels)
        if self.multi_label:  # the first classes are as probable as the image is red, green and blue
            return (images[:, :classes, 0, 0] / 255).astype(np.float32)
        answers = np.full((len(images), classes), (1 - self.sure) / max(classes - 1, 1), np.float32)
        answers[np.arange(len(images)), images[:, 0, 0, 0] // STEP] = self.sure
        return answers


@pytest.fixture
def sees() -> type[Sees]:
    return Sees


@pytest.fixture
def paint(tmp_path: Path) -> Callable[..., Path]:
    """Writes an image of a class number or of a colour; all files differ."""
    random = np.random.default_rng(0)

    def paint(name: str, seen: int | tuple[int, int, int]) -> Path:
        pixels = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        pixels[0, 0] = seen * STEP if isinstance(seen, int) else seen
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        return path

    return paint


@pytest.fixture
def photos(tmp_path: Path, paint: Callable[..., Path]) -> Callable[..., Path]:
    """Writes one folder per name, with an image for each class that the model predicts in it."""

    def photos(above: str = "photos", **folders: list[int]) -> Path:
        for name, seen in folders.items():
            for number, one in enumerate(seen):
                paint(f"{above}/{name}/{number}.png", one)
        return tmp_path / above

    return photos
