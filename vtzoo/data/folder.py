"""Image files in folders: the only walker, and folders with one folder per class."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np

from vtzoo.base.wording import counted, few
from vtzoo.data.encoded_images import EncodedImages
from vtzoo.data.hub import library
from vtzoo.data.labelled_images import SPLITS, LabelledImages
from vtzoo.data.labels import class_name, single_label
from vtzoo.data.split import SPLIT_NAMES
from vtzoo.data.transform import SUFFIXES
from vtzoo.errors import VtzooError

ANY = ("",)  # suffix of every file
FOREIGN = (".arw", ".cr2", ".dng", ".heic", ".heif", ".jp2", ".jxl", ".nef", ".psd", ".svg")  # images vtzoo cannot read

Identity: TypeAlias = tuple[int, int]  # device, inode
Found: TypeAlias = tuple[str, VtzooError | None]  # a file's path and None, or an unreadable folder's path and its error


def walk(folder: str, suffixes: tuple[str, ...], above: tuple[Identity, ...] | None = None) -> Iterator[Found]:
    """The files with these suffixes in a folder and below, in the order of their names; hidden files are skipped.

    Links are followed, except to a folder above: so loops end, and a class folder yields only its own images.
    """
    try:
        here = _identity(folder)
        above = tuple(map(_identity, Path(folder).resolve().parents)) if above is None else above
        with os.scandir(folder) as entries:
            shown = [entry for entry in entries if not entry.name.startswith(".")]
            names = sorted((entry.name, Path(entry).is_dir()) for entry in shown)  # an endless link is no folder
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
    """The files that `walk` yields; an unreadable folder is a VtzooError."""
    files = []
    for path, error in walk(str(folder), suffixes):
        if error:
            raise error
        files.append(Path(path))
    return files


def visible(paths: Iterable[Path]) -> list[Path]:
    """The paths whose own name is not hidden, sorted."""
    return sorted(path for path in paths if not path.name.startswith("."))


def names_in(folder: Path, pattern: str) -> str:
    """A few names from a folder, for a message."""
    names = [path.name for path in visible(folder.glob(pattern))]
    return ", ".join(names[:5] + ["..."] * (len(names) > 5)) or "nothing"


def encoded_files(paths: list[str]) -> EncodedImages:
    """Image files, read on access."""
    hub = library()
    table = hub.Dataset.from_dict({"image": paths}, features=hub.Features({"image": hub.Image()}))
    return EncodedImages(stored=table.data.column("image"), positions=np.arange(len(paths)), origin=paths.__getitem__)


def read_folder(folder: Path) -> LabelledImages:
    """The images of a folder with one folder per class, which may lie in train/, val/ and test/.

    An image belongs to the class of the uppermost class folder above it. Other layouts are VtzooErrors.
    """
    parents, notes = _splits(folder)
    files, names, splits, foreign, undecodable = [], [], [], [], []
    for split, parent in parents:
        for class_folder in _folders(parent):
            below = files_below(class_folder)
            images = [str(file) for file in below if file.suffix.lower() in SUFFIXES and _is_text(file)]
            undecodable += [ascii(str(file)) for file in below if not _is_text(file)]
            foreign += [str(file) for file in below if file.suffix.lower() in FOREIGN]
            files += images
            names += [class_name(class_folder.name)] * len(images)
            splits += [split] * len(images)
            if not images:
                notes.append(f"{class_folder} holds no images and is not a class")
    if foreign:
        message = f"{counted(len(foreign), 'image')} in formats that vtzoo cannot read, {few(foreign)}"
        notes.append(f"{message}: convert them to JPEG or PNG, or they are left out")
    if undecodable:
        message = f"{counted(len(undecodable), 'file')} left out for names that are not UTF-8, {few(undecodable)}"
        notes.append(f"{message}: rename")
    _require_classes(folder, Counter(names))
    classes, targets = single_label(names)
    return LabelledImages(
        classes=classes, encoded=encoded_files(files), targets=targets, splits=np.array(splits, dtype=str),
        notes=(*notes, *_nested(folder, set(names))),
    )  # fmt: skip


def _splits(folder: Path) -> tuple[list[tuple[str, Path]], list[str]]:
    """The folders that contain class folders, each with its split, and notes of the images and folders left out.

    They are train/, val/ and test/, or the folder itself. A folder with a split's name that directly contains images is
    a class: pictures of trains, beside cars/ and ships/, are in a folder called train.
    """
    below = _folders(folder)
    inner = [path for path in below if path.name.lower() in SPLIT_NAMES and not _images(path) and _folders(path)]
    parents = [(SPLIT_NAMES[path.name.lower()], path) for path in inner] or [("train", folder)]
    notes = [
        f"{counted(len(loose), 'image')} of {parent} in no class folder, {few(loose)}: they are left out"
        for parent in [folder, *inner]
        if (loose := [file.name for file in _images(parent)])
    ]
    if inner and (others := [path.name for path in below if path not in inner]):
        notes.append(f"beside {few([path.name for path in inner])} there is also {few(others)} in {folder}: left out")
    return sorted(parents, key=lambda pair: (SPLITS.index(pair[0]), pair[1])), notes


def _require_classes(folder: Path, images: Counter[str]) -> None:
    """Raise unless class folders contain images; a single class folder beside a CSV is refused too."""
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
    """A note if the only class folder contains folders, as after unpacking an archive into a folder of its name."""
    inside = [path for name in names for path in _folders(folder / name)]
    if len(names) > 1 or len(inside) < 2:
        return []
    parent, classes = inside[0].parent, few([path.name for path in inside])
    return [f"{parent.name} is taken for one class: if {classes} are the classes, give {parent}"]


def _is_text(file: Path) -> bool:
    """Whether a file's name is UTF-8: names on disk are bytes, and Python marks other bytes as lone surrogates."""
    return not any("\ud800" <= letter <= "\udfff" for letter in str(file))


def _folders(folder: Path) -> list[Path]:
    return visible(path for path in folder.glob("*/") if path.is_dir())


def _images(folder: Path) -> list[Path]:
    """The images directly in a folder."""
    return visible(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
