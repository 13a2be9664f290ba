"""An assessment as text, for a terminal and for report.md."""

from collections.abc import Iterator
from typing import TypeAlias

from vtzoo.evaluate import multi_label, single_label
from vtzoo.evaluate.run import Assessment

Row: TypeAlias = tuple[str, ...]
SHOWN = 5  # classes, and pairs of classes, in a terminal


def facts(assessment: Assessment) -> list[tuple[str, str]]:
    """The names and the formatted values of all metrics."""
    scores, images = assessment.scores, len(assessment.images)
    if isinstance(scores, single_label.Scores):
        low, high = scores.top1_interval
        found = [("top-1", f"{scores.top1:.2%} (95% interval {low:.2%} to {high:.2%})")]
        found += [("top-5", f"{scores.top5:.2%}")] if len(assessment.labels) > 5 else []
        more = [("negative log-likelihood", f"{scores.negative_log_likelihood:.4f}"),
                ("Brier score", f"{scores.brier_score:.4f}")]  # fmt: skip
    else:
        found, more = [("mAP", f"{scores.map:.2%}")], [("known", f"{scores.known:.1%} of the classes of all images")]
    return [
        *found,
        ("macro F1", f"{scores.macro_f1:.2%}"),
        ("expected calibration error", f"{scores.expected_calibration_error:.2%}"),
        *more,
        ("images", f"{images:,}"),
        *([("of unknown classes", f"{assessment.images.unknown:,}, left out")] if assessment.images.unknown else []),
        *([("unreadable", f"{len(assessment.unreadable):,}, left out")] if assessment.unreadable else []),
        ("manifest", assessment.fingerprint),
        ("images/s", f"{images / assessment.seconds:,.0f}"),
    ]


def lines(assessment: Assessment) -> Iterator[str]:
    """The lines for a terminal: all metrics, the most confused pairs, and the worst classes."""
    scores = assessment.scores
    yield f"{assessment.model} on {assessment.images.described}"
    for name, value in facts(assessment):
        yield f"  {name:<26}  {value}"
    if isinstance(scores, single_label.Scores) and scores.confused:
        pairs = [f"{one.label} as {one.predicted} ({one.images:,})" for one in scores.confused[:SHOWN]]
        yield f"most confused: {', '.join(pairs)}"
    header, rows = class_table(scores)
    order = sorted(range(len(rows)), key=lambda number: _quality(scores.per_class[number]))
    shown = order[:SHOWN] if len(rows) > SHOWN else range(len(rows))
    yield f"the {SHOWN} worst of {len(rows):,} classes:" if len(rows) > SHOWN else "class by class:"
    table = [header, *(rows[number] for number in shown)]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    for name, *values in table:
        yield "  ".join(["", name.ljust(widths[0]), *map(str.rjust, values, widths[1:])])


def class_table(scores: single_label.Scores | multi_label.Scores) -> tuple[Row, list[Row]]:
    """A header, and a row for each class."""
    if isinstance(scores, single_label.Scores):
        columns = ("class", "precision", "recall", "F1", "images")
        return columns, [
            (one.label, *map(_percent, (one.precision, one.recall, one.f1)), f"{one.support:,}")
            for one in scores.per_class
        ]
    columns = ("class", "average precision", "F1", "images with it", "images without")
    return columns, [
        (one.label, *map(_percent, (one.average_precision, one.f1)), f"{one.positives:,}", f"{one.negatives:,}")
        for one in scores.per_class
    ]


def _quality(one: single_label.ClassScores | multi_label.ClassScores) -> float:
    """The sort key of classes, worst first; classes without a score are last."""
    value = one.f1 if isinstance(one, single_label.ClassScores) else one.average_precision
    return 2.0 if value is None else value


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{fraction:.1%}"
