"""Draws an explanation: class maps over the photograph, and the errors of the localization head."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from vtzoo.base import files
from vtzoo.errors import VtzooError
from vtzoo.evaluate.charts import png
from vtzoo.evaluate.fonts import font_file, shortened
from vtzoo.explain.explanation import ROLLOUT, ClassMap, Explanation
from vtzoo.explain.geometry import Box, expand_cells
from vtzoo.explain.localization import Localization

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIDE = 640  # pixels, of the longer side of the drawn photograph
COLUMNS = 4  # panels in a row, at most
PANEL, GAP, ABOVE, BELOW = 3.6, 0.2, 0.4, 0.65  # inches: a panel's width, the gap beside it, and the room for text
LONGEST = 28  # characters of a class name that fit above a panel
DARK = 0.18  # brightness of the part that the model did not see
HEAT, ERROR = "inferno", "viridis"  # both rise evenly in lightness, also for the colour-blind and in print
AXES = (("rows", "#0072b2", -0.13), ("columns", "#d55e00", 0.13))  # name, colour, and offset beside the tick


def check_output(out: Path, image: str | os.PathLike[str]) -> None:
    """Raise a VtzooError if the picture cannot be written, or would replace the photograph."""
    if out.suffix.lower() != ".png":
        raise VtzooError(f"the picture is a PNG, but {str(out)!r} does not end in .png", f"--out {out.stem}.png")
    if not out.parent.is_dir():
        raise VtzooError(f"cannot write {out}: there is no folder {out.parent}", "create it, or choose another --out")
    if not os.access(out.parent, os.W_OK) or out.is_dir():
        raise VtzooError(f"cannot write {out}", "choose another --out")
    if out.exists() and os.path.exists(image) and out.samefile(image):  # noqa: PTH110
        raise VtzooError(f"{out} is the photograph itself", "choose another --out")


def write_picture(explanation: Explanation, out: Path) -> None:
    """Write the picture: a panel for the photograph and each class, and two for drloc. An OSError is a VtzooError."""
    content = render(explanation)
    try:
        files.write(out, content)
    except OSError as error:
        raise VtzooError(f"cannot write {out}: {error.strerror}", "choose another --out") from error


def render(explanation: Explanation) -> bytes:
    """The picture as a PNG."""
    from matplotlib.figure import Figure  # not pyplot: no windows and no global state

    photo, box = _small(explanation.photo, explanation.box)
    localization = explanation.localization
    panels = 1 + len(explanation.maps) + (2 if localization else 0)
    figure, places = _lay_out(Figure(), panels, photo.shape[0] / photo.shape[1])
    _draw_photo(places[0], photo, box)
    for axes, class_map in zip(places[1:], explanation.maps, strict=False):
        _draw_map(axes, photo, box, class_map, explanation.method)
    if localization:
        _draw_errors(places[-2], photo, box, localization)
        _draw_distances(places[-1], localization)
    return png(figure, dpi=110)


def _lay_out(figure: "Figure", panels: int, shape: float) -> tuple["Figure", list["Axes"]]:
    """The figure with that many panels, row by row; `shape` is the photograph's height over its width."""
    rows = -(-panels // COLUMNS)
    columns = -(-panels // rows)
    width, height = PANEL, PANEL * min(max(shape, 0.6), 1.4)
    across, down = width + GAP, ABOVE + height + BELOW
    whole = columns * across + GAP, rows * down
    figure.set_size_inches(*whole)
    axes = []
    for row, column in (divmod(panel, columns) for panel in range(panels)):
        left, bottom = GAP + column * across, (rows - row - 1) * down + BELOW
        place = left / whole[0], bottom / whole[1], width / whole[0], height / whole[1]
        axes.append(figure.add_axes(place, anchor="N", frame_on=False, xticks=[], yticks=[]))
    return figure, axes


def _small(photo: Image.Image, box: Box) -> tuple[np.ndarray, Box]:
    """The photograph with a longer side of SIDE, float32 (height, width, 3) from 0 to 1, and the box in it."""
    factor = SIDE / max(photo.size)
    width, height = (max(round(side * factor), 1) for side in photo.size)
    small = photo.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(small, np.float32) / 255, box.scaled(factor)


def _draw_photo(axes: "Axes", photo: np.ndarray, box: Box) -> None:
    visible = expand_cells(np.ones((1, 1)), box, *photo.shape[1::-1], smooth=False)
    axes.imshow(np.where(np.isnan(visible)[..., None], DARK * photo, photo), interpolation="nearest")
    axes.set_title("what the model saw" if np.isnan(visible).any() else "the photograph", fontsize=11)


def _draw_map(axes: "Axes", photo: np.ndarray, box: Box, class_map: ClassMap, method: str) -> None:
    """Draw the map over the photograph in grey; less of the photograph shows through a higher value."""
    cells = class_map.cells
    low, high = (float(cells.min()), float(cells.max())) if method == ROLLOUT else (0.0, 1.0)
    values = (expand_cells(cells, box, *photo.shape[1::-1], smooth=True) - low) / max(high - low, 1e-9)
    shown = _lay_over(axes, photo, values, HEAT, 0.25 + 0.5 * values)
    title = f"{shortened(class_map.label, LONGEST)}, {class_map.probability:.1%}"
    axes.set_title(title, font=font_file(), fontsize=12, parse_math=False)
    rows, columns = cells.shape
    ends = ["no evidence", "most evidence"] if cells.any() else ["no evidence in any cell", ""]
    if method == ROLLOUT:
        ends = [f"{low:.2f} times an equal share", f"{high:.2f} times"]
    _draw_bar(axes, shown, f"{method}, {rows} x {columns} cells", ends)


def _draw_errors(axes: "Axes", photo: np.ndarray, box: Box, localization: Localization) -> None:
    """Draw each cell's mean error over its pairs."""
    errors = localization.by_cell()
    high = max(float(errors.max()), localization.constant_error)
    values = expand_cells(errors, box, *photo.shape[1::-1], smooth=False) / high
    shown = _lay_over(axes, photo, values, ERROR, np.full_like(values, 0.6))
    axes.set_title("drloc: its errors", fontsize=11)
    _draw_bar(axes, shown, "mean error of a cell's pairs, cells", ["0", f"{high:.2f}"])


def _draw_bar(axes: "Axes", shown: Any, name: str, ends: list[str]) -> None:
    """Draw a colour bar below a panel, with a label and a text at each end."""
    bar = axes.figure.colorbar(shown, cax=axes.inset_axes((0, -0.06, 1, 0.035)), orientation="horizontal")
    bar.set_label(name, fontsize=9, labelpad=1)
    bar.set_ticks([0, 1], labels=ends, fontsize=9)
    for label, side in zip(bar.ax.get_xticklabels(), ("left", "right"), strict=True):
        label.set_horizontalalignment(side)
    bar.outline.set_visible(False)


def _lay_over(axes: "Axes", photo: np.ndarray, values: np.ndarray, colours: str, opacity: np.ndarray) -> Any:
    """Draw values from 0 to 1 in colours over the photograph in grey, dark for NaN; return the colours for a bar."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable

    grey = np.repeat(photo @ np.array([0.299, 0.587, 0.114], np.float32)[:, None], 3, axis=2)
    opacity, colour = np.nan_to_num(opacity)[..., None], colormaps[colours](np.nan_to_num(values))[..., :3]
    mixed = np.where(np.isnan(values)[..., None], DARK * grey, (1 - opacity) * grey + opacity * colour)
    axes.imshow(mixed.clip(0, 1), interpolation="nearest")
    return ScalarMappable(cmap=colours)


def _draw_distances(axes: "Axes", localization: Localization) -> None:
    """Draw predicted against true distances: a dot for each pair and axis, their means, and the diagonal."""
    left, bottom, width, height = axes.get_position().bounds
    axes.set_position((left + 0.13 * width, bottom, 0.87 * width, height))  # space for the labels
    axes.set_frame_on(True)
    low, high = min(float(localization.true.min()), 0), float(localization.true.max())
    axes.plot([low, high], [low, high], color="0.5", linestyle="--", linewidth=1, zorder=1)
    jitter = np.random.default_rng(0).uniform(-0.09, 0.09, len(localization.true))
    for number, (name, colour, beside) in enumerate(AXES):
        true, predicted = localization.true[:, number], localization.predicted[:, number]
        axes.scatter(true + beside + jitter, predicted, s=6, color=colour, alpha=0.25, linewidths=0, zorder=2)
        steps = np.unique(true)
        means = [predicted[true == step].mean() for step in steps]
        axes.plot(steps + beside, means, "o", color=colour, markeredgecolor="white", markersize=7, label=name, zorder=3)
    axes.set(xlabel="true distance, cells", ylabel="predicted distance, cells")
    title = f"drloc: off by {localization.error:.2f} cells; a constant by {localization.constant_error:.2f}"
    axes.set_title(title, fontsize=10.5)
    ticks = np.arange(low, high + 1, 1 if high - low < 10 else 4)
    axes.set(xticks=ticks, yticks=ticks)
    axes.legend(fontsize=9, frameon=False, loc="upper left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
