"""A folder with a folder a class, with or without train/, val/ and test/ above."""

from collections import Counter
from pathlib import Path

import numpy as np

from vtzoo.data.found import PART_NAMES, TRAIN, Found, class_name, counted, few, in_order, of_files
from vtzoo.data.named_reader import files_below, names_in, visible
from vtzoo.data.transform import SUFFIXES
from vtzoo.errors import VtzooError

FOREIGN = (".arw", ".cr2", ".dng", ".heic", ".heif", ".jp2", ".jxl", ".nef", ".psd", ".svg")  # images, but not to us


def find(folder: Path) -> Found:
    """The images of a folder; an image belongs to the class of the first folder on its way, however deep it lies."""
    above, notes = _parts(folder)
    files, names, parts, foreign, nameless = [], [], [], [], []
    for part, inside in above:
        for class_folder in _folders(inside):
            below = files_below(class_folder)
            images = [str(file) for file in below if file.suffix.lower() in SUFFIXES and _is_text(file)]
            nameless += [ascii(str(file)) for file in below if not _is_text(file)]
            foreign += [str(file) for file in below if file.suffix.lower() in FOREIGN]
            files += images
            names += [class_name(class_folder.name)] * len(images)
            parts += [part] * len(images)
            if not images:
                notes.append(f"{class_folder} holds no images: it is no class")
    if foreign:
        told = f"{counted(len(foreign), 'image')} of kinds that are not read here"
        notes.append(f"{told}, {few(foreign)}: convert them to JPEG or PNG, or they are left out")
    if nameless:
        notes.append(f"{counted(len(nameless), 'file')} left out for names that are not UTF-8, {few(nameless)}: rename")
    _require_classes(folder, Counter(names))
    notes += _nested(folder, set(names))
    classes = in_order(names)
    numbers = {name: number for number, name in enumerate(classes)}
    targets = np.array([numbers[name] for name in names], dtype=np.int64)
    return Found(
        classes=classes,
        rows=of_files(files),
        targets=targets,
        parts=np.array(parts, dtype=np.int8),
        notes=tuple(notes),
    )


def _parts(folder: Path) -> tuple[list[tuple[int, Path]], list[str]]:
    """The folders that hold class folders, each with the part it stands for, and notes of what is left out.

    They are train/, val/ and test/, or the folder itself. One of these names with images in it is a class: trains,
    among cars and ships, come in a folder called train.
    """
    below = _folders(folder)
    split = [one for one in below if one.name.lower() in PART_NAMES and not _images(one) and _folders(one)]
    found = [(PART_NAMES[one.name.lower()], one) for one in split] or [(TRAIN, folder)]
    notes = [
        f"{counted(len(loose), 'image')} of {inside} in no class folder, {few(loose)}: they are left out"
        for inside in [folder, *split]
        if (loose := [file.name for file in _images(inside)])
    ]
    if split and (others := [one.name for one in below if one not in split]):
        notes.append(f"beside {few([one.name for one in split])} there is also {few(others)} in {folder}: left out")
    return sorted(found), notes


def _require_classes(folder: Path, images: Counter[str]) -> None:
    """Raise unless there are folders with images, and they stand for classes; one beside a CSV hardly does."""
    tables = visible(folder.glob("*.csv"))
    hint = f"put the images of each class into a folder of their own: {folder / 'CLASS' / 'image.jpg'}"
    if tables:
        hint = f"give the file of the labels instead: --data {tables[0]}"
    if not images:
        raise VtzooError(f"no images in class folders in {folder}", f"it has {names_in(folder, '*')}; {hint}")
    if all(name.lower() in PART_NAMES for name in images):
        raise VtzooError(f"the images in {folder} lie in {few(list(images))}, and in no class folders there", hint)
    if len(images) == 1 and tables:
        raise VtzooError(f"all the images in {folder} are of one class, {next(iter(images))!r}", hint)


def _nested(folder: Path, names: set[str]) -> list[str]:
    """A note where one class alone has folders in it, as where an archive was unpacked into a folder of its name."""
    inside = [one for name in names for one in _folders(folder / name)]
    if len(names) > 1 or len(inside) < 2:
        return []
    above = inside[0].parent
    return [
        f"{above.name} is taken for one class: if {few([one.name for one in inside])} are the classes, give {above}"
    ]


def _is_text(file: Path) -> bool:
    """Whether a file's name can be written down: names on disk are bytes, and these may be no UTF-8."""
    return not any("\ud800" <= letter <= "\udfff" for letter in str(file))


def _folders(folder: Path) -> list[Path]:
    return visible(path for path in folder.glob("*/") if path.is_dir())


def _images(folder: Path) -> list[Path]:
    """The images in a folder itself."""
    return visible(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
