"""Fixtures of small images, all different."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def photo() -> Callable[[], bytes]:
    """Returns a new PNG image at each call."""

    def images() -> Iterator[bytes]:
        random = np.random.default_rng(0)
        while True:
            stream = io.BytesIO()
            Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(stream, "PNG")
            yield stream.getvalue()

    return images().__next__


@pytest.fixture
def write(tmp_path: Path, photo: Callable[[], bytes]) -> Callable[..., Path]:
    """Writes the given number of images into each named folder, such as train/cat, and returns the root folder."""

    def write(counts: dict[str, int], root: Path = tmp_path) -> Path:
        for name, count in counts.items():
            (root / name).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                (root / name / f"{number}.png").write_bytes(photo())
        return root

    return write
