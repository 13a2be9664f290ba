"""Reads users' own images from folders, a CSV, Parquet or the Hub, checks and splits them. No torch."""

import re
from dataclasses import replace
from pathlib import Path
from unicodedata import normalize

import numpy as np

from vtzoo.base.wording import counted, few
from vtzoo.data import checks
from vtzoo.data.folder import read_folder, walk
from vtzoo.data.hub import read_hub
from vtzoo.data.labelled_images import LabelledImages
from vtzoo.data.split import SPLIT_NAMES, draw_val, images_per_class
from vtzoo.data.table import read_table
from vtzoo.data.transform import SUFFIXES
from vtzoo.errors import VtzooError

PLAIN_STEMS = ("labels", "metadata", "annotations")  # of files that say less than the name of their folder
OTHER = {  # the hint for a file of a kind that cannot be read
    ".zip": "unpack it, and give the folder",
    ".tar": "unpack it, and give the folder",
    ".gz": "unpack it, and give the folder",
    ".tsv": "save it as CSV, with commas",
    ".xlsx": "save it as CSV",
    ".json": "make a CSV of it: path,label",
    ".jsonl": "make a CSV of it: path,label",
}


def read_images(
    source: str | Path, *, learn: bool = True, seed: int = 0, image_column: str | None = None,
    label_column: str | None = None,
) -> LabelledImages:  # fmt: skip
    """The images of a folder, a CSV, Parquet or a Hub data set (ORG/NAME or ORG/NAME@REVISION), with its splits.

    - A folder has a folder a class, or train/, val/ and test/ with a folder a class each; or Parquet files.
    - A CSV has a column `path` and a column `label`: a class, or several separated by `;`. Or each class has a column:
      1, 0, or nothing for unknown. An empty label is unknown.
    - Parquet and the Hub have a column of images, and a column of class names, class indices, or lists of them.
    - A column `split` says train, val or test. In multi-label data, a column `mask` names the classes that the
      annotators looked for: all others are unknown.

    `image_column` and `label_column` name columns without a usual name. Without validation images, `split.draw_val`
    draws them from the training images by `seed`. Oddities that training tolerates are notes, all others errors.

    With `learn`, the images must have training images of two classes, and validation images. Without, they only serve
    evaluation, and a split may be empty.
    """
    images, sizes = checks.usable(read_source(str(source), image_column, label_column), source)
    copies = checks.copies_of(images.encoded, sizes)
    notes = checks.mislabelled(images, copies)
    images, copies = checks.separate(images, copies)
    images = replace(images, name=name_of(source)).noting(*notes, *(checks.classes(images, source) if learn else ()))
    if not len(images.val):
        images = _with_drawn_val(images, copies, seed, learn)
    if learn and not len(images.val):
        message = f"no class in {source} has two images that differ: one would be needed to validate on"
        raise VtzooError(message, "add images, or give validation images of your own")
    return images


def summary(images: LabelledImages) -> list[str]:
    """Lines about the classes and the splits, and a line for each note."""
    counts = images_per_class(images.train.targets, len(images.classes))
    least, most = int(counts.argmin()), int(counts.argmax())
    origin = "drawn from the training images, every class in proportion" if images.val_drawn else "as given"
    unknown = (
        f", {np.isnan(images.train.targets).mean():.0%} of the training labels not known" if images.multi_label else ""
    )
    test = f"test {counted(len(images.test), 'image')}, not looked at" if images.test else "test images: none given"
    each = "several" if images.multi_label else "one"
    return [
        f"{images.name}: {len(images.classes):,} classes, {each} an image{unknown}",
        f"train {counted(len(images.train), 'image')}; the fewest are of {images.classes[least]}, {counts[least]:,}; "
        f"the most of {images.classes[most]}, {counts[most]:,}",
        f"validation {counted(len(images.val), 'image')}, {origin}",
        test,
        *(f"note: {note}" for note in images.notes),
    ]


def read_source(source: str, image_column: str | None, label_column: str | None) -> LabelledImages:
    """The images of a source, by its kind.

    A folder is read as images if it has any, as by `vtzoo predict`; otherwise as Parquet files.
    """
    from vtzoo.data.parquet import parquet_files, read_parquet

    path, named = Path(source), {"image_column": image_column, "label_column": label_column}
    if path.is_dir():
        parquet = next(walk(source, SUFFIXES), None) is None and parquet_files(path)
        return read_parquet(path, **named) if parquet else read_folder(path)
    if not path.exists():
        return read_hub(source, **named)
    readers = {".csv": read_table, ".parquet": read_parquet}
    if path.suffix.lower() not in readers:
        raise VtzooError(
            f"cannot read {path}: it is no folder, CSV or Parquet file",
            OTHER.get(path.suffix.lower(), "give a folder with a folder a class"),
        )
    return readers[path.suffix.lower()](path, **named)


def _with_drawn_val(images: LabelledImages, copies: np.ndarray, seed: int, learn: bool) -> LabelledImages:
    """The images, some of train now in val; copies of another image stay in train, with a note."""
    training = np.flatnonzero(images.splits == "train")
    free = copies[training] < 0
    splits = images.splits.astype("<U5")
    splits[training[draw_val(images.targets[training], free, seed)]] = "val"
    copied = [images.encoded.name(int(index)) for index in training[~free]]
    message = f"{counted(len(copied), 'training image')} are the same as others, {few(copied)}: none of them validates"
    return replace(images, splits=splits, val_drawn=True).noting(*([message] if copied and learn else []))


def name_of(source: str | Path) -> str:
    """The name of a source, as a part of a model's name."""
    path = Path(str(source).partition("@")[0] if not Path(source).exists() else source)
    resolved = path.resolve()
    stem = resolved.stem if resolved.is_file() else resolved.name
    if resolved.is_file() and re.split("[-_.]", stem)[0].lower() in (*SPLIT_NAMES, *PLAIN_STEMS):
        stem = resolved.parent.name
    plain = normalize("NFKD", stem).encode("ascii", "ignore").decode().lower()
    return re.sub("[^a-z0-9]+", "_", plain).strip("_") or "images"
