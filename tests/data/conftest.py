"""Small images to read, no two alike."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def photo() -> Callable[[], bytes]:
    """Another image with every call, as PNG."""

    def images() -> Iterator[bytes]:
        random = np.random.default_rng(0)
        while True:
            stream = io.BytesIO()
            Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(stream, "PNG")
            yield stream.getvalue()

    return images().__next__


@pytest.fixture
def write(tmp_path: Path, photo: Callable[[], bytes]) -> Callable[..., Path]:
    """Writes a number of images into each named folder, such as train/cat, and returns the folder above."""

    def write(counts: dict[str, int], above: Path = tmp_path) -> Path:
        for name, count in counts.items():
            (above / name).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                (above / name / f"{number}.png").write_bytes(photo())
        return above

    return write
