"""Predictions as text, piece by piece: a table, JSON, JSON Lines or CSV."""

import csv
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

from vtzoo.predict.bulk import ImagePredictions

FORMATS = ("table", "json", "jsonl", "csv", "parquet")  # outputs.py writes parquet, the only one that is not text


class TextFormat(ABC):
    """A format of predictions as text."""

    begin = ""  # before the first image
    end = ""  # after the last image

    @abstractmethod
    def text(self, images: Iterable[ImagePredictions]) -> str:
        """The text of the next images."""


class Table(TextFormat):
    """A block for each image: its name, then a line for each class. Unreadable images are left out."""

    def text(self, images: Iterable[ImagePredictions]) -> str:
        """The blocks of these images."""
        return "".join(self._block(image) for image in images if image.error is None)

    def _block(self, image: ImagePredictions) -> str:
        lines = (f"  {one.probability:6.1%}  {_printable(one.label)}\n" for one in image.predictions)
        return f"{image.image}\n{''.join(lines)}"


def _printable(label: str) -> str:
    """A class name that is safe for a terminal: a downloaded model may have control characters in its names."""
    return label if label.isprintable() else ascii(label)[1:-1]


class JsonLines(TextFormat):
    """A line with a JSON object for each image, in ASCII, which is valid in every encoding."""

    def text(self, images: Iterable[ImagePredictions]) -> str:
        """The lines of these images."""
        return "".join(json.dumps(as_dict(image)) + "\n" for image in images)


class JsonList(TextFormat):
    """One JSON list, as json.dumps with an indent of 2 writes it; `begun` if it has elements already."""

    begin = "["

    def __init__(self, *, begun: bool) -> None:
        self._begun = begun
        self.end = "\n]\n" if begun else "]\n"

    def text(self, images: Iterable[ImagePredictions]) -> str:
        """The elements of these images, each after its separator."""
        pieces = []
        for image in images:
            element = json.dumps(as_dict(image), indent=2).replace("\n", "\n  ")
            pieces.append(f"{',' if self._begun else ''}\n  {element}")
            self._begun, self.end = True, "\n]\n"
        return "".join(pieces)


class Csv(TextFormat):
    """RFC 4180 with LF line endings: the columns image, error, label_1, probability_1, label_2 and so on."""

    def __init__(self, classes: int) -> None:
        self._classes = classes
        names = (name for rank in range(1, classes + 1) for name in (f"label_{rank}", f"probability_{rank}"))
        self.begin = _csv([("image", "error", *names)])

    def text(self, images: Iterable[ImagePredictions]) -> str:
        """The rows of these images; an unreadable image has its error and no classes."""
        return _csv(self._row(image) for image in images)

    def _row(self, image: ImagePredictions) -> list[Any]:
        cells = [cell for one in image.predictions for cell in (one.label, one.probability)]
        return [image.image, image.error, *(cells or [None] * (2 * self._classes))]


def text_format(name: str, classes: int, *, begun: bool = False) -> TextFormat:
    """The text format of that name, with `classes` classes an image; `begun` if the text has images already."""
    formats = {"table": Table, "json": lambda: JsonList(begun=begun), "jsonl": JsonLines, "csv": lambda: Csv(classes)}
    return formats[name]()


def as_dict(image: ImagePredictions) -> dict[str, Any]:
    """The JSON object of an image's predictions."""
    return {"image": image.image, "predictions": [vars(one) for one in image.predictions], "error": image.error}


def _csv(rows: Iterable[Iterable[Any]]) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue()
