"""curves.png: how a run went, drawn from its metrics.jsonl."""

import json
from io import BytesIO
from pathlib import Path

import numpy as np

from vtzoo.base import files
from vtzoo.zoo.recipe import Drloc

PANELS = (
    ("cross_entropy", "cross-entropy"), ("accuracy", "accuracy, training batches"), ("localization", ""),
    ("distillation", "divergence from the teacher"),
)  # fmt: skip
IN_CELLS = (None, "l1", "signed", "off_grid", "every_stage")  # losses that are mean errors of a distance


def draw_curves(metrics: Path, picture: Path, steps_per_epoch: int, drloc: Drloc | None) -> None:
    """Draw the means of every epoch: the loss, the accuracy and, where there are, what drloc and a teacher measure.

    The picture appears whole or not at all, so that it can be looked at while the run goes on.
    """
    from matplotlib.figure import Figure  # not pyplot: no window system, no global state

    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    panels = [(key, title) for key, title in PANELS if any(line.get(key) for line in lines)]
    figure = Figure(figsize=(4 * len(panels), 3), layout="constrained")
    for axes, (key, title) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        values = epoch_means([line[key] for line in lines], steps_per_epoch)
        axes.plot(np.arange(1, len(values) + 1), values, marker="." if len(values) < 30 else "")
        axes.set(title=title or _localization(drloc), xlabel="epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        if min(values, default=0) >= 0:  # the variance-aware loss goes below
            axes.set_ylim(0, 1.05 * max(values, default=1) or None)
        axes.grid(alpha=0.3)
    drawn = BytesIO()
    figure.savefig(drawn, format="png", dpi=110, metadata={"Software": None})
    files.write(picture, drawn.getvalue())


def _localization(drloc: Drloc | None) -> str:
    """What the third panel shows: an error in cells, or a loss without a unit."""
    if drloc is None or (drloc.loss in IN_CELLS and not drloc.normalize):
        return "localization error, cells"
    return f"localization loss, {drloc.loss or 'l1'}"


def epoch_means(values: list[float], steps_per_epoch: int) -> np.ndarray:
    """The mean of every whole epoch's steps."""
    whole = len(values) // steps_per_epoch * steps_per_epoch
    return np.array(values[:whole]).reshape(-1, steps_per_epoch).mean(axis=1)
