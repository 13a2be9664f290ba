"""A folder with all results of an evaluation: metrics, predictions, pictures, and report.md, which links them."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
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
    "confusion.png": "Confusion matrix", "reliability.png": "Reliability diagram",
    "mistakes.png": "Most confident mistakes", "uncertain.png": "Least certain images",
}  # fmt: skip
FILES = ("report.json", "predictions.csv", *PICTURES, "report.md")


def check(folder: Path) -> None:
    """Raise if a report cannot be written to the folder; called before the evaluation."""
    if folder.exists() and not folder.is_dir():
        raise VtzooError(f"{folder} is not a folder", "choose another --report")


def write(assessment: Assessment, folder: Path) -> Path:
    """report.md, written last into the folder with all other files, each file whole or not at all.

    Deletes the files of an earlier report before it writes, so that a report never mixes two evaluations.
    """
    check(folder)
    drawn = pictures(assessment)
    contents = {
        "report.json": f"{json.dumps(assessment.as_json(), indent=2)}\n".encode(),
        "predictions.csv": predictions(assessment).encode(),
        **drawn, "report.md": markdown(assessment, list(drawn)).encode(),
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    for name in reversed(FILES):
        (folder / name).unlink(missing_ok=True)
    for name, content in contents.items():
        files.write(folder / name, content)
    return folder / "report.md"


def predictions(assessment: Assessment) -> str:
    """A CSV with a line per image: image, label, predicted, probability, correct; `;` separates several classes.

    A multi-label image is correct if the predictions of all its known labels are.
    """
    file = io.StringIO()
    lines = csv.writer(file, lineterminator="\n")
    lines.writerow(("image", "label", "predicted", "probability", "correct"))
    images, labels = assessment.images, assessment.labels
    for number, (target, scores) in enumerate(zip(images.targets, assessment.probabilities, strict=True)):
        if images.images.multi_label:
            positive, known = scores >= multi_label.THRESHOLD, ~np.isnan(target)
            true, chosen = np.flatnonzero(target == 1), np.flatnonzero(positive)
            correct = bool(np.all(positive[known] == (target > 0)[known]))
        else:
            true, chosen = np.array([target]), np.array([scores.argmax()])
            correct = bool(true[0] == chosen[0])
        names = (";".join(labels[index] for index in indices) for indices in (true, chosen))
        shares = ";".join(f"{scores[index]:.6g}" for index in chosen)
        lines.writerow((images.images.encoded.name(number), *names, shares, str(correct).lower()))
    return file.getvalue()


def pictures(assessment: Assessment) -> dict[str, bytes]:
    """The PNG files by name; a contact sheet without images is left out."""
    draw = _multi_label_pictures if assessment.images.images.multi_label else _single_label_pictures
    return {name: content for name, content in draw(assessment).items() if content is not None}


def _single_label_pictures(assessment: Assessment) -> dict[str, bytes | None]:
    labels, names = assessment.images.targets, assessment.labels
    predicted, surest = assessment.probabilities.argmax(axis=1), assessment.probabilities.max(axis=1)
    right, order = predicted == labels, np.argsort(surest, kind="stable")

    def caption(index: int) -> tuple[str, str]:
        return f"is {names[labels[index]]}", f"{surest[index]:.1%} {names[predicted[index]]}"

    return {
        "confusion.png": charts.confusion(labels, predicted, names),
        "reliability.png": charts.reliability(calibration.reliability(surest, right), frequency="accuracy"),
        "mistakes.png": _sheet(assessment, order[::-1][~right[order[::-1]]], caption),
        "uncertain.png": _sheet(assessment, order, caption),
    }


def _multi_label_pictures(assessment: Assessment) -> dict[str, bytes | None]:
    """The pictures by name; an image's mistake is its worst class, its uncertainty the class nearest to THRESHOLD."""
    targets, probabilities, names = assessment.images.targets, assessment.probabilities, assessment.labels
    known = ~np.isnan(targets)
    wrong = np.where(known, np.abs(probabilities - targets), -1)
    doubt = np.where(known, -np.abs(probabilities - multi_label.THRESHOLD), -1)

    def sheet(values: np.ndarray, least: float) -> bytes | None:
        worst, highest = values.argmax(axis=1), values.max(axis=1)
        order = np.argsort(-highest, kind="stable")

        def caption(index: int) -> tuple[str, str]:
            at = index, worst[index]
            return f"{names[at[1]]}: {'yes' if targets[at] == 1 else 'no'}", f"predicted {probabilities[at]:.1%}"

        return _sheet(assessment, order[highest[order] >= least], caption)

    measured = calibration.reliability(probabilities[known], targets[known] > 0)
    return {
        "reliability.png": charts.reliability(measured, frequency="share of images that have the class"),
        "mistakes.png": sheet(wrong, multi_label.THRESHOLD), "uncertain.png": sheet(doubt, -multi_label.THRESHOLD),
    }  # fmt: skip


def _sheet(
    assessment: Assessment, indices: np.ndarray, caption: Callable[[int], tuple[str, str]]
) -> bytes | None:  # fmt: skip
    """The contact sheet of the first images at `indices`; None without any."""
    shown = [int(index) for index in indices[:MOST]]
    return contact_sheet(assessment.images.images.encoded, shown, list(map(caption, shown))) if shown else None


def markdown(assessment: Assessment, drawn: Sequence[str]) -> str:
    """The text of report.md, with the drawn pictures."""
    scores, images = assessment.scores, assessment.images
    head = f"# {_cell(assessment.model)}\n\nMeasured on {_cell(images.described)}."
    parts = [head, _table(("", ""), facts(assessment))]
    notes = [*images.images.notes, *(f"left out: {message}" for message in assessment.unreadable)]
    if notes:
        parts.append("\n".join(f"- {_cell(note)}" for note in notes))
    parts += [f"## {PICTURES[name]}\n\n![{PICTURES[name]}]({name})" for name in drawn]
    if isinstance(scores, single_label.Scores) and scores.confused:
        rows = [(pair.label, pair.predicted, f"{pair.images:,}") for pair in scores.confused]
        parts.append("## Most confused\n\n" + _table(("class", "taken for", "images"), rows))
    parts.append("## Class by class\n\n" + _table(*class_table(scores)))
    parts.append("[predictions.csv](predictions.csv) has all predictions, [report.json](report.json) all metrics.")
    return "\n\n".join(parts) + "\n"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: Any) -> str:
    """The text on one line, with Markdown's characters escaped."""
    plain = " ".join(str(text).split())
    return "".join(f"\\{char}" if char in "|*`[]<\\" else char for char in plain)
