"""People's own images: what is read, and how it is split."""

from pathlib import Path

import numpy as np
from PIL import Image

from vtzoo import collection


def write_folder(root: Path, **classes: int) -> Path:
    """A folder with a folder a class, and as many images in each: no two alike."""
    random = np.random.default_rng(0)
    for name, count in classes.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(root / name / f"{number}.png")
    return root


def test_ten_images_in_two_folders_are_split_with_an_image_of_each_class_held_out(tmp_path: Path) -> None:
    found = collection.read(write_folder(tmp_path / "My Pets", cat=5, dog=5))
    assert (found.name, found.classes, found.multi) == ("my_pets", ("cat", "dog"), False)
    assert np.bincount(found.train.targets).tolist() == [4, 4]
    assert np.bincount(found.held.targets).tolist() == [1, 1]
