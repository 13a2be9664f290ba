"""The user's own images, from folders, a CSV, Parquet or the Hub, checked and split. No torch."""

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

PLAIN_STEMS = ("labels", "metadata", "annotations")  # of files that do not name the data set: their folder does
HINTS = {  # by the suffix of a source that is given by mistake
    **dict.fromkeys((".zip", ".tar", ".gz"), "unpack it, and give the folder"),
    **dict.fromkeys((".json", ".jsonl"), "make a CSV of it: path,label"),
    ".tsv": "save it as CSV, with commas", ".xlsx": "save it as CSV",
}  # fmt: skip


def read_images(
    source: str | Path, *, learn: bool = True, seed: int = 0, image_column: str | None = None,
    label_column: str | None = None,
) -> LabelledImages:  # fmt: skip
    """The images of a folder, a CSV, Parquet or a Hub data set (ORG/NAME or ORG/NAME@REVISION), with its splits.

    - A folder has one folder per class; or train/, val/ and test/ with one folder per class each; or Parquet files.
    - A CSV has a column `path` and a column `label`: one class, or several with `;` between them. Or each class has its
      own column with 1, 0, or nothing if unknown. An empty label is unknown.
    - Parquet and the Hub have a column of images, and a column of names, of numbers, or of lists of them.
    - A column `split` has train, val or test. In multi-label data a column `mask` names the classes that annotators
      looked for: all other classes are unknown.

    `image_column` and `label_column` name columns without a usual name. If no validation images are given, `seed` draws
    them with `split.draw_val`. Problems that training can tolerate become notes, all others are VtzooErrors.

    Learning needs training images of two classes, and validation images. With `learn=False` the images only measure a
    model, and a split may be empty.
    """
    images, sizes = checks.usable(read_source(str(source), image_column, label_column), source)
    copies = checks.copies_of(images.encoded, sizes)
    notes = checks.mislabelled(images, copies)
    images, copies = checks.separate(images, copies)
    notes += checks.class_notes(images, source) if learn else ()
    images = replace(images, name=name_of(source)).noting(*notes)
    if not len(images.val):
        images = _with_drawn_val(images, copies, seed, learn)
    if learn and not len(images.val):
        message = f"validation needs a class with two different images, and {source} has none"
        raise VtzooError(message, "add images, or give validation images of your own")
    return images


def summary(images: LabelledImages) -> list[str]:
    """Lines of text about the classes and the splits, and a line per note."""
    train, counts = images.train, images_per_class(images.train.targets, len(images.classes))
    (least, fewest), (most, largest) = ((images.classes[at], counts[at]) for at in (counts.argmin(), counts.argmax()))
    origin = "drawn from the training images, every class in proportion" if images.val_drawn else "as given"
    classes = "one an image"
    if images.multi_label:
        classes = f"several an image, {np.isnan(train.targets).mean():.0%} of the training labels not known"
    return [
        f"{images.name}: {len(images.classes):,} classes, {classes}",
        f"train {counted(len(train), 'image')}; the fewest are of {least}, {fewest:,}; the most of {most}, {largest:,}",
        f"validation {counted(len(images.val), 'image')}, {origin}",
        f"test {counted(len(images.test), 'image')}, not looked at" if images.test else "test images: none given",
        *(f"note: {note}" for note in images.notes),
    ]


def read_source(source: str, image_column: str | None, label_column: str | None) -> LabelledImages:
    """The images of a folder, a file or a Hub data set, unchecked.

    A folder that contains images is read as images, as `vtzoo predict` does; otherwise its Parquet files are read.
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
        hint = HINTS.get(path.suffix.lower(), "give a folder with a folder a class")
        raise VtzooError(f"cannot read {path}: it is no folder, CSV or Parquet file", hint)
    return readers[path.suffix.lower()](path, **named)


def _with_drawn_val(images: LabelledImages, copies: np.ndarray, seed: int, learn: bool) -> LabelledImages:
    """The images with a val split drawn from train; images with copies stay in train, with a note."""
    training = np.flatnonzero(images.splits == "train")
    free = copies[training] < 0
    splits = images.splits.astype("<U5")
    splits[training[draw_val(images.targets[training], free, seed)]] = "val"
    copied = [images.encoded.name(index) for index in training[~free]]
    note = f"{counted(len(copied), 'training image')} are the same as others, {few(copied)}: kept out of validation"
    return replace(images, splits=splits, val_drawn=True).noting(*([note] if copied and learn else []))


def name_of(source: str | Path) -> str:
    """The name of the data set: the source's stem, or its folder's name for train.csv or labels.csv; a-z, 0-9 and _."""
    path = Path(source if Path(source).exists() else str(source).partition("@")[0]).resolve()
    stem = path.stem if path.is_file() else path.name
    if path.is_file() and re.split("[-_.]", stem)[0].lower() in (*SPLIT_NAMES, *PLAIN_STEMS):
        stem = path.parent.name
    plain = normalize("NFKD", stem).encode("ascii", "ignore").decode().lower()
    return re.sub("[^a-z0-9]+", "_", plain).strip("_") or "images"
