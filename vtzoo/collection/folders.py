"""A folder with a folder a class, with or without train/, val/ and test/ above."""

from pathlib import Path

import numpy as np

from vtzoo.collection.found import PART_NAMES, TRAIN, Found, class_name, in_order, of_files
from vtzoo.splits import image_files, visible


def find(folder: Path) -> Found:
    """The images of a folder; an image belongs to the class of the first folder on its way, however deep it lies."""
    files, names, parts = [], [], []
    for part, above in _parts(folder):
        for class_folder in visible(above.glob("*/")):
            images = image_files(class_folder)
            files += [str(image) for image in images]
            names += [class_name(class_folder.name)] * len(images)
            parts += [part] * len(images)
    classes = in_order(names)
    numbers = {name: number for number, name in enumerate(classes)}
    targets = np.array([numbers[name] for name in names], dtype=np.int64)
    return Found(classes=classes, rows=of_files(files), targets=targets, parts=np.array(parts, dtype=np.int8))


def _parts(folder: Path) -> list[tuple[int, Path]]:
    """The folders that hold class folders, each with the part it stands for: the folder itself, or train/, val/..."""
    named = [
        (PART_NAMES[below.name.lower()], below) for below in visible(folder.glob("*/")) if below.name in PART_NAMES
    ]
    return named or [(TRAIN, folder)]
