"""The training loop: `train` sets a recipe up, `fit` runs its steps, `train_step` is the step."""

import ctypes
import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from vtzoo import models
from vtzoo.drloc import DenseRelativeLocalization, check_grid, weight_at
from vtzoo.errors import VtzooError
from vtzoo.recipe import Recipe

from . import checkpoint
from .data import Batch, Batches, generator, key
from .optim import Average, adamw, learning_rate_at

CHECKPOINT_SECONDS = 120  # the most work a kill can cost


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run stands: what the progress bar shows."""

    step: int
    steps: int
    loss: float
    accuracy: float  # 0..1, on the last augmented training batches, as is the loss
    images_per_second: float


@dataclass(kw_only=True)
class Run:
    """Everything that changes while a recipe trains."""

    model: nn.Module
    head: DenseRelativeLocalization | None
    average: Average | None
    optimizer: torch.optim.Optimizer
    batches: Batches
    device: torch.device
    step: int = 0  # taken so far

    def parts(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {"model": self.model, "head": self.head, "average": self.average, "optimizer": self.optimizer}


def train_step(
    model: Any, head: DenseRelativeLocalization | None, optimizer: torch.optim.Optimizer, batch: Batch, *,
    stage: int, weight: float, pairs: torch.Generator, clip_norm: float, precision: torch.dtype,
) -> dict[str, Tensor]:  # fmt: skip
    """One step of gradient descent on the cross-entropy plus `weight` times the localization loss.

    `model` has timm's methods. Returns the losses and the number of images classified right, as tensors on the device:
    reading them would make the device wait. Without a head it is plain supervised training.
    """
    with torch.autocast(batch.images.device.type, precision, enabled=precision != torch.float32):
        if head is None:
            logits, localization = model(batch.images), torch.zeros((), device=batch.images.device)
        else:
            features, (grid,) = models.features_and_grids(model, batch.images, stage)
            logits, localization = model.forward_head(features), head(models.localizable(model, grid), pairs)
    cross_entropy = nn.functional.cross_entropy(logits.float(), batch.targets)
    loss = cross_entropy + weight * localization
    loss.backward()
    if clip_norm:
        nn.utils.clip_grad_norm_((p for group in optimizer.param_groups for p in group["params"]), clip_norm)
    optimizer.step()
    optimizer.zero_grad()
    right = (logits.argmax(1) == batch.targets.argmax(1)).sum()
    return {"loss": loss.detach(), "cross_entropy": cross_entropy.detach(), "localization": localization.detach(),
            "right": right}  # fmt: skip


def set_up(recipe: Recipe, batches: Batches, classes: int, seed: int, device: torch.device) -> Run:
    """The fresh state of a recipe's run; two runs of one seed start alike."""
    torch.manual_seed(key(seed, 0))
    model = models.build(
        recipe.model.name, num_classes=classes, image_size=recipe.model.image_size, **recipe.model.arguments
    ).to(device)
    head = _head(recipe, model, device)
    optimizer = adamw(
        model, head, learning_rate=recipe.optimizer.learning_rate, weight_decay=recipe.optimizer.weight_decay,
        betas=recipe.optimizer.betas,
    )  # fmt: skip
    average = Average(model, recipe.schedule.ema_decay) if recipe.schedule.ema_decay else None
    return Run(model=model, head=head, average=average, optimizer=optimizer, batches=batches, device=device)


def _head(recipe: Recipe, model: nn.Module, device: torch.device) -> DenseRelativeLocalization | None:
    """The localization head for the recipe's stage, or None for a baseline; its randomness leaves the model's alone."""
    if recipe.drloc is None:
        return None
    size = recipe.model.image_size
    model.eval()  # so that looking at a grid moves no batch-norm statistics
    with torch.no_grad():
        grids = models.grids(model, torch.zeros(1, 3, size, size, device=device))
    model.train()
    if not -len(grids) <= recipe.drloc.stage < len(grids):
        raise VtzooError(
            f"{recipe.model.name} has {len(grids)} grids, so there is no stage {recipe.drloc.stage}",
            f"drloc.stage goes from 0 to {len(grids) - 1}",
        )
    grid = models.localizable(model, grids[recipe.drloc.stage])
    check_grid(grid)
    head = DenseRelativeLocalization(grid.shape[1], pairs=recipe.drloc.pairs, normalize=recipe.drloc.normalize)
    return head.to(device)


def fit(
    run: Run, recipe: Recipe, *, seed: int, identity: str, folder: Path,
    progress: Callable[[Progress], None] | None = None,
) -> float:  # fmt: skip
    """Train to the recipe's last epoch, with a checkpoint and lines of metrics.jsonl in `folder`; the seconds it took.

    Ctrl-C ends the run after the step at hand, with a checkpoint, and raises KeyboardInterrupt.
    """
    _keep_memory()
    steps = recipe.schedule.epochs * run.batches.steps_per_epoch
    log = Log(folder / "metrics.jsonl", run.step)
    began = saved = time.monotonic()
    first = run.step
    with _interruptions() as interrupted:
        while run.step < steps and not interrupted:
            log.add(run.step + 1, _step(run, recipe, seed))
            run.step += 1
            if run.step % 20 == 0 or run.step == steps:
                images = (run.step - first) * run.batches.batch_size
                loss, accuracy = log.flush(run.batches.batch_size)
                speed = images / (time.monotonic() - began)
                if progress:
                    progress(
                        Progress(step=run.step, steps=steps, loss=loss, accuracy=accuracy, images_per_second=speed)
                    )
            if time.monotonic() - saved > CHECKPOINT_SECONDS or run.step == steps:
                _save(run, log, folder, identity)
                saved = time.monotonic()
        if interrupted:
            if run.step < steps:
                _save(run, log, folder, identity)
            raise KeyboardInterrupt
    return log.seconds


def _step(run: Run, recipe: Recipe, seed: int) -> dict[str, Tensor]:
    """Take the run's next step: everything random in it depends on (seed, step) alone."""
    epoch = run.step / run.batches.steps_per_epoch
    schedule, drloc = recipe.schedule, recipe.drloc
    rate = learning_rate_at(
        epoch + 1 / run.batches.steps_per_epoch, peak=recipe.optimizer.learning_rate,
        warmup_epochs=schedule.warmup_epochs, cosine_epochs=schedule.cosine_epochs, final=schedule.final_learning_rate,
    )  # fmt: skip
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    torch.manual_seed(key(seed, run.step + 1))  # drop path and dropout draw from torch's own generator
    losses = train_step(
        run.model, run.head, run.optimizer, run.batches.batch(run.step),
        stage=drloc.stage if drloc else -1,
        weight=weight_at(epoch, drloc.weight, drloc.warmup_epochs, drloc.schedule_epochs) if drloc else 0.0,
        pairs=generator(seed, run.step, run.device), clip_norm=recipe.optimizer.clip_norm,
        precision=getattr(torch, recipe.precision),
    )  # fmt: skip
    if run.average:
        run.average.update(run.model, run.step + 1)
    return losses


def _save(run: Run, log: "Log", folder: Path, identity: str) -> None:
    log.flush(run.batches.batch_size)
    log.sync()
    checkpoint.save(folder / "checkpoint.safetensors", step=run.step, run=identity, **run.parts())


class Log:
    """metrics.jsonl: one line a step, in order, each step once, whatever interruptions came between."""

    def __init__(self, path: Path, step: int) -> None:
        """Open the log to go on after `step`: lines of later steps, from before a kill, are dropped.

        A log that ends before the step is a VtzooError.
        """
        lines = path.read_text().splitlines() if step and path.exists() else []
        kept = lines[:step]
        self.seconds = _seconds(kept, step, path)
        partial = path.with_suffix(".partial")
        partial.write_text("".join(line + "\n" for line in kept))
        partial.replace(path)
        self._path, self._waiting = path, []
        self._clock = time.monotonic()
        self._last = (0.0, 0.0)

    def add(self, step: int, losses: dict[str, Tensor]) -> None:
        """Keep a step's losses, on the device, until the next flush."""
        self._waiting.append((step, losses))

    def flush(self, batch_size: int) -> tuple[float, float]:
        """Write what waits, and return its mean loss and accuracy; a loss that is not finite is a VtzooError."""
        if not self._waiting:
            return self._last
        self.seconds += time.monotonic() - self._clock
        self._clock = time.monotonic()
        lines = []
        for step, losses in self._waiting:
            line = {"step": step} | {name: value.item() for name, value in losses.items()}
            line |= {"accuracy": line.pop("right") / batch_size, "seconds": round(self.seconds, 3)}
            lines.append(line)
        diverged = next((index for index, line in enumerate(lines) if not math.isfinite(line["loss"])), None)
        with self._path.open("a") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines[:diverged])
        self._waiting = []
        if diverged is not None:
            line = lines[diverged]
            raise VtzooError(f"the loss is {line['loss']} at step {line['step']}", checkpoint.DIVERGED)
        loss, accuracy = (sum(line[name] for line in lines) / len(lines) for name in ("loss", "accuracy"))
        self._last = loss, accuracy
        return self._last

    def sync(self) -> None:
        """Have what was written on the disk: a checkpoint there is of no use without the log that leads up to it."""
        with self._path.open("a") as file:
            os.fsync(file.fileno())


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


@contextmanager
def _interruptions() -> Iterator[list[int]]:
    """A list that Ctrl-C fills, so that the step at hand can end first; a second Ctrl-C ends the program at once."""
    seen: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, before)


def _keep_memory() -> None:
    """Let glibc keep freed memory: returning each activation to the system and faulting it in again costs a third.

    Measured with swin_t at 32 px, patch 2, batch 128, on two CPU cores: 190 images/s become 230.
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
        for option, value in ((-3, 1 << 30), (-1, (1 << 31) - 1), (-2, 1 << 28)):  # mmap threshold, trim, top pad
            libc.mallopt(option, value)
    except (OSError, AttributeError):
        return  # another C library, with an allocator of its own
