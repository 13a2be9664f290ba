"""Writes an assessment into a folder: numbers, predictions, pictures, and report.md with all of them."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vtzoo.base import files
from vtzoo.errors import VtzooError
from vtzoo.evaluate import calibration, charts, multi_label, single_label
from vtzoo.evaluate.contact_sheet import MOST, contact_sheet
from vtzoo.evaluate.run import Assessment
from vtzoo.evaluate.text_report import class_table, facts

PICTURES = {
    "confusion.png": "What each class is taken for",
    "reliability.png": "How often what it is so sure of comes true",
    "mistakes.png": "Wrong, and surest of it",
    "uncertain.png": "The least certain",
}
FILES = ("report.json", "predictions.csv", *PICTURES, "report.md")


def check(folder: Path) -> None:
    """Raise a VtzooError if a report cannot be written there, before the evaluation."""
    if folder.exists() and not folder.is_dir():
        raise VtzooError(f"{folder} is not a folder", "choose another --report")


def write(assessment: Assessment, folder: Path) -> Path:
    """Write the report into a folder, each file whole or not at all, and return report.md, which is written last.

    Deletes an earlier report first, so that the files never mix two reports.
    """
    check(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name in reversed(FILES):
        (folder / name).unlink(missing_ok=True)
    message = json.dumps(assessment.as_json(), indent=2) + "\n"
    files.write(folder / "report.json", message.encode())
    files.write(folder / "predictions.csv", predictions(assessment).encode())
    drawn = pictures(assessment)
    for name, content in drawn.items():
        files.write(folder / name, content)
    files.write(folder / "report.md", markdown(assessment, list(drawn)).encode())
    return folder / "report.md"


def predictions(assessment: Assessment) -> str:
    """A CSV line an image: image, label, predicted, probability, correct; `;` separates several classes.

    A multi-label prediction is correct if it is right for all known classes.
    """
    file = io.StringIO()
    lines = csv.writer(file, lineterminator="\n")
    lines.writerow(("image", "label", "predicted", "probability", "correct"))
    images, labels = assessment.images, assessment.labels
    for number, (target, answer) in enumerate(zip(images.targets, assessment.probabilities, strict=True)):
        if images.images.multi_label:
            having, chosen = np.flatnonzero(target == 1), np.flatnonzero(answer >= multi_label.THRESHOLD)
            known = ~np.isnan(target)
            correct = bool(np.all((answer >= multi_label.THRESHOLD)[known] == (target > 0)[known]))
        else:
            having, chosen = np.array([target]), np.array([answer.argmax()])
            correct = bool(having[0] == chosen[0])
        named = (";".join(labels[one] for one in some) for some in (having, chosen))
        shares = ";".join(f"{answer[one]:.6g}" for one in chosen)
        lines.writerow((images.images.encoded.name(number), *named, shares, str(correct).lower()))
    return file.getvalue()


def pictures(assessment: Assessment) -> dict[str, bytes]:
    """The PNG files by name, without empty ones."""
    draw = _multi_label if assessment.images.images.multi_label else _single_label
    return {name: content for name, content in draw(assessment).items() if content is not None}


def _single_label(assessment: Assessment) -> dict[str, bytes | None]:
    """The pictures of single-label predictions."""
    labels, names = assessment.images.targets, assessment.labels
    predicted, surest = assessment.probabilities.argmax(axis=1), assessment.probabilities.max(axis=1)
    right = predicted == labels
    order = np.argsort(surest, kind="stable")

    def sheet(numbers: np.ndarray) -> bytes | None:
        captions = [
            (f"is {names[labels[one]]}", f"{surest[one]:.1%} {names[predicted[one]]}") for one in numbers[:MOST]
        ]
        return _sheet(assessment, numbers, captions)

    return {
        "confusion.png": charts.confusion(labels, predicted, names),
        "reliability.png": charts.reliability(calibration.reliability(surest, right), what="accuracy"),
        "mistakes.png": sheet(order[::-1][~right[order[::-1]]]),
        "uncertain.png": sheet(order),
    }


def _multi_label(assessment: Assessment) -> dict[str, bytes | None]:
    """The pictures of multi-label predictions: of each image the worst class, and the class nearest to 0.5."""
    targets, names = assessment.images.targets, assessment.labels
    known = ~np.isnan(targets)
    wrong = np.where(known, np.abs(assessment.probabilities - targets), -1)
    doubt = np.where(known, -np.abs(assessment.probabilities - multi_label.THRESHOLD), -1)

    def sheet(by: np.ndarray, least: float) -> bytes | None:
        worst = by.argmax(axis=1)
        values = by[np.arange(len(by)), worst]
        numbers = np.argsort(-values, kind="stable")
        numbers = numbers[values[numbers] >= least]
        captions = [
            (f"{names[worst[one]]}: {'yes' if targets[one, worst[one]] == 1 else 'no'}",
             f"predicted {assessment.probabilities[one, worst[one]]:.1%}")
            for one in numbers[:MOST]
        ]  # fmt: skip
        return _sheet(assessment, numbers, captions)

    found = calibration.reliability(assessment.probabilities[known], targets[known] > 0)
    return {
        "reliability.png": charts.reliability(found, what="share of images that have the class"),
        "mistakes.png": sheet(wrong, multi_label.THRESHOLD),
        "uncertain.png": sheet(doubt, -multi_label.THRESHOLD),
    }


def _sheet(assessment: Assessment, numbers: np.ndarray, captions: list[tuple[str, str]]) -> bytes | None:
    if not len(numbers):
        return None
    return contact_sheet(assessment.images.images.encoded, [int(one) for one in numbers[:MOST]], captions)


def markdown(assessment: Assessment, drawn: Sequence[str]) -> str:
    """The text of report.md, with the pictures in `drawn`."""
    scores, images = assessment.scores, assessment.images
    parts = [
        f"# {_cell(assessment.model)}\n\nMeasured on {_cell(images.described)}.",
        _table(("", ""), facts(assessment)),
    ]
    notes = [*images.images.notes, *(f"left out: {message}" for message in assessment.unreadable)]
    if notes:
        parts.append("\n".join(f"- {_cell(note)}" for note in notes))
    parts += [f"## {PICTURES[name]}\n\n![{PICTURES[name]}]({name})" for name in drawn]
    if isinstance(scores, single_label.Scores) and scores.confused:
        rows = [(pair.label, pair.predicted, f"{pair.images:,}") for pair in scores.confused]
        parts.append("## Most confused\n\n" + _table(("class", "taken for", "images"), rows))
    parts.append("## Class by class\n\n" + _table(*class_table(scores)))
    parts.append("Every image's answer is in [predictions.csv](predictions.csv), every number in "
                 "[report.json](report.json).")  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: Any) -> str:
    """The text on one line, with Markdown's characters escaped."""
    plain = " ".join(str(text).split())
    return "".join(f"\\{char}" if char in "|*`[]<\\" else char for char in plain)
