"""Answers as text, a piece at a time: for people, as JSON, a line of JSON an image, or CSV."""

import csv
import io
import json
from collections.abc import Iterable
from typing import Any

from vtzoo.predict.bulk import Answer

FORMATS = ("table", "json", "jsonl", "csv", "parquet")  # the last one is no text: see outputs.py


class Table:
    """A block an image: its name, then a line a class. An image that cannot be read has none: it goes to stderr."""

    begin, end = "", ""

    def text(self, answers: Iterable[Answer]) -> str:
        """The blocks of these answers."""
        return "".join(self._block(answer) for answer in answers if answer.error is None)

    def _block(self, answer: Answer) -> str:
        lines = (f"  {one.probability:6.1%}  {_shown(one.label)}\n" for one in answer.predictions)
        return f"{answer.image}\n{''.join(lines)}"


def _shown(label: str) -> str:
    """A class's name for a terminal: somebody else's model may have control characters in it."""
    return label if label.isprintable() else ascii(label)[1:-1]


class Lines:
    """JSON Lines: an object an image, in ASCII, hence valid in every encoding."""

    begin, end = "", ""

    def text(self, answers: Iterable[Answer]) -> str:
        """The lines of these answers."""
        return "".join(json.dumps(as_dict(answer)) + "\n" for answer in answers)


class List:
    """One JSON list, as json.dumps with an indent of 2 writes it, without ever holding it."""

    begin = "["

    def __init__(self, *, begun: bool) -> None:
        self._some = begun

    @property
    def end(self) -> str:
        """What closes the list."""
        return "\n]\n" if self._some else "]\n"

    def text(self, answers: Iterable[Answer]) -> str:
        """The elements of these answers, each with what parts it from the one before."""
        pieces = []
        for answer in answers:
            element = json.dumps(as_dict(answer), indent=2).replace("\n", "\n  ")
            pieces.append(f"{',' if self._some else ''}\n  {element}")
            self._some = True
        return "".join(pieces)


class Csv:
    """A table with the columns image, error, label_1, probability_1, label_2...; RFC 4180, with a line feed a row."""

    end = ""

    def __init__(self, classes: int) -> None:
        self._classes = classes
        names = (name for rank in range(1, classes + 1) for name in (f"label_{rank}", f"probability_{rank}"))
        self.begin = _csv([("image", "error", *names)])

    def text(self, answers: Iterable[Answer]) -> str:
        """The rows of these answers; an image that cannot be read has its error, and no classes."""
        return _csv(self._row(answer) for answer in answers)

    def _row(self, answer: Answer) -> list[Any]:
        cells = [cell for one in answer.predictions for cell in (one.label, one.probability)]
        return [answer.image, answer.error, *(cells or [None] * (2 * self._classes))]


Text = Table | Lines | List | Csv


def writer(form: str, classes: int, *, begun: bool = False) -> Text:
    """What writes one of the text formats with `classes` classes an image; `begun` where some answers are written."""
    return {"table": Table, "json": lambda: List(begun=begun), "jsonl": Lines, "csv": lambda: Csv(classes)}[form]()


def as_dict(answer: Answer) -> dict[str, Any]:
    """The JSON object of an answer."""
    return {"image": answer.image, "predictions": [vars(one) for one in answer.predictions], "error": answer.error}


def _csv(rows: Iterable[Iterable[Any]]) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue()
