"""The results of an evaluation as text, for a terminal and for report.md."""

from collections.abc import Iterator
from typing import TypeAlias

from vtzoo.evaluate import multi_label, single_label
from vtzoo.evaluate.run import Assessment

Row: TypeAlias = tuple[str, ...]
SHOWN = 5  # classes, and pairs of confused classes, on a terminal


def facts(assessment: Assessment) -> list[tuple[str, str]]:
    """The name and the text of each result."""
    scores, images = assessment.scores, len(assessment.images)
    if isinstance(scores, single_label.Scores):
        low, high = scores.top1_interval
        first = [("top-1", f"{scores.top1:.2%} (95% interval {low:.2%} to {high:.2%})")]
        first += [("top-5", f"{scores.top5:.2%}")] if len(assessment.labels) > 5 else []
        more = [("negative log-likelihood", f"{scores.negative_log_likelihood:.4f}"),
                ("Brier score", f"{scores.brier_score:.4f}")]  # fmt: skip
    else:
        first, more = [("mAP", f"{scores.map:.2%}")], [("known", f"{scores.known:.1%} of all labels")]
    return [
        *first,
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
    """The lines for a terminal: all results, the most confused pairs of classes, and the worst classes."""
    scores = assessment.scores
    yield f"{assessment.model} on {assessment.images.described}"
    for name, value in facts(assessment):
        yield f"  {name:<26}  {value}"
    if isinstance(scores, single_label.Scores) and scores.confused:
        pairs = [f"{pair.label} as {pair.predicted} ({pair.images:,})" for pair in scores.confused[:SHOWN]]
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
    """The header, and a row for each class."""
    if isinstance(scores, single_label.Scores):
        return ("class", "precision", "recall", "F1", "images"), [
            (of.label, _percent(of.precision), _percent(of.recall), _percent(of.f1), f"{of.support:,}")
            for of in scores.per_class
        ]
    return ("class", "average precision", "F1", "images with it", "images without"), [
        (of.label, _percent(of.average_precision), _percent(of.f1), f"{of.positives:,}", f"{of.negatives:,}")
        for of in scores.per_class
    ]


def _quality(scores: single_label.ClassScores | multi_label.ClassScores) -> float:
    """The metric that orders classes, the worst first; 2 without a value, which comes last."""
    value = scores.f1 if isinstance(scores, single_label.ClassScores) else scores.average_precision
    return 2.0 if value is None else value


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{fraction:.1%}"
