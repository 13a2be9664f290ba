"""What is said of people's images before anything is trained on them, and what is left out."""

from collections.abc import Callable
from hashlib import sha256

import numpy as np
from PIL import Image

from vtzoo.data import labels
from vtzoo.data.decoding import Rows, in_threads
from vtzoo.data.found import HELD, TEST, TRAIN, Found, counted, few
from vtzoo.errors import VtzooError

PARTS = {TRAIN: "train", HELD: "validation", TEST: "test"}


def usable(found: Found, where: object) -> tuple[Found, np.ndarray]:
    """What has a label and begins as an image does, with notes of the rest; and the sizes in bytes, int64 (n,)."""
    known = labels.known(found.targets)
    found = _keep(found, known, "has no label", "have no label", "an empty cell is unknown")
    sizes, images = _glance(found.rows)
    found = _keep(found, images, "is no image", "are no images", "replace them or delete them")
    if not len(found.rows):
        raise VtzooError(f"no labelled images that can be read in {where}", "; ".join(found.notes) or None)
    return found, sizes[images]


def find_copies(rows: Rows, sizes: np.ndarray) -> np.ndarray:
    """A number that images of the same content share, int64 (n,); -1 where no other image is the same.

    Only files of the same size, in bytes, are read.
    """
    _, inverse, counts = np.unique(sizes, return_inverse=True, return_counts=True)
    suspects = np.flatnonzero(counts[inverse] > 1)
    hashed = in_threads(lambda number: sha256(rows.content(int(suspects[number])) or b"").digest(), len(suspects))
    groups: dict[bytes, list[int]] = {}
    for index, digest in zip(suspects, (one for some in hashed for one in some), strict=True):
        groups.setdefault(digest, []).append(int(index))
    copies = np.full(len(rows), -1, dtype=np.int64)
    for number, group in enumerate(group for group in groups.values() if len(group) > 1):
        copies[group] = number
    return copies


def separate(found: Found, copies: np.ndarray) -> tuple[Found, np.ndarray]:
    """What is left where no image is in two parts, and its copies.

    Train loses what validation or test has too, and validation what test has: what remains of them stays honest.
    """
    last = np.full(copies.max(initial=-1) + 1, TRAIN)
    np.maximum.at(last, copies[copies >= 0], found.parts[copies >= 0])
    twice = copies >= 0
    twice[twice] = found.parts[twice] < last[copies[twice]]
    notes = []
    for part, others in ((TRAIN, "validation or test"), (HELD, "test")):
        lost = np.flatnonzero(twice & (found.parts == part))
        if len(lost):
            group = copies[lost[0]]
            other = np.flatnonzero((copies == group) & (found.parts == last[group]))[0]
            pair = f"{found.rows.name(int(lost[0]))} is {found.rows.name(int(other))}"
            told = f"{counted(len(lost), 'image')} of {PARTS[part]} {'is' if len(lost) == 1 else 'are'}"
            notes.append(f"{told} in {others} too, as {pair}: left out of {PARTS[part]}")
    return found.select(np.flatnonzero(~twice), *notes), copies[~twice]


def mislabelled(found: Found, copies: np.ndarray) -> list[str]:
    """A note of the images that are there more than once with labels that differ."""
    told = []
    order = np.argsort(copies, kind="stable")[np.count_nonzero(copies < 0) :]
    for group in np.split(order, np.flatnonzero(np.diff(copies[order])) + 1):
        for other in group[1:]:
            if not np.array_equal(found.targets[group[0]], found.targets[other], equal_nan=True):
                told.append(f"{_labelled(found, int(group[0]))} and {_labelled(found, int(other))}")
                break
    if not told:
        return []
    return [f"the same image has different labels: {few(told)}: correct one, or delete it"]


def classes(found: Found, where: object) -> tuple[str, ...]:
    """Notes of classes with one training image or none; what cannot be learnt from is an error.

    That is no training image, one class alone, or a class of validation or test that train lacks.
    """
    counts = {part: images_a_class(found.targets[found.parts == part], len(found.classes)) for part in PARTS}
    training = counts[TRAIN]
    if not np.any(found.parts == TRAIN):
        hint = "put some into a folder train/, or call their split train"
        raise VtzooError(f"no training images in {where}", "; ".join((*found.notes, hint)))
    for part in (HELD, TEST):
        if strange := _names(found, (counts[part] > 0) & (training == 0)):
            told = f"{PARTS[part]} has {counted(len(strange), 'class', 'classes')} that train lacks: {few(strange)}"
            raise VtzooError(told, f"add images of them to train, or remove them from {PARTS[part]} in {where}")
    present = _names(found, training > 0)
    if len(present) < 2:
        told = f"of one class, {present[0]!r}" if present else "of no class"
        raise VtzooError(
            f"all the training images in {where} are {told}",
            "; ".join((*found.notes, "add images of another class: there is nothing to tell apart")),
        )
    notes = []
    if single := _names(found, training == 1):
        told = f"{counted(len(single), 'class has', 'classes have')} one training image, and none to validate on"
        notes.append(f"{told}: {few(single)}; add images of them")
    if empty := _names(found, training == 0):
        told = f"{counted(len(empty), 'class has', 'classes have')} no training images"
        notes.append(f"{told}, and {'is' if len(empty) == 1 else 'are'} never learnt: {few(empty)}")
    return tuple(notes)


def images_a_class(targets: np.ndarray, classes: int) -> np.ndarray:
    """How many of the images have each class, int64 (classes,)."""
    return np.bincount(targets, minlength=classes) if targets.ndim == 1 else np.count_nonzero(targets == 1, axis=0)


def _keep(found: Found, good: np.ndarray, one: str, several: str, hint: str) -> Found:
    """The images that are good, with a note of the others."""
    bad = np.flatnonzero(~good)
    if not len(bad):
        return found
    told = f"{counted(len(bad), 'image')} {one if len(bad) == 1 else several}: {few(_row_names(found.rows, bad))}"
    return found.select(np.flatnonzero(good), f"{told}; left out ({hint})")


def _glance(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """The sizes of the images in bytes, int64 (n,), and which of them begin as one of the kinds that Pillow reads."""
    Image.init()
    accepts = [accept for _, accept in Image.OPEN.values() if accept is not None]
    glances = [rows.glance(index) for index in range(len(rows))]
    images = [_is_image(head, accepts) for _, head in glances]
    return np.array([size for size, _ in glances], dtype=np.int64), np.array(images, dtype=bool)


def _is_image(head: bytes, accepts: list[Callable]) -> bool:
    """Whether one of Pillow's readers takes it; one that would, but lacks a library here, answers with a text."""
    return bool(head) and any((told := accept(head)) and not isinstance(told, str) for accept in accepts)


def _row_names(rows: Rows, indices: np.ndarray) -> list[str]:
    return [rows.name(int(index)) for index in indices]


def _labelled(found: Found, index: int) -> str:
    """An image's name and, where it has one class, its class."""
    name = found.rows.name(index)
    return name if found.multi else f"{name} ({found.classes[found.targets[index]]})"


def _names(found: Found, chosen: np.ndarray) -> list[str]:
    return [found.classes[number] for number in np.flatnonzero(chosen)]
