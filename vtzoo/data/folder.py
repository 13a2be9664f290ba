"""Image files in folders: `walk` finds the files, `read_folder` reads a folder with a folder a class."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np

from vtzoo.base.wording import counted, few
from vtzoo.data.encoded_images import EncodedImages
from vtzoo.data.hub import library
from vtzoo.data.labelled_images import LabelledImages
from vtzoo.data.labels import class_name, single_label
from vtzoo.data.split import SPLIT_NAMES
from vtzoo.data.transform import SUFFIXES
from vtzoo.errors import VtzooError

ANY = ("",)  # suffix of every file
FOREIGN = (".arw", ".cr2", ".dng", ".heic", ".heif", ".jp2", ".jxl", ".nef", ".psd", ".svg")  # not decoded here

Identity: TypeAlias = tuple[int, int]  # device, inode
Found: TypeAlias = tuple[str, VtzooError | None]  # a file's path; or an unreadable folder's path and its error


def walk(folder: str, suffixes: tuple[str, ...], above: tuple[Identity, ...] | None = None) -> Iterator[Found]:
    """The files with these suffixes in a folder and below, sorted by name, without hidden files.

    Links are followed, except to a folder above, so that loops end and a class folder has only its own images.
    """
    try:
        here = _identity(folder)
        above = tuple(map(_identity, Path(folder).resolve().parents)) if above is None else above
        with os.scandir(folder) as entries:
            shown = [entry for entry in entries if not entry.name.startswith(".")]
            names = sorted((entry.name, Path(entry).is_dir()) for entry in shown)  # False for an endless link
    except OSError as error:
        yield folder, VtzooError(f"cannot read the folder {folder!r}: {error.strerror}", "make it readable")
        return
    for name, is_folder in names if here not in above else ():
        path = os.path.join(folder, name)  # noqa: PTH118 (Path would drop a leading "./")
        if is_folder:
            yield from walk(path, suffixes, (*above, here))
        elif name.lower().endswith(suffixes):
            yield path, None


def _identity(folder: str | Path) -> Identity:
    status = os.stat(folder)  # noqa: PTH116
    return status.st_dev, status.st_ino


def files_below(folder: Path, suffixes: tuple[str, ...] = ANY) -> list[Path]:
    """The files that `walk` finds; an unreadable folder is a VtzooError."""
    found = []
    for path, error in walk(str(folder), suffixes):
        if error:
            raise error
        found.append(Path(path))
    return found


def visible(paths: Iterable[Path]) -> list[Path]:
    """The paths without a hidden name, sorted."""
    return sorted(path for path in paths if not path.name.startswith("."))


def names_in(folder: Path, pattern: str) -> str:
    """A few names of the files in a folder, for a message."""
    names = [path.name for path in visible(folder.glob(pattern))]
    return ", ".join(names[:5] + ["..."] * (len(names) > 5)) or "nothing"


def encoded_files(paths: list[str]) -> EncodedImages:
    """Image files, read on access."""
    hub = library()
    table = hub.Dataset.from_dict({"image": paths}, features=hub.Features({"image": hub.Image()}))
    return EncodedImages(stored=table.data.column("image"), positions=np.arange(len(paths)), origin=paths.__getitem__)


def read_folder(folder: Path) -> LabelledImages:
    """The images of a folder with a folder a class, with or without train/, val/ and test/ above.

    The first folder below those is the class of an image, at any depth.
    """
    above, notes = _splits(folder)
    files, names, splits, foreign, nameless = [], [], [], [], []
    for split, inside in above:
        for class_folder in _folders(inside):
            below = files_below(class_folder)
            images = [str(file) for file in below if file.suffix.lower() in SUFFIXES and _is_text(file)]
            nameless += [ascii(str(file)) for file in below if not _is_text(file)]
            foreign += [str(file) for file in below if file.suffix.lower() in FOREIGN]
            files += images
            names += [class_name(class_folder.name)] * len(images)
            splits += [split] * len(images)
            if not images:
                notes.append(f"{class_folder} holds no images: it is no class")
    if foreign:
        message = f"{counted(len(foreign), 'image')} of kinds that are not read here"
        notes.append(f"{message}, {few(foreign)}: convert them to JPEG or PNG, or they are left out")
    if nameless:
        notes.append(f"{counted(len(nameless), 'file')} left out for names that are not UTF-8, {few(nameless)}: rename")
    _require_classes(folder, Counter(names))
    classes, targets = single_label(names)
    return LabelledImages(
        classes=classes, encoded=encoded_files(files), targets=targets, splits=np.array(splits, dtype=str),
        notes=(*notes, *_nested(folder, set(names))),
    )  # fmt: skip


def _splits(folder: Path) -> tuple[list[tuple[str, Path]], list[str]]:
    """The folders of class folders, each with its split, and notes about files that are left out.

    They are train/, val/ and test/, or the folder itself. A folder called train with images in it is a class, as of
    trains among cars and ships.
    """
    below = _folders(folder)
    split = [one for one in below if one.name.lower() in SPLIT_NAMES and not _images(one) and _folders(one)]
    found = [(SPLIT_NAMES[one.name.lower()], one) for one in split] or [("train", folder)]
    notes = [
        f"{counted(len(loose), 'image')} of {inside} in no class folder, {few(loose)}: they are left out"
        for inside in [folder, *split]
        if (loose := [file.name for file in _images(inside)])
    ]
    if split and (others := [one.name for one in below if one not in split]):
        notes.append(f"beside {few([one.name for one in split])} there is also {few(others)} in {folder}: left out")
    return sorted(found, key=lambda pair: (("train", "val", "test").index(pair[0]), pair[1])), notes


def _require_classes(folder: Path, images: Counter[str]) -> None:
    """Raise a VtzooError without plausible class folders; a single class beside a CSV is implausible."""
    tables = visible(folder.glob("*.csv"))
    hint = f"put the images of each class into a folder of their own: {folder / 'CLASS' / 'image.jpg'}"
    if tables:
        hint = f"give the file of the labels instead: --data {tables[0]}"
    if not images:
        raise VtzooError(f"no images in class folders in {folder}", f"it has {names_in(folder, '*')}; {hint}")
    if all(name.lower() in SPLIT_NAMES for name in images):
        raise VtzooError(f"the images in {folder} lie in {few(list(images))}, and in no class folders there", hint)
    if len(images) == 1 and tables:
        raise VtzooError(f"all the images in {folder} are of one class, {next(iter(images))!r}", hint)


def _nested(folder: Path, names: set[str]) -> list[str]:
    """A note if the only class has folders in it, as after unpacking an archive into a folder of its name."""
    inside = [one for name in names for one in _folders(folder / name)]
    if len(names) > 1 or len(inside) < 2:
        return []
    above = inside[0].parent
    return [
        f"{above.name} is taken for one class: if {few([one.name for one in inside])} are the classes, give {above}"
    ]


def _is_text(file: Path) -> bool:
    """Whether a file's name is valid text: names on disk are bytes, not always UTF-8."""
    return not any("\ud800" <= letter <= "\udfff" for letter in str(file))


def _folders(folder: Path) -> list[Path]:
    return visible(path for path in folder.glob("*/") if path.is_dir())


def _images(folder: Path) -> list[Path]:
    """The images in a folder itself."""
    return visible(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
