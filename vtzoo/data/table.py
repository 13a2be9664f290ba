"""A CSV of paths and labels: path,label; several labels separated by `;`; or a column a class with 1, 0 or nothing."""

import csv
import io
import os
from pathlib import Path
from unicodedata import normalize

import numpy as np

from vtzoo.data import columns, labels
from vtzoo.data.columns import Columns
from vtzoo.data.found import TRAIN, Found, class_name, counted, few, of_files, parts_of
from vtzoo.data.transform import SUFFIXES
from vtzoo.errors import VtzooError

SEVERAL = ";"  # between the classes of one image
Lines = list[tuple[int, list[str]]]  # the cells of each line that has any, with its number, from 1


def find(file: Path, *, image_column: str | None = None, label_column: str | None = None) -> Found:
    """The images that a CSV lists; relative paths start at its folder.

    Python's own reader takes the cells as they are: the `datasets` library's would make numbers out of class names,
    and nothing out of a class called NA.
    """
    (_, header), *lines = _lines(file)
    _require_header(header, file)
    named = columns.recognise(header, file, image=image_column, label=label_column)
    for number, cells in lines:
        if len(cells) != len(header):
            told = f"line {number} of {file} has {counted(len(cells), 'cell')}, its header {len(header)}"
            raise VtzooError(told, 'put a cell with a comma in it between quotes: "a, b"')
    cells = {name: [line[position] for _, line in lines] for position, name in enumerate(header)}
    numbers = [number for number, _ in lines]
    paths = _paths(file, cells[named.image], numbers)
    kept, notes = _once(file, paths, cells, named, numbers)
    paths = [paths[index] for index in kept]
    cells = {name: [column[index] for index in kept] for name, column in cells.items()}
    classes, targets = _targets(file, cells, named)
    parts = _parts(file, cells, named, [numbers[index] for index in kept])
    return Found(classes=classes, rows=of_files(paths), targets=targets, parts=parts, notes=notes)


def _lines(file: Path) -> Lines:
    """What is written in a CSV in UTF-8, with or without the mark (BOM) that Excel puts before it."""
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
    """Raise unless the first line can be the names of columns."""
    first = ",".join(header)
    if any(cell.lower().endswith(SUFFIXES) for cell in header):
        raise VtzooError(f"{file} has no header: its first line is {first!r}", "put a line before it: path,label")
    if len(header) == 1 and (separator := next((mark for mark in ";\t|" if mark in first), None)):
        told = f"the cells of {file} are separated by {separator!r}: its first line is {first!r}"
        raise VtzooError(told, "save it with commas between cells; `;` is between several labels of an image")
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise VtzooError(f"two columns of {file} are called {twice!r}", "give each a name of its own")


def _paths(file: Path, cells: list[str], numbers: list[int]) -> list[str]:
    """The files of the images; those that do not exist are an error that names the first of them."""
    paths = [_existing(file.parent, cell) for cell in cells]
    missing = [
        f"{cell!r} (line {number})" for path, cell, number in zip(paths, cells, numbers, strict=True) if not path
    ]
    if missing:
        told = f"{counted(len(missing), 'image')} of {file} {'is' if len(missing) == 1 else 'are'} not there"
        hint = f"a path is absolute or starts at {file.parent}: correct it, or remove its line"
        raise VtzooError(f"{told}: {few(missing)}", hint)
    return [path for path in paths if path]


def _existing(folder: Path, cell: str) -> str | None:
    """The file that a cell names, with its accents composed or apart (macOS writes both); None where there is none."""
    forms = dict.fromkeys([cell, normalize("NFC", cell), normalize("NFD", cell)])
    paths = (os.path.normpath(folder / form) for form in forms if form)
    return next((path for path in paths if os.path.isfile(path)), None)  # noqa: PTH113 (raises on no hostile name)


def _once(
    file: Path, paths: list[str], cells: dict[str, list[str]], named: Columns, numbers: list[int]
) -> tuple[list[int], tuple[str, ...]]:
    """The lines that count, each image once in a part, and a note of the others; two labels of one are an error."""
    said = [cells[name] for name in named.needed if name not in (named.image, named.split)]
    parts = cells[named.split] if named.split else [""] * len(paths)
    first: dict[str, int] = {}
    seen: dict[tuple[str, str], int] = {}
    for index, path in enumerate(paths):
        other = first.setdefault(path, index)
        if any(column[index] != column[other] for column in said):
            told = (
                f"lines {numbers[other]} and {numbers[index]} of {file} give {cells[named.image][index]!r} other labels"
            )
            raise VtzooError(told, "remove one; several classes of an image share a cell: cat;dog")
        seen.setdefault((path, parts[index]), index)
    kept = list(seen.values())
    repeated = len(paths) - len(kept)
    verbs = ("repeats", "counts") if repeated == 1 else ("repeat", "count")
    told = f"{counted(repeated, 'line')} of {file} {verbs[0]} others, and {verbs[1]} once"
    return kept, (told,) if repeated else ()


def _targets(file: Path, cells: dict[str, list[str]], named: Columns) -> tuple[tuple[str, ...], np.ndarray]:
    """The classes, and what is known of each image."""
    if named.label is None:
        return labels.a_column_each({class_name(name): cells[name] for name in named.others}, file)
    if named.mask is None and not any(SEVERAL in cell for cell in cells[named.label]):
        return labels.one_each([class_name(cell) or None for cell in cells[named.label]])
    masks = cells[named.mask] if named.mask else [""] * len(cells[named.label])
    return labels.several_each([_several(cell) for cell in cells[named.label]], [_several(mask) for mask in masks])


def _several(cell: str) -> list[str] | None:
    """The classes in a cell; None where it is empty."""
    return [name for part in cell.split(SEVERAL) if (name := class_name(part))] or None


def _parts(file: Path, cells: dict[str, list[str]], named: Columns, numbers: list[int]) -> np.ndarray:
    """The part of each image, int8 (n,): training where its cell is empty, or there is no such column."""
    if named.split is None:
        return np.full(len(numbers), TRAIN, dtype=np.int8)
    return parts_of(cells[named.split], lambda index: f"line {numbers[index]} of {file}")
