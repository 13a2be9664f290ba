"""curves.png: how a run went, drawn from its metrics.jsonl."""

import json
from pathlib import Path

import numpy as np

PANELS = (
    ("cross_entropy", "cross-entropy"),
    ("accuracy", "accuracy, training batches"),
    ("localization", "localization error, cells"),
)


def draw_curves(metrics: Path, picture: Path, steps_per_epoch: int) -> None:
    """Draw the means of every epoch: the loss, the accuracy and, with drloc, the localization error."""
    from matplotlib.figure import Figure  # not pyplot: no window system, no global state

    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    panels = [(key, title) for key, title in PANELS if any(line[key] for line in lines)]
    figure = Figure(figsize=(4 * len(panels), 3), layout="constrained")
    for axes, (key, title) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        values = epoch_means([line[key] for line in lines], steps_per_epoch)
        axes.plot(np.arange(1, len(values) + 1), values, marker="." if len(values) < 30 else "")
        axes.set(title=title, xlabel="epoch")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    figure.savefig(picture, dpi=110, metadata={"Software": None})


def epoch_means(values: list[float], steps_per_epoch: int) -> np.ndarray:
    """The mean of every whole epoch's steps."""
    whole = len(values) // steps_per_epoch * steps_per_epoch
    return np.array(values[:whole]).reshape(-1, steps_per_epoch).mean(axis=1)
