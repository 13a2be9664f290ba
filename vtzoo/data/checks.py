"""Checks of labelled images before training: notes for the user, and the images that are left out."""

from collections.abc import Callable
from hashlib import sha256
from itertools import chain, compress

import numpy as np
from PIL import Image

from vtzoo.base.wording import counted, few
from vtzoo.data import labels
from vtzoo.data.decoding import in_threads
from vtzoo.data.encoded_images import EncodedImages
from vtzoo.data.labelled_images import SPLITS, LabelledImages
from vtzoo.data.split import images_per_class
from vtzoo.errors import VtzooError


def usable(images: LabelledImages, source: object) -> tuple[LabelledImages, np.ndarray]:
    """The labelled images whose first bytes look like an image, with notes of the others; sizes in bytes, int64 (n,).

    A source without such images is a VtzooError.
    """
    known = labels.labelled(images.targets)
    images = _keep(images, known, "has no label", "have no label", "an empty cell is unknown")
    sizes, readable = _glance(images.encoded)
    images = _keep(images, readable, "is no image", "are no images", "replace them or delete them")
    if not len(images.encoded):
        raise VtzooError(f"no labelled images that can be read in {source}", "; ".join(images.notes) or None)
    return images, sizes[readable]


def copies_of(encoded: EncodedImages, sizes: np.ndarray) -> np.ndarray:
    """The number of each image's group of identical files, int64 (n,); -1 for an image without a copy.

    Reads only files that share their size in bytes with another file.
    """
    _, inverse, counts = np.unique(sizes, return_inverse=True, return_counts=True)
    suspects = np.flatnonzero(counts[inverse] > 1)
    hashed = in_threads(lambda number: sha256(encoded.content(int(suspects[number])) or b"").digest(), len(suspects))
    groups: dict[bytes, list[int]] = {}
    for index, digest in zip(suspects, chain.from_iterable(hashed), strict=True):
        groups.setdefault(digest, []).append(int(index))
    copies = np.full(len(encoded), -1, dtype=np.int64)
    for number, group in enumerate(group for group in groups.values() if len(group) > 1):
        copies[group] = number
    return copies


def separate(images: LabelledImages, copies: np.ndarray) -> tuple[LabelledImages, np.ndarray]:
    """The images, each in one split alone, with notes of those left out; and their groups of copies, int64 (n,).

    An image of train that is also in val or test leaves train, and an image of val that is also in test leaves val, so
    that accuracies stay honest.
    """
    order = np.array([SPLITS.index(split) for split in images.splits])
    twice = copies >= 0
    last = np.zeros(copies.max(initial=-1) + 1, dtype=order.dtype)
    np.maximum.at(last, copies[twice], order[twice])
    twice[twice] = order[twice] < last[copies[twice]]
    notes = []
    for split, others in (("train", "val or test"), ("val", "test")):
        lost = np.flatnonzero(twice & (images.splits == split))
        if len(lost):
            group = copies[lost[0]]
            other = np.flatnonzero((copies == group) & (order == last[group]))[0]
            pair = f"{images.encoded.name(lost[0])} is the same as {images.encoded.name(other)}"
            message = f"{counted(len(lost), 'image')} of {split} {'is' if len(lost) == 1 else 'are'} also in {others}"
            notes.append(f"{message} ({pair}): left out of {split}")
    return images.select(np.flatnonzero(~twice)).noting(*notes), copies[~twice]


def mislabelled(images: LabelledImages, copies: np.ndarray) -> list[str]:
    """A note of the identical images whose labels differ; empty if there are none."""
    pairs, targets = [], images.targets
    order = np.argsort(copies, kind="stable")[np.count_nonzero(copies < 0) :]
    for group in np.split(order, np.flatnonzero(np.diff(copies[order])) + 1):
        for other in group[1:]:
            if not np.array_equal(targets[group[0]], targets[other], equal_nan=True):
                pairs.append(f"{_labelled(images, group[0])} and {_labelled(images, other)}")
                break
    return [f"the same image has different labels: {few(pairs)}: correct one, or delete it"] if pairs else []


def class_notes(images: LabelledImages, source: object) -> tuple[str, ...]:
    """Notes of the classes that have one training image or none.

    Without training images of two classes, or with a class that only val or test has, training cannot start: a
    VtzooError.
    """
    counts = {split: images_per_class(images.split(split).targets, len(images.classes)) for split in SPLITS}
    training = counts["train"]
    if not len(images.train):
        hint = "put some into a folder train/, or call their split train"
        raise VtzooError(f"no training images in {source}", "; ".join((*images.notes, hint)))
    for split in ("val", "test"):
        if strange := list(compress(images.classes, (counts[split] > 0) & (training == 0))):
            message = f"{split} has {counted(len(strange), 'class', 'classes')} that train lacks: {few(strange)}"
            raise VtzooError(message, f"add images of them to train, or remove them from {split} in {source}")
    masks = training > 0, training == 1, training == 0
    present, single, empty = (list(compress(images.classes, mask)) for mask in masks)
    if len(present) < 2:
        classes = f"one class, {present[0]!r}" if present else "no class"
        hint = "add images of another class: there is nothing to tell apart"
        raise VtzooError(f"all the training images in {source} are of {classes}", "; ".join((*images.notes, hint)))
    notes = []
    if single:
        message = f"{counted(len(single), 'class has', 'classes have')} one training image, and none to validate on"
        notes.append(f"{message}: {few(single)}; add images of them")
    if empty:
        message = f"{counted(len(empty), 'class has', 'classes have')} no training images"
        notes.append(f"{message}, and {'is' if len(empty) == 1 else 'are'} never learnt: {few(empty)}")
    return tuple(notes)


def _keep(images: LabelledImages, good: np.ndarray, singular: str, plural: str, hint: str) -> LabelledImages:
    """The images that are good, with a note of the others: their number, `singular` or `plural`, and the hint."""
    bad = np.flatnonzero(~good)
    if not len(bad):
        return images
    message = f"{counted(len(bad), 'image')} {singular if len(bad) == 1 else plural}"
    names = few([images.encoded.name(int(index)) for index in bad])
    return images.select(np.flatnonzero(good)).noting(f"{message}: {names}; left out ({hint})")


def _glance(encoded: EncodedImages) -> tuple[np.ndarray, np.ndarray]:
    """The sizes of the images in bytes, int64 (n,), and whether Pillow recognises their first bytes, bool (n,)."""
    Image.init()
    accepts = [accept for _, accept in Image.OPEN.values() if accept is not None]
    glances = [encoded.glance(index) for index in range(len(encoded))]
    images = [_is_image(head, accepts) for _, head in glances]
    return np.array([size for size, _ in glances], dtype=np.int64), np.array(images, dtype=bool)


def _is_image(head: bytes, accepts: list[Callable]) -> bool:
    """Whether one of Pillow's readers accepts the first bytes; a reader whose library is missing returns a text."""
    return bool(head) and any((answer := accept(head)) and not isinstance(answer, str) for accept in accepts)


def _labelled(images: LabelledImages, index: int) -> str:
    """An image's name, with its class if single-label."""
    name = images.encoded.name(index)
    return name if images.multi_label else f"{name} ({images.classes[images.targets[index]]})"
