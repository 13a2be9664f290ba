"""The training loop: `set_up` makes a recipe's fresh state, `fit` runs its steps, `train_step` is the step."""

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
from vtzoo.models.whitening import first_convolution
from vtzoo.train import checkpoint
from vtzoo.train.augment import mix
from vtzoo.train.compiling import compile_blocks
from vtzoo.train.criterion import ONE, Criterion
from vtzoo.train.distributed import World
from vtzoo.train.early_stopping import Selection
from vtzoo.train.freeze import head_epochs, hold, localization_weight
from vtzoo.train.log import Log
from vtzoo.train.model_with_drloc import Joint, join
from vtzoo.train.optim import Average, build_optimizer, hidden_matrices, learning_rate_at, slower
from vtzoo.train.pipeline.batches import DROPOUT, WEIGHTS, Batch, Batches, key
from vtzoo.train.teacher import Teacher
from vtzoo.zoo.recipe import Recipe

CHECKPOINT_SECONDS = 120  # the most work a kill can cost
REPORT = 20  # steps between two looks at the device's losses, at which ranks also agree on whether to stop or to save


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
    joint: Joint  # the model and its localization heads
    average: Average | None
    optimizer: torch.optim.Optimizer
    scaler: GradScaler  # of fp16 losses; idle in the other precisions
    batches: Batches
    device: torch.device
    world: World = field(default_factory=World)
    accumulate: int = 1  # parts of a rank's batch, one after another
    criterion: Criterion = ONE
    selection: Selection | None = None  # of the best weights, where there are validation images
    teacher: Teacher | None = None
    step: int = 0  # taken so far

    @property
    def localizer(self) -> nn.Module | None:
        """The localization head, all of them where there are several, or None."""
        heads = self.joint.heads
        return None if not heads else heads[0] if len(heads) == 1 else heads

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The weights that the run would be published with now: the averaged ones, where they are kept."""
        return self.average.tensors if self.average else self.model.state_dict()

    @property
    def best(self) -> dict[str, Tensor]:
        """The weights to publish in the end: the best ones by the validation images, where there are any."""
        return self.selection.tensors if self.selection else self.tensors

    @property
    def settled(self) -> bool:
        """Whether further steps would be in vain."""
        return self.selection is not None and self.selection.settled

    def parts(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {
            "model": self.model, "head": self.localizer, "average": self.average, "optimizer": self.optimizer,
            "scaler": self.scaler, "selection": self.selection,
        }  # fmt: skip


def train_step(
    joint: nn.Module, optimizer: torch.optim.Optimizer, scaler: GradScaler,
    parts: Iterable[tuple[Batch, Tensor | None]], *, count: int, weight: float, clip_norm: float,
    precision: torch.dtype, criterion: Criterion = ONE, teacher: Teacher | None = None,
) -> dict[str, Tensor]:  # fmt: skip
    """One step of gradient descent on the criterion's cross-entropy plus `weight` times the localization loss.

    A teacher's divergence takes the share of the cross-entropy that is its weight.

    `parts` are the `count` equal parts of the batch, each with the points to localize: one after another they give the
    whole batch's step in less memory. Returns the mean losses and the number of images classified right, as tensors on
    the device: reading them would make the device wait.
    """
    totals: dict[str, Tensor] = {}
    for number, (batch, points) in enumerate(parts, start=1):
        with _gradients_shared(joint, now=number == count):
            with torch.autocast(batch.images.device.type, precision, enabled=precision != torch.float32):
                logits, localization = joint(batch.images, points)
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
def _gradients_shared(joint: nn.Module, *, now: bool) -> Iterator[None]:
    """Ranks add their gradients up once a step: after the last part of their batches."""
    if now or not isinstance(joint, DistributedDataParallel):
        yield
    else:
        with joint.no_sync():
            yield


def build(recipe: Recipe, classes: int, seed: int, device: torch.device) -> Joint:
    """A recipe's model and localization heads, fresh and the same for one seed; or why it cannot be trained."""
    torch.manual_seed(key(seed, 0, WEIGHTS))
    model = models.build(
        recipe.model.name, num_classes=classes, image_size=recipe.model.image_size, **recipe.model.arguments
    ).to(device)
    if recipe.optimizer.name:
        hidden_matrices(model)  # refuses a model without any
    if recipe.model.whitening:
        first_convolution(model)  # likewise
    return join(recipe, model, device)


def set_up(
    recipe: Recipe, joint: Joint, batches: Batches, *, world: World | None = None, accumulate: int = 1,
    compiled: bool = False, criterion: Criterion = ONE, teacher: Teacher | None = None,
) -> Run:  # fmt: skip
    """The fresh state of a recipe's run, with what `build` made; two runs of one seed start alike."""
    world, model, device = world or World(), joint.model, batches.device
    batches.check_parts(world.size * accumulate)
    if compiled:
        compile_blocks(joint)
    layer_decay = recipe.finetune.layer_decay if recipe.finetune else None
    schedule = recipe.schedule
    return Run(
        model=model, joint=joint, optimizer=build_optimizer(recipe.optimizer, model, joint.heads, layer_decay),
        batches=batches, device=device, world=world,
        average=Average(model, schedule.ema_decay, schedule.ema_every or 1) if schedule.ema_decay else None,
        scaler=GradScaler(device.type, enabled=recipe.precision == "float16"), accumulate=accumulate,
        criterion=criterion, teacher=teacher,
    )  # fmt: skip


def fit(
    run: Run, recipe: Recipe, *, seed: int, identity: str, folder: Path,
    progress: Callable[[Progress], None] | None = None,
) -> float:  # fmt: skip
    """Train to the recipe's last epoch, with a checkpoint and lines of metrics.jsonl in `folder`; the seconds it took.

    A run with a selection ends sooner where that settles. Ctrl-C ends the run after the step at hand, with a
    checkpoint, and raises KeyboardInterrupt.
    """
    _keep_memory()
    world, batches = run.world, run.batches
    steps = (head_epochs(recipe) + recipe.schedule.epochs) * batches.steps_per_epoch
    joint = run.joint if world.size == 1 else DistributedDataParallel(run.joint)
    began = saved = time.monotonic()
    first = run.step
    images, hint = batches.batch_size // world.size, slower(run.optimizer)
    with Log(folder, run.step, images, world, hint) as log, _interruptions() as interrupted:
        stop = world.any(bool(interrupted))
        while run.step < steps and not run.settled and not stop:
            log.add(run.step + 1, *_step(run, joint, recipe, seed))
            run.step += 1
            epoch_ends = run.step % batches.steps_per_epoch == 0
            if epoch_ends:
                _look(run, recipe, last=run.step == steps)
            last = run.step == steps or run.settled
            reporting = last or run.step % REPORT == 0 or (epoch_ends and batches.steps_per_epoch > REPORT)
            if reporting:
                speed = (run.step - first) * batches.batch_size / (time.monotonic() - began)
                loss, accuracy = log.flush()
                now = Progress(step=run.step, steps=steps, loss=loss, accuracy=accuracy, images_per_second=speed)
                if progress:
                    progress(now)
            if epoch_ends:
                log.draw(batches.steps_per_epoch, recipe.drloc)
            if reporting or world.size == 1:  # ranks do so now and then: each time they wait for one another
                stop = world.any(bool(interrupted))
                if world.any(last or time.monotonic() - saved > CHECKPOINT_SECONDS):
                    _save(run, log, folder, identity)
                    saved = time.monotonic()
        if stop:
            if run.step < steps and not run.settled:
                _save(run, log, folder, identity)
            raise KeyboardInterrupt
    return log.seconds


def _step(run: Run, joint: nn.Module, recipe: Recipe, seed: int) -> tuple[float, dict[str, Tensor]]:
    """Take the run's next step: its learning rate and losses. What is random in it depends on (seed, step) alone."""
    epoch = run.step / run.batches.steps_per_epoch - head_epochs(recipe)
    schedule, drloc, peak = recipe.schedule, recipe.drloc, recipe.optimizer.learning_rate
    rate = peak if epoch < 0 else learning_rate_at(
        epoch + 1 / run.batches.steps_per_epoch, peak=peak, warmup_epochs=schedule.warmup_epochs,
        cosine_epochs=schedule.cosine_epochs, final=schedule.final_learning_rate,
    )  # fmt: skip
    if recipe.finetune:
        hold(run.optimizer, run.joint, epoch)
    for group in run.optimizer.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)
    torch.manual_seed(key(seed, run.step, DROPOUT) + run.world.rank)  # of drop path
    losses = train_step(
        joint, run.optimizer, run.scaler, _parts(run, drloc.pairs if drloc else 0, seed), count=run.accumulate,
        weight=localization_weight(drloc, epoch), clip_norm=recipe.optimizer.clip_norm,
        precision=getattr(torch, recipe.precision), criterion=run.criterion, teacher=run.teacher,
    )  # fmt: skip
    if run.average:
        run.average.update(run.model, run.step + 1)
    return rate, losses


def _look(run: Run, recipe: Recipe, *, last: bool) -> None:
    """Look at the validation images after an epoch, where there are any and it is time."""
    epoch = run.step // run.batches.steps_per_epoch
    if run.selection and recipe.finetune and (last or epoch % recipe.finetune.look_epochs == 0):
        run.selection.look(run.model, run.tensors, run.step)


def _parts(run: Run, pairs: int, seed: int) -> Iterator[tuple[Batch, Tensor | None]]:
    """The parts of the step's batch that fall to this rank, each with two points for every pair, drawn per image."""
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
