"""An explanation as a picture: where the model looked, in the photograph's own geometry, and what drloc makes of it."""

import os
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from vtzoo.base import files
from vtzoo.errors import VtzooError
from vtzoo.evaluate.fonts import font_file, shortened
from vtzoo.explain.explanation import ROLLOUT, Explanation, Heat
from vtzoo.explain.geometry import Box, spread
from vtzoo.explain.localization import Localization

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIDE = 640  # pixels, the longer one of the photograph as it is drawn
COLUMNS = 4  # panels in a row, at the most
PANEL, GAP, ABOVE, BELOW = 3.6, 0.2, 0.4, 0.65  # inches: a panel's width, beside it, and for the words around it
LONGEST = 28  # characters of a class's name that have room above a panel
DARK = 0.18  # of its brightness is left of what the model did not see
HEAT, ERROR = "inferno", "viridis"  # both rise evenly in lightness, also to the colour-blind and in print
AXES = (("rows", "#0072b2", -0.13), ("columns", "#d55e00", 0.13))  # of a distance: colour, and place beside its tick


def check_place(out: Path, image: str | os.PathLike[str]) -> None:
    """A VtzooError where the picture cannot be written, or would replace the photograph; before any work is done."""
    if out.suffix.lower() != ".png":
        raise VtzooError(f"the picture is a PNG, and {str(out)!r} does not end in .png", f"--out {out.stem}.png")
    if not out.parent.is_dir():
        raise VtzooError(f"cannot write {out}: there is no folder {out.parent}", "make it, or choose another --out")
    if not os.access(out.parent, os.W_OK) or out.is_dir():
        raise VtzooError(f"cannot write {out}", "choose another --out")
    if out.exists() and os.path.exists(image) and out.samefile(image):  # noqa: PTH110
        raise VtzooError(f"{out} is the photograph itself", "choose another --out")


def draw(explanation: Explanation, out: Path) -> None:
    """Write the picture, whole or not at all: a panel for the photograph and for each class, and two for drloc."""
    content = render(explanation)
    try:
        files.write(out, content)
    except OSError as error:
        raise VtzooError(f"cannot write {out}: {error.strerror}", "choose another --out") from error


def render(explanation: Explanation) -> bytes:
    """The picture as a PNG."""
    from matplotlib.figure import Figure  # not pyplot: no window system, no global state

    photo, box = _small(explanation.photo, explanation.box)
    localization = explanation.localization
    panels = 1 + len(explanation.heats) + (2 if localization else 0)
    figure, places = _lay_out(Figure(), panels, photo.shape[0] / photo.shape[1])
    _draw_photo(places[0], photo, box)
    for axes, heat in zip(places[1:], explanation.heats, strict=False):
        _draw_heat(axes, photo, box, heat, explanation.method)
    if localization:
        _draw_errors(places[-2], photo, box, localization)
        _draw_distances(places[-1], localization)
    return _png(figure)


def _lay_out(figure: "Figure", panels: int, shape: float) -> tuple["Figure", list["Axes"]]:
    """A figure of that many panels, row by row; `shape` is a photograph's height, in widths of it."""
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


def _png(figure: "Figure") -> bytes:
    drawn = BytesIO()
    figure.savefig(drawn, format="png", dpi=110, metadata={"Software": None})
    return drawn.getvalue()


def _small(photo: Image.Image, box: Box) -> tuple[np.ndarray, Box]:
    """The photograph as float32 (height, width, 3) from 0 to 1, no side longer than SIDE, and the box in it."""
    factor = SIDE / max(photo.size)
    width, height = (max(round(side * factor), 1) for side in photo.size)
    small = photo.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(small, np.float32) / 255, box.scaled(factor)


def _draw_photo(axes: "Axes", photo: np.ndarray, box: Box) -> None:
    visible = spread(np.ones((1, 1)), box, *photo.shape[1::-1], smooth=False)
    axes.imshow(np.where(np.isnan(visible)[..., None], DARK * photo, photo), interpolation="nearest")
    axes.set_title("what the model saw" if np.isnan(visible).any() else "the photograph", fontsize=11)


def _draw_heat(axes: "Axes", photo: np.ndarray, box: Box, heat: Heat, method: str) -> None:
    """The map, over the photograph in grey: the hotter, the less of the grey shows through."""
    low, high = (float(heat.cells.min()), float(heat.cells.max())) if method == ROLLOUT else (0.0, 1.0)
    values = (spread(heat.cells, box, *photo.shape[1::-1], smooth=True) - low) / max(high - low, 1e-9)
    shown = _lay_over(axes, photo, values, HEAT, 0.25 + 0.5 * values)
    told = f"{shortened(heat.label, LONGEST)}, {heat.probability:.1%}"
    axes.set_title(told, font=font_file(), fontsize=12, parse_math=False)
    rows, columns = heat.cells.shape
    ends = ["does not count", "counts most"] if heat.cells.any() else ["no cell speaks for it", ""]
    if method == ROLLOUT:
        ends = [f"{low:.2f} times an equal share", f"{high:.2f} times"]
    _draw_bar(axes, shown, f"{method}, {rows} x {columns} cells", ends)


def _draw_errors(axes: "Axes", photo: np.ndarray, box: Box, found: Localization) -> None:
    """The mean error of the pairs that each cell has a part in."""
    errors = found.by_cell()
    high = max(float(errors.max()), found.constant_error)
    values = spread(errors, box, *photo.shape[1::-1], smooth=False) / high
    shown = _lay_over(axes, photo, values, ERROR, np.full_like(values, 0.6))
    axes.set_title("drloc: where it is wrong", fontsize=11)
    _draw_bar(axes, shown, "mean error of a cell's pairs, cells", ["0", f"{high:.2f}"])


def _draw_bar(axes: "Axes", shown: Any, name: str, ends: list[str]) -> None:
    """What the colours mean, right below a panel: both ends in words, and the name of the whole."""
    bar = axes.figure.colorbar(shown, cax=axes.inset_axes((0, -0.06, 1, 0.035)), orientation="horizontal")
    bar.set_label(name, fontsize=9, labelpad=1)
    bar.set_ticks([0, 1], labels=ends, fontsize=9)
    for label, side in zip(bar.ax.get_xticklabels(), ("left", "right"), strict=True):
        label.set_horizontalalignment(side)
    bar.outline.set_visible(False)


def _lay_over(axes: "Axes", photo: np.ndarray, values: np.ndarray, colours: str, opacity: np.ndarray) -> Any:
    """Values from 0 to 1 in colours over the photograph in grey, dark where they are NaN; and what a bar can show."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable

    grey = np.repeat(photo @ np.array([0.299, 0.587, 0.114], np.float32)[:, None], 3, axis=2)
    opacity, colour = np.nan_to_num(opacity)[..., None], colormaps[colours](np.nan_to_num(values))[..., :3]
    mixed = np.where(np.isnan(values)[..., None], DARK * grey, (1 - opacity) * grey + opacity * colour)
    axes.imshow(mixed.clip(0, 1), interpolation="nearest")
    return ScalarMappable(cmap=colours)


def _draw_distances(axes: "Axes", found: Localization) -> None:
    """Predicted against true distances: a dot a pair and axis, and their means; right is on the diagonal."""
    left, bottom, width, height = axes.get_position().bounds
    axes.set_position((left + 0.13 * width, bottom, 0.87 * width, height))  # its ticks have words
    axes.set_frame_on(True)
    low, high = min(float(found.true.min()), 0), float(found.true.max())
    axes.plot([low, high], [low, high], color="0.5", linestyle="--", linewidth=1, zorder=1)
    jitter = np.random.default_rng(0).uniform(-0.09, 0.09, len(found.true))
    for number, (name, colour, beside) in enumerate(AXES):
        true, predicted = found.true[:, number], found.predicted[:, number]
        axes.scatter(true + beside + jitter, predicted, s=6, color=colour, alpha=0.25, linewidths=0, zorder=2)
        steps = np.unique(true)
        means = [predicted[true == step].mean() for step in steps]
        axes.plot(steps + beside, means, "o", color=colour, markeredgecolor="white", markersize=7, label=name, zorder=3)
    axes.set(xlabel="true distance, cells", ylabel="predicted distance, cells")
    axes.set_title(f"drloc: off by {found.error:.2f} cells; a constant by {found.constant_error:.2f}", fontsize=10.5)
    ticks = np.arange(low, high + 1, 1 if high - low < 10 else 4)
    axes.set(xticks=ticks, yticks=ticks)
    axes.legend(fontsize=9, frameon=False, loc="upper left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
