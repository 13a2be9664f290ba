"""What a run says of itself as it goes on: metrics.jsonl, curves.png, and events for TensorBoard where it is there."""

import json
import math
import os
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vtzoo.base import files
from vtzoo.errors import VtzooError
from vtzoo.train.curves import draw_curves
from vtzoo.train.distributed import World
from vtzoo.zoo.recipe import Drloc

DRAWING = 0.01  # of the time, at the most, goes into drawing curves


class Log:
    """metrics.jsonl: one line a step, in order, each step once, whatever interruptions came between.

    The first rank alone writes; what it writes are the means over all ranks.
    """

    def __init__(self, folder: Path, step: int, images: int, world: World, hint: str | None = None) -> None:
        """Open the log to go on after `step`: lines of later steps, from before a kill, are dropped.

        `images` is what this rank trains on in a step, `hint` what to do where the loss is not finite. A log that ends
        before the step is a VtzooError.
        """
        self.images, self.world, self.hint = images, world, hint
        self._path, self._picture = folder / "metrics.jsonl", folder / "curves.png"
        self._waiting: list[tuple[int, float, dict[str, Tensor]]] = []
        self._last = (0.0, 0.0)
        self._events, self._written, self._drawn, self._drawing = None, 0, -math.inf, 0.0
        self.seconds = self._open(step) if self.world.leads else 0.0
        self._clock = time.monotonic()

    def _open(self, step: int) -> float:
        """Cut the file down to the steps taken, open TensorBoard's beside it, and return the training time so far."""
        lines = self._path.read_text().splitlines() if step and self._path.exists() else []
        kept = lines[:step]
        seconds = _seconds(kept, step, self._path)
        files.write(self._path, "".join(line + "\n" for line in kept).encode())
        self._events = _events(self._path.parent / "tensorboard", step)
        return seconds

    def add(self, step: int, rate: float, losses: dict[str, Tensor]) -> None:
        """Keep a step's learning rate and its losses, on the device, until the next flush."""
        self._waiting.append((step, rate, losses))

    def flush(self) -> tuple[float, float]:
        """Write what waits, and return its mean loss and accuracy; a loss that is not finite is a VtzooError."""
        if not self._waiting:
            return self._last
        now = time.monotonic()
        self.seconds, self._clock = self.seconds + now - self._clock, now
        lines = [self._line(*waiting) for waiting in self._read()]
        diverged = next((index for index, line in enumerate(lines) if not math.isfinite(line["loss"])), None)
        if self.world.leads:
            self._write(lines[:diverged])
        self._waiting = []
        if diverged is not None:
            line = lines[diverged]
            at = f"step {line['step']}, at a learning rate of {line['learning_rate']:.2g}"
            raise VtzooError(f"the loss is {line['loss']} at {at}", self.hint)
        loss, accuracy = (sum(line[name] for line in lines) / len(lines) for name in ("loss", "accuracy"))
        self._last = loss, accuracy
        return self._last

    def _read(self) -> list[tuple[int, float, dict[str, float]]]:
        """What waits, as numbers: the mean over the ranks, brought from the device at once."""
        names = list(self._waiting[0][2])
        values = torch.stack([torch.stack([losses[name].float() for name in names]) for *_, losses in self._waiting])
        rows = self.world.mean(values).tolist()
        return [
            (step, rate, dict(zip(names, row, strict=True)))
            for (step, rate, _), row in zip(self._waiting, rows, strict=True)
        ]

    def _line(self, step: int, rate: float, losses: dict[str, float]) -> dict[str, Any]:
        line: dict[str, Any] = {"step": step} | losses
        return line | {
            "accuracy": line.pop("right") / self.images, "learning_rate": rate, "seconds": round(self.seconds, 3)
        }  # fmt: skip

    def _write(self, lines: list[dict[str, Any]]) -> None:
        self._written += len(lines)
        with self._path.open("a") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
        if self._events and lines:
            for name in sorted(lines[0].keys() - {"step", "seconds"}):
                self._events.add_scalar(name, sum(line[name] for line in lines) / len(lines), lines[-1]["step"])

    def draw(self, steps_per_epoch: int, drloc: Drloc | None) -> None:
        """Draw the curves of the epochs written so far, unless that would take more than a hundredth of the time."""
        began = time.monotonic()
        if self._written >= steps_per_epoch and began - self._drawn > self._drawing / DRAWING:
            draw_curves(self._path, self._picture, steps_per_epoch, drloc)
            self._drawn = time.monotonic()
            self._drawing = self._drawn - began

    def sync(self) -> None:
        """Have what was written on the disk: a checkpoint there is of no use without the log that leads up to it."""
        if self.world.leads:
            with self._path.open("a") as file:
                os.fsync(file.fileno())
        if self._events:
            self._events.flush()

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *raised: object) -> None:
        if self._events:
            self._events.close()


def _events(folder: Path, step: int) -> Any:
    """TensorBoard's writer, which goes on after `step`; None where TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step + 1)


def _seconds(lines: list[str], step: int, path: Path) -> float:
    """The training time at `step`, out of the log's lines up to it."""
    if step == 0:
        return 0.0
    try:
        last = json.loads(lines[-1])
        if last["step"] == step:
            return last["seconds"]
    except (IndexError, ValueError, KeyError, TypeError):
        pass
    raise VtzooError(f"{path} does not lead up to step {step}, where its checkpoint is", "delete that to start afresh")
