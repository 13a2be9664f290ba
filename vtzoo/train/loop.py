"""The training loop: `build` makes a network, `set_up` a run's state, `fit` runs its steps, `train_step` is a step."""

import ctypes
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.parallel import DistributedDataParallel

from vtzoo import models
from vtzoo.models.localizer import as_stored
from vtzoo.models.whitening import first_convolution
from vtzoo.train import checkpoint
from vtzoo.train.augment import mix
from vtzoo.train.compiling import compile_blocks
from vtzoo.train.criterion import SINGLE_LABEL, Criterion
from vtzoo.train.distributed import World
from vtzoo.train.early_stopping import EarlyStopping
from vtzoo.train.freeze import freeze_backbone, head_epochs, localization_weight
from vtzoo.train.log import Log
from vtzoo.train.model_with_drloc import ModelWithDrloc, add_drloc
from vtzoo.train.optim import WeightAverage, build_optimizer, divergence_hint, hidden_matrices, learning_rate_at
from vtzoo.train.pipeline.batches import DROPOUT, WEIGHTS, Batch, Batches, key
from vtzoo.train.teacher import Teacher
from vtzoo.zoo.recipe import Recipe

CHECKPOINT_SECONDS = 120  # between checkpoints: the most work that a kill can cost
REPORT = 20  # steps between two reports: the host reads the device's losses, and ranks agree on whether to stop or save


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The numbers of a progress bar."""

    step: int
    steps: int
    loss: float  # a mean over the augmented training batches since the last report
    accuracy: float  # 0..1, over the same batches
    images_per_second: float


@dataclass(kw_only=True)
class Run:
    """The state of a training run: all that changes from step to step, and what a step needs."""

    network: ModelWithDrloc
    average: WeightAverage | None
    optimizer: torch.optim.Optimizer
    scaler: GradScaler  # of fp16 losses; disabled in the other precisions
    batches: Batches
    world: World = field(default_factory=World)
    accumulate: int = 1  # parts of a rank's batch, one after another
    criterion: Criterion = SINGLE_LABEL
    early_stopping: EarlyStopping | None = None  # None without validation images
    teacher: Teacher | None = None
    step: int = 0  # steps taken so far

    @property
    def model(self) -> nn.Module:
        """The classifier, without the localization heads."""
        return self.network.model

    @property
    def localizer(self) -> nn.Module | None:
        """The localization head, the list of several heads, or None for a baseline."""
        return as_stored(self.network.heads)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The model's weights now: their average, in a run that keeps one."""
        return self.average.tensors if self.average else self.model.state_dict()

    @property
    def best(self) -> dict[str, Tensor]:
        """The weights to publish: the best on the validation images, or the last in a run without such images."""
        return self.early_stopping.tensors if self.early_stopping else self.tensors

    @property
    def stopped(self) -> bool:
        """Whether early stopping has ended the run."""
        return self.early_stopping is not None and self.early_stopping.exhausted

    def parts(self) -> dict[str, Any]:
        """The parts that a checkpoint stores, as arguments of `checkpoint.save` and `checkpoint.restore`."""
        return {
            "model": self.model, "localizer": self.localizer, "average": self.average, "optimizer": self.optimizer,
            "scaler": self.scaler, "early_stopping": self.early_stopping,
        }  # fmt: skip


def train_step(
    network: nn.Module, optimizer: torch.optim.Optimizer, scaler: GradScaler,
    parts: Iterable[tuple[Batch, Tensor | None]], *, count: int, weight: float, clip_norm: float,
    precision: torch.dtype, criterion: Criterion = SINGLE_LABEL, teacher: Teacher | None = None,
) -> dict[str, Tensor]:  # fmt: skip
    """Take one step on cross-entropy plus `weight` times the localization loss; return the mean losses.

    With a teacher, the loss is (1 - teacher.weight) * cross-entropy + teacher.weight * divergence + weight *
    localization.

    `parts` are the `count` equal parts of the batch, each with the points to localize: their gradients add up to those
    of the whole batch, in less memory. The losses, and the number of images classified right, stay on the device:
    reading them would make the host wait.
    """
    totals: dict[str, Tensor] = {}
    for number, (batch, points) in enumerate(parts, start=1):
        with _gradients_shared(network, now=number == count):
            with torch.autocast(batch.images.device.type, precision, enabled=precision != torch.float32):
                logits, localization = network(batch.images, points)
                taught = {"distillation": teacher.divergence(logits, batch.images)} if teacher else {}
            cross_entropy = criterion.loss(logits.float(), batch.targets)
            loss = teacher.loss(cross_entropy, **taught) if teacher else cross_entropy
            loss = loss + weight * localization
            scaler.scale(loss / count).backward()
        means = {"loss": loss, "cross_entropy": cross_entropy, "localization": localization, **taught}
        found = {name: value.detach() / count for name, value in means.items()}
        found["right"] = criterion.right(logits, batch.targets)
        totals = {name: value + totals.get(name, 0) for name, value in found.items()}
    if clip_norm:
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_((p for group in optimizer.param_groups for p in group["params"]), clip_norm)
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad()
    return totals


@contextmanager
def _gradients_shared(network: nn.Module, *, now: bool) -> Iterator[None]:
    """Lets ranks add up their gradients `now`, after the last part of their batches, and not before."""
    if now or not isinstance(network, DistributedDataParallel):
        yield
    else:
        with network.no_sync():
            yield


def build(recipe: Recipe, classes: int, seed: int, device: torch.device) -> ModelWithDrloc:
    """A recipe's model and localization heads, freshly initialized from the seed.

    A recipe that cannot be trained is a VtzooError.
    """
    torch.manual_seed(key(seed, 0, WEIGHTS))
    model = models.build(
        recipe.model.name, num_classes=classes, image_size=recipe.model.image_size, **recipe.model.arguments
    ).to(device)
    if recipe.optimizer.name:
        hidden_matrices(model)  # raises without hidden matrices
    if recipe.model.whitening:
        first_convolution(model)  # raises without a convolution
    return add_drloc(recipe, model, device)


def set_up(
    recipe: Recipe, network: ModelWithDrloc, batches: Batches, *, world: World | None = None, accumulate: int = 1,
    compiled: bool = False, criterion: Criterion = SINGLE_LABEL, teacher: Teacher | None = None,
) -> Run:  # fmt: skip
    """The state of a run at step 0, with the network that `build` made."""
    world, model = world or World(), network.model
    batches.check_parts(world.size * accumulate)
    if compiled:
        compile_blocks(network)
    layer_decay = recipe.finetune.layer_decay if recipe.finetune else None
    schedule = recipe.schedule
    return Run(
        network=network, optimizer=build_optimizer(recipe.optimizer, model, network.heads, layer_decay),
        average=WeightAverage(model, schedule.ema_decay, schedule.ema_every or 1) if schedule.ema_decay else None,
        scaler=GradScaler(batches.device.type, enabled=recipe.precision == "float16"), batches=batches, world=world,
        accumulate=accumulate, criterion=criterion, teacher=teacher,
    )  # fmt: skip


def fit(
    run: Run, recipe: Recipe, *, seed: int, identity: str, folder: Path,
    progress: Callable[[Progress], None] | None = None,
) -> float:  # fmt: skip
    """Train to the recipe's last epoch, or until early stopping ends the run; return the seconds of training.

    `folder` gets metrics.jsonl, curves.png and checkpoints. Ctrl-C ends the run after the current step, with a
    checkpoint, and raises KeyboardInterrupt.
    """
    _keep_memory()
    world, batches = run.world, run.batches
    steps = (head_epochs(recipe) + recipe.schedule.epochs) * batches.steps_per_epoch
    network = run.network if world.size == 1 else DistributedDataParallel(run.network)
    began = saved = time.monotonic()
    first = run.step
    images, hint = batches.batch_size // world.size, divergence_hint(run.optimizer)
    with Log(folder, run.step, images, world, hint) as log, _interruptions() as interrupted:
        stop = world.any(bool(interrupted))
        while run.step < steps and not run.stopped and not stop:
            log.add(run.step + 1, *_step(run, network, recipe, seed))
            run.step += 1
            epoch_ends = run.step % batches.steps_per_epoch == 0
            if epoch_ends:
                _evaluate(run, recipe, last=run.step == steps)
            last = run.step == steps or run.stopped
            reporting = last or run.step % REPORT == 0 or (epoch_ends and batches.steps_per_epoch > REPORT)
            if reporting:
                rate = (run.step - first) * batches.batch_size / (time.monotonic() - began)
                loss, accuracy = log.flush()
                if progress:
                    progress(Progress(step=run.step, steps=steps, loss=loss, accuracy=accuracy, images_per_second=rate))
            if epoch_ends:
                log.draw(batches.steps_per_epoch, recipe.drloc)
            if reporting or world.size == 1:  # ranks wait for one another here, so only when they report
                stop = world.any(bool(interrupted))
                if world.any(last or time.monotonic() - saved > CHECKPOINT_SECONDS):
                    _save(run, log, folder, identity)
                    saved = time.monotonic()
        if stop:
            if run.step < steps and not run.stopped:
                _save(run, log, folder, identity)
            raise KeyboardInterrupt
    return log.seconds


def _step(run: Run, network: nn.Module, recipe: Recipe, seed: int) -> tuple[float, dict[str, Tensor]]:
    """Take the next step and return its learning rate and losses; its randomness depends on (seed, step) alone."""
    epoch = run.step / run.batches.steps_per_epoch - head_epochs(recipe)
    schedule, drloc, peak = recipe.schedule, recipe.drloc, recipe.optimizer.learning_rate
    rate = peak if epoch < 0 else learning_rate_at(
        epoch + 1 / run.batches.steps_per_epoch, peak=peak, warmup_epochs=schedule.warmup_epochs,
        cosine_epochs=schedule.cosine_epochs, final=schedule.final_learning_rate,
    )  # fmt: skip
    if recipe.finetune:
        freeze_backbone(run.optimizer, run.network, epoch)
    for group in run.optimizer.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)
    torch.manual_seed(key(seed, run.step, DROPOUT) + run.world.rank)  # for drop path
    losses = train_step(
        network, run.optimizer, run.scaler, _parts(run, drloc.pairs if drloc else 0, seed), count=run.accumulate,
        weight=localization_weight(drloc, epoch), clip_norm=recipe.optimizer.clip_norm,
        precision=getattr(torch, recipe.precision), criterion=run.criterion, teacher=run.teacher,
    )  # fmt: skip
    if run.average:
        run.average.update(run.model, run.step + 1)
    return rate, losses


def _evaluate(run: Run, recipe: Recipe, *, last: bool) -> None:
    """Evaluate on the validation images, after every `look_epochs` epochs and after the last."""
    epoch = run.step // run.batches.steps_per_epoch
    if run.early_stopping and recipe.finetune and (last or epoch % recipe.finetune.look_epochs == 0):
        run.early_stopping.evaluate(run.model, run.tensors, run.step)


def _parts(run: Run, pairs: int, seed: int) -> Iterator[tuple[Batch, Tensor | None]]:
    """The parts of the step's batch for this rank, each with the two points of every pair, drawn per image."""
    for number in range(run.accumulate):
        part = run.world.rank * run.accumulate + number
        batch = run.batches.batch(run.step, part, run.world.size * run.accumulate)
        points = None
        if pairs:
            points = mix.draws(seed, batch.epoch, batch.chosen, mix.LOCALIZE, 4 * pairs).view(-1, pairs, 2, 2)
        yield batch, points


def _save(run: Run, log: Log, folder: Path, identity: str) -> None:
    log.flush()
    log.sync()
    if run.world.leads:
        checkpoint.save(folder / "checkpoint.safetensors", step=run.step, run=identity, **run.parts())


@contextmanager
def _interruptions() -> Iterator[list[int]]:
    """A list that Ctrl-C appends to, so that the current step can end; a second Ctrl-C ends the program at once."""
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
    """Make glibc keep freed memory: to return activations to the system and fault them in again costs a fifth.

    Measured with swin_t at 32 px, patch 2, batch 128, on two CPU cores: 190 images/s without, 230 with.
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
        for option, value in ((-3, 1 << 30), (-1, (1 << 31) - 1), (-2, 1 << 28)):  # mmap threshold, trim, top pad
            libc.mallopt(option, value)
    except (OSError, AttributeError):
        return  # another C library
