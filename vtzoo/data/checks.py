"""Checks users' images before training: leaves out unusable images and copies, and notes what is odd."""

from collections.abc import Callable
from hashlib import sha256

import numpy as np
from PIL import Image

from vtzoo.base.wording import counted, few
from vtzoo.data import labels
from vtzoo.data.decoding import in_threads
from vtzoo.data.encoded_images import EncodedImages
from vtzoo.data.labelled_images import SPLITS, LabelledImages
from vtzoo.data.split import images_per_class
from vtzoo.errors import VtzooError


def usable(found: LabelledImages, where: object) -> tuple[LabelledImages, np.ndarray]:
    """The labelled images that begin like an image, with notes about the rest; their sizes in bytes, int64 (n,)."""
    known = labels.labelled(found.targets)
    found = _keep(found, known, "has no label", "have no label", "an empty cell is unknown")
    sizes, images = _glance(found.encoded)
    found = _keep(found, images, "is no image", "are no images", "replace them or delete them")
    if not len(found.encoded):
        raise VtzooError(f"no labelled images that can be read in {where}", "; ".join(found.notes) or None)
    return found, sizes[images]


def copies_of(encoded: EncodedImages, sizes: np.ndarray) -> np.ndarray:
    """A number for each group of images with the same content, int64 (n,); -1 for an image without copies.

    Only files of equal size are read.
    """
    _, inverse, counts = np.unique(sizes, return_inverse=True, return_counts=True)
    suspects = np.flatnonzero(counts[inverse] > 1)
    hashed = in_threads(lambda number: sha256(encoded.content(int(suspects[number])) or b"").digest(), len(suspects))
    groups: dict[bytes, list[int]] = {}
    for index, digest in zip(suspects, (one for some in hashed for one in some), strict=True):
        groups.setdefault(digest, []).append(int(index))
    copies = np.full(len(encoded), -1, dtype=np.int64)
    for number, group in enumerate(group for group in groups.values() if len(group) > 1):
        copies[group] = number
    return copies


def separate(found: LabelledImages, copies: np.ndarray) -> tuple[LabelledImages, np.ndarray]:
    """The images without those that are in two splits, and the numbers of their copies.

    Train loses the images of val and test, and val loses those of test, so that both measure on unseen images.
    """
    order = np.array([SPLITS.index(split) for split in found.splits])
    twice = copies >= 0
    last = np.zeros(copies.max(initial=-1) + 1, dtype=order.dtype)
    np.maximum.at(last, copies[twice], order[twice])
    twice[twice] = order[twice] < last[copies[twice]]
    notes = []
    for split, others in (("train", "val or test"), ("val", "test")):
        lost = np.flatnonzero(twice & (found.splits == split))
        if len(lost):
            group = copies[lost[0]]
            other = np.flatnonzero((copies == group) & (order == last[group]))[0]
            pair = f"{found.encoded.name(int(lost[0]))} is {found.encoded.name(int(other))}"
            message = f"{counted(len(lost), 'image')} of {split} {'is' if len(lost) == 1 else 'are'}"
            notes.append(f"{message} in {others} too, as {pair}: left out of {split}")
    return found.select(np.flatnonzero(~twice)).noting(*notes), copies[~twice]


def mislabelled(found: LabelledImages, copies: np.ndarray) -> list[str]:
    """A note about copies of an image with different labels."""
    message = []
    order = np.argsort(copies, kind="stable")[np.count_nonzero(copies < 0) :]
    for group in np.split(order, np.flatnonzero(np.diff(copies[order])) + 1):
        for other in group[1:]:
            if not np.array_equal(found.targets[group[0]], found.targets[other], equal_nan=True):
                message.append(f"{_labelled(found, int(group[0]))} and {_labelled(found, int(other))}")
                break
    if not message:
        return []
    return [f"the same image has different labels: {few(message)}: correct one, or delete it"]


def classes(found: LabelledImages, where: object) -> tuple[str, ...]:
    """Notes about classes with one training image or none.

    A VtzooError without training images, with a single class, or with a class of val or test that train lacks.
    """
    counts = {split: images_per_class(found.split(split).targets, len(found.classes)) for split in SPLITS}
    training = counts["train"]
    if not len(found.train):
        hint = "put some into a folder train/, or call their split train"
        raise VtzooError(f"no training images in {where}", "; ".join((*found.notes, hint)))
    for split in ("val", "test"):
        if strange := _names(found, (counts[split] > 0) & (training == 0)):
            message = f"{split} has {counted(len(strange), 'class', 'classes')} that train lacks: {few(strange)}"
            raise VtzooError(message, f"add images of them to train, or remove them from {split} in {where}")
    present = _names(found, training > 0)
    if len(present) < 2:
        message = f"of one class, {present[0]!r}" if present else "of no class"
        raise VtzooError(
            f"all the training images in {where} are {message}",
            "; ".join((*found.notes, "add images of another class: there is nothing to tell apart")),
        )
    notes = []
    if single := _names(found, training == 1):
        message = f"{counted(len(single), 'class has', 'classes have')} one training image, and none to validate on"
        notes.append(f"{message}: {few(single)}; add images of them")
    if empty := _names(found, training == 0):
        message = f"{counted(len(empty), 'class has', 'classes have')} no training images"
        notes.append(f"{message}, and {'is' if len(empty) == 1 else 'are'} never learnt: {few(empty)}")
    return tuple(notes)


def _keep(found: LabelledImages, good: np.ndarray, one: str, several: str, hint: str) -> LabelledImages:
    """The images that are good, with a note about the others."""
    bad = np.flatnonzero(~good)
    if not len(bad):
        return found
    message = f"{counted(len(bad), 'image')} {one if len(bad) == 1 else several}: {few(_row_names(found.encoded, bad))}"
    return found.select(np.flatnonzero(good)).noting(f"{message}; left out ({hint})")


def _glance(encoded: EncodedImages) -> tuple[np.ndarray, np.ndarray]:
    """The sizes of the images in bytes, int64 (n,), and whether each begins like a format that Pillow reads."""
    Image.init()
    accepts = [accept for _, accept in Image.OPEN.values() if accept is not None]
    glances = [encoded.glance(index) for index in range(len(encoded))]
    images = [_is_image(head, accepts) for _, head in glances]
    return np.array([size for size, _ in glances], dtype=np.int64), np.array(images, dtype=bool)


def _is_image(head: bytes, accepts: list[Callable]) -> bool:
    """Whether one of Pillow's readers accepts the bytes; a reader that lacks a library returns a text."""
    return bool(head) and any((message := accept(head)) and not isinstance(message, str) for accept in accepts)


def _row_names(encoded: EncodedImages, indices: np.ndarray) -> list[str]:
    return [encoded.name(int(index)) for index in indices]


def _labelled(found: LabelledImages, index: int) -> str:
    """An image's name and, for single-label images, its class."""
    name = found.encoded.name(index)
    return name if found.multi_label else f"{name} ({found.classes[found.targets[index]]})"


def _names(found: LabelledImages, chosen: np.ndarray) -> list[str]:
    return [found.classes[number] for number in np.flatnonzero(chosen)]
