"""A CSV of paths and labels: path,label; several labels separated by `;`; or one column per class: 1, 0 or nothing."""

import csv
import io
import os
from pathlib import Path
from unicodedata import normalize

import numpy as np

from vtzoo.base.wording import counted, few
from vtzoo.data import columns, labels
from vtzoo.data.columns import Columns
from vtzoo.data.folder import encoded_files
from vtzoo.data.labelled_images import LabelledImages
from vtzoo.data.labels import ClassesAndTargets, class_name
from vtzoo.data.split import split_names
from vtzoo.data.transform import SUFFIXES
from vtzoo.errors import VtzooError

SEPARATOR = ";"  # between the classes of one image
Lines = list[tuple[int, list[str]]]  # the number, from 1, and the cells of each line that is not empty


def read_table(file: Path, *, image_column: str | None = None, label_column: str | None = None) -> LabelledImages:
    """The images that a CSV lists; relative paths start at its folder.

    Python's csv module leaves the cells as they are. The `datasets` library would turn class names into numbers, and a
    class called NA into a missing value.
    """
    (_, header), *lines = _lines(file)
    _require_header(header, file)
    named = columns.recognise(header, file, image=image_column, label=label_column)
    for number, cells in lines:
        if len(cells) != len(header):
            message = f"line {number} of {file} has {counted(len(cells), 'cell')}, its header {len(header)}"
            raise VtzooError(message, 'put a cell with a comma in it between quotes: "a, b"')
    cells = {name: [line[position] for _, line in lines] for position, name in enumerate(header)}
    numbers = [number for number, _ in lines]
    paths = _paths(file, cells[named.image], numbers)
    kept, notes = _once(file, paths, cells, named, numbers)
    paths = [paths[index] for index in kept]
    cells = {name: [column[index] for index in kept] for name, column in cells.items()}
    classes, targets = _targets(file, cells, named)
    splits = _splits(file, cells, named, [numbers[index] for index in kept])
    return LabelledImages(classes=classes, encoded=encoded_files(paths), targets=targets, splits=splits, notes=notes)


def _lines(file: Path) -> Lines:
    """The lines of a CSV in UTF-8, with or without the byte order mark of Excel; at least the header and an image."""
    content = file.read_bytes()
    encoding = "UTF-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else None
    try:
        text = content.decode("utf-8-sig")
        reader = csv.reader(io.StringIO(text, newline=""))
        lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader if any(cells)]
    except (UnicodeDecodeError, csv.Error) as error:
        reason = str(error) if isinstance(error, csv.Error) else f"it is written in {encoding or 'another encoding'}"
        raise VtzooError(f"cannot read {file}: {reason}", "save it as CSV in UTF-8") from error
    if len(lines) < 2:
        raise VtzooError(f"{file} lists no images", "its first line is path,label; then comes a line an image")
    return lines


def _require_header(header: list[str], file: Path) -> None:
    """Raise unless the first line can be a header of distinct column names."""
    first = ",".join(header)
    if any(cell.lower().endswith(SUFFIXES) for cell in header):
        raise VtzooError(f"{file} has no header: its first line is {first!r}", "put a line before it: path,label")
    if len(header) == 1 and (separator := next((mark for mark in ";\t|" if mark in first), None)):
        message = f"the cells of {file} are separated by {separator!r}: its first line is {first!r}"
        raise VtzooError(message, "save it with commas between cells; `;` is between several labels of an image")
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise VtzooError(f"two columns of {file} are called {twice!r}", "give each a name of its own")


def _paths(file: Path, cells: list[str], numbers: list[int]) -> list[str]:
    """The files of the images; missing files are a VtzooError that names the first of them."""
    paths = [_existing(file.parent, cell) for cell in cells]
    lines = zip(paths, cells, numbers, strict=True)
    missing = [f"{cell!r} (line {number})" for path, cell, number in lines if not path]
    if missing:
        message = f"{counted(len(missing), 'image')} of {file} {'does' if len(missing) == 1 else 'do'} not exist"
        hint = f"a path is absolute or starts at {file.parent}: correct it, or remove its line"
        raise VtzooError(f"{message}: {few(missing)}", hint)
    return [path for path in paths if path]


def _existing(folder: Path, cell: str) -> str | None:
    """The file that a cell names, with composed or decomposed accents (macOS writes both); None if it is missing."""
    forms = dict.fromkeys([cell, normalize("NFC", cell), normalize("NFD", cell)])
    paths = (os.path.normpath(folder / form) for form in forms if form)
    return next((path for path in paths if os.path.isfile(path)), None)  # noqa: PTH113 (never raises on hostile names)


def _once(
    file: Path, paths: list[str], cells: dict[str, list[str]], named: Columns, numbers: list[int]
) -> tuple[list[int], tuple[str, ...]]:
    """The indices of the lines without repetitions of an image in a split, and a note of the repetitions.

    Two lines with different labels of an image are a VtzooError.
    """
    labelling = [cells[name] for name in named.needed if name not in (named.image, named.split)]
    splits = cells[named.split] if named.split else [""] * len(paths)
    first: dict[str, int] = {}
    seen: dict[tuple[str, str], int] = {}
    for index, path in enumerate(paths):
        other = first.setdefault(path, index)
        if any(column[index] != column[other] for column in labelling):
            lines, image = f"lines {numbers[other]} and {numbers[index]} of {file}", cells[named.image][index]
            hint = "remove one; several classes of an image share a cell: cat;dog"
            raise VtzooError(f"{lines} give {image!r} other labels", hint)
        seen.setdefault((path, splits[index]), index)
    kept = list(seen.values())
    repeated = len(paths) - len(kept)
    verbs = ("repeats", "counts") if repeated == 1 else ("repeat", "count")
    message = f"{counted(repeated, 'line')} of {file} {verbs[0]} others, and {verbs[1]} once"
    return kept, (message,) if repeated else ()


def _targets(file: Path, cells: dict[str, list[str]], named: Columns) -> ClassesAndTargets:
    """The classes, and the targets of each image."""
    if named.label is None:
        return labels.column_per_class({class_name(name): cells[name] for name in named.others}, file)
    if named.mask is None and not any(SEPARATOR in cell for cell in cells[named.label]):
        return labels.single_label([class_name(cell) or None for cell in cells[named.label]])
    masks = cells[named.mask] if named.mask else [""] * len(cells[named.label])
    return labels.multi_label([_classes_in(cell) for cell in cells[named.label]], [_classes_in(mask) for mask in masks])


def _classes_in(cell: str) -> list[str] | None:
    """The classes in a cell; None if it is empty."""
    return [name for part in cell.split(SEPARATOR) if (name := class_name(part))] or None


def _splits(file: Path, cells: dict[str, list[str]], named: Columns, numbers: list[int]) -> np.ndarray:
    """The split of each image, str (n,): train if its cell is empty, or the table has no column of splits."""
    if named.split is None:
        return np.full(len(numbers), "train")
    return split_names(cells[named.split], lambda index: f"line {numbers[index]} of {file}")
