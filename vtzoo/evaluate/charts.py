"""confusion.png and reliability.png, drawn from a model's predictions."""

from io import BytesIO
from typing import Any

import numpy as np

from vtzoo.evaluate.calibration import Reliability
from vtzoo.evaluate.fonts import font_file, shortened

LARGEST = 1_000  # classes a side of a confusion matrix
COUNTED = 20  # classes at most, for numbers of images in the cells
NAMED = 110  # classes at most, for class names beside the matrix
LONGEST = 24  # characters of a name beside the matrix
OTHER = "(any other)"
SHARES = "share of the class's images"


def confusion(labels: np.ndarray, predicted: np.ndarray, names: tuple[str, ...]) -> bytes:
    """A PNG of the confusion matrix: a row for each class with images, in the model's order, as shares of its images.

    Colours follow a root of the share, so that rare confusions are visible. A last column has the predictions of
    classes without images. Of more than LARGEST classes, those with the most images are shown.
    """
    from matplotlib.colors import PowerNorm

    matrix, shown, left = table(labels, predicted, names)
    rows, columns = matrix.shape
    written = [shortened(names[number], LONGEST) for number in shown] if rows <= NAMED else []
    written += [OTHER] * (columns - rows) if written else []
    side = float(np.clip(0.11 * columns, 3.5, 12))  # inches, of the matrix
    beside = 1 + 0.08 * max(map(len, written), default=0)  # inches, of the names
    figure, axes = _figure((side + beside + 1, side + beside))
    shares = matrix / np.bincount(labels, minlength=len(names))[shown][:, None]
    root = PowerNorm(0.5 if written else 0.3, vmin=0, vmax=1)
    image = axes.imshow(shares, cmap="Blues", norm=root, interpolation="nearest")
    figure.colorbar(image, ax=axes, label=SHARES, fraction=0.04, ticks=[0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1])
    of = f", the ones with the most images of {rows + left:,}" if left else ""
    axes.set(xlabel="predicted", ylabel="true", title=f"{rows:,} classes{of}")
    if written:
        size = min(10.0, 0.75 * 72 * side / columns)  # points: a cell's height, less a quarter
        style = {"font": font_file(), "fontsize": size, "parse_math": False}
        axes.set_xticks(range(columns), written, rotation=90, **style)
        axes.set_yticks(range(rows), written[:rows], **style)
    else:
        axes.set(xlabel="predicted, in the model's order of classes", xticks=[], yticks=[])
    if columns <= COUNTED:
        for row, column in np.argwhere(matrix):
            color = "white" if shares[row, column] > 0.35 else "black"
            axes.text(column, row, f"{matrix[row, column]:,}", ha="center", va="center", color=color, fontsize=8)
    return png(figure, dpi=120)


def table(labels: np.ndarray, predicted: np.ndarray, names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray, int]:
    """Counts, int64 (rows, columns), the classes of the rows, and the number of classes with images that are not shown.

    The columns are the same classes, and a last column for all other classes if any of them is predicted.
    """
    from sklearn.metrics import confusion_matrix

    present, images = np.unique(labels, return_counts=True)
    shown = np.sort(present[np.argsort(-images, kind="stable")[:LARGEST]])
    position = np.full(len(names), len(shown))
    position[shown] = np.arange(len(shown))
    kept = position[labels] < len(shown)
    true, taken = position[labels[kept]], position[predicted[kept]]
    matrix = confusion_matrix(true, taken, labels=np.arange(len(shown) + 1))[: len(shown)]
    return matrix if matrix[:, -1].any() else matrix[:, :-1], shown, len(present) - len(shown)


def reliability(measured: Reliability, *, frequency: str) -> bytes:
    """A PNG of the reliability diagram: the frequency of correct predictions by their probability, above their numbers.

    `frequency` is the label of the frequencies, such as "accuracy" for the most probable class of each image.
    """
    edges, filled = np.linspace(0, 1, len(measured.counts) + 1), measured.counts > 0
    middles, width = (edges[1:] + edges[:-1]) / 2, edges[1]
    figure, (above, below) = _figure((5.5, 6.5), nrows=2, height_ratios=(3, 1), sharex=True)
    above.plot([0, 1], [0, 1], color="0.5", linestyle="--", label="perfectly calibrated")
    above.bar(middles[filled], measured.frequency[filled], width, edgecolor="white", color="tab:blue", label=frequency)
    above.scatter(measured.probability[filled], measured.frequency[filled], color="black", s=12, zorder=3,
                  label="at the bin's mean probability")  # fmt: skip
    above.set(ylabel=frequency, xlim=(0, 1), ylim=(0, 1), title=f"expected calibration error {measured.error:.2%}")
    above.legend(loc="upper left", fontsize=8)
    bars = below.bar(middles, measured.counts, width, edgecolor="white", color="tab:gray")
    below.bar_label(bars, [f"{count:,}" if count else "" for count in measured.counts], fontsize=6)
    below.set(xlabel="probability", ylabel="predictions")
    below.margins(y=0.2)
    return png(figure, dpi=120)


def _figure(size: tuple[float, float], **grid: Any) -> tuple[Any, Any]:
    """A figure of that size in inches, and its axes."""
    from matplotlib.figure import Figure  # not pyplot: no window system, no global state

    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(**grid)


def png(figure: Any, *, dpi: int) -> bytes:
    """The figure as a PNG, without matplotlib's version in its metadata."""
    drawn = BytesIO()
    figure.savefig(drawn, format="png", dpi=dpi, metadata={"Software": None})
    return drawn.getvalue()
