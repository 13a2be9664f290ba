"""smoke: checks on this machine that training steps are right, and prints a table of their speed; one minute."""

import json
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import torch

from vtzoo import models
from vtzoo.data import named
from vtzoo.train import loop, run
from vtzoo.train.pipeline.batches import Batches
from vtzoo.train.pipeline.crops import Crops
from vtzoo.train.pipeline.pixels import Pixels
from vtzoo.zoo.recipe import Optimizer, Recipe
from vtzoo.zoo.recipe_files import load_recipe, locate

from .fitting import Pace
from .machine import Machine

MODELS = ("swin_t", "cvt_13", "t2t_vit_14")
TOLERANCE = 0.02  # largest relative difference of losses in bfloat16 on the device from float32 on the CPU
WARMUP = 5  # steps before the timed steps
IMAGES = 8192  # of noise
ADAMW = {"name": None, "momentum": None, "iterations": None, "adamw_learning_rate": None}
MUON = {"name": "muon", "momentum": 0.95, "iterations": 5}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The extent of the measurements."""

    seconds: float  # after which no row is started
    batches: tuple[int, ...]  # batch sizes, in images
    steps: int  # timed steps of each row
    checked: int  # images per step of the comparison of two devices
    alone: bool  # whether the measurement of two processes together is left out
    device: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """A configuration of the training, and its speed."""

    optimizer: str
    compiled: bool
    batch: int  # images
    images_per_second: float = 0.0
    gigabytes: float = 0.0  # peak use of the GPU's memory
    started: float = 0.0  # seconds of the first steps, compiling included
    error: str = ""


def smoke(machine: Machine, name: str, minutes: float, settings: Settings) -> bool:
    """Print whether steps are right, and their speed; write both to smoke.json; return whether all are right."""
    began, device = time.monotonic(), models.pick_device(settings.device)
    recipe = load_recipe(locate(name))
    recipe = replace(recipe, teacher=None)
    helper = None if settings.alone else Helper(machine, name, settings.device)  # starts up during the checks
    versions = ", ".join(f"{package} {version}" for package, version in run.versions().items())
    print(f"{run.hardware(device)}; Python {sys.version.split()[0]}, {versions}", flush=True)
    checks = {model: check(model, settings.checked, device) for model in MODELS}
    for model, losses in checks.items():
        print(f"{model}: {verdict(losses)}", flush=True)
    waits = synchronisations(recipe, device)
    print(f"a step waits for the device {sum(waits.values())} times {dict(waits.most_common(3)) or ''}", flush=True)
    if helper:
        helper.wait()
    rows = []
    for row in planned_rows(recipe, settings.batches):
        if time.monotonic() - began < settings.seconds or not rows:
            rows.append(measure(recipe, row, settings.steps, device))
            print(line(rows[-1], minutes, recipe), flush=True)
    in_time = time.monotonic() - began < settings.seconds
    together = helper.share(recipe, device, settings.steps) if helper and in_time else None
    if helper:
        helper.end()
    print("two together: " + ("not measured" if together is None else f"each keeps {together:.0%} of its speed"))
    facts = {"checks": checks, "waits": waits, "rows": [asdict(row) for row in rows], "beside": together}
    (machine.folder / "smoke.json").write_text(json.dumps(facts, indent=1) + "\n")
    return all(agree(losses) for losses in checks.values())


def check(model: str, images: int, device: torch.device) -> list[list[float]]:
    """The losses of a model's first two steps, in float32 on the CPU and in bfloat16 on the device."""
    recipe = load_recipe(locate(f"{model}-drloc-cifar100"))
    without_drops = {"drop_path_rate": 0.0} | ({"token_drop_rate": 0.0} if model == "t2t_vit_14" else {})
    recipe = replace(
        recipe, model=replace(recipe.model, arguments=recipe.model.arguments | without_drops), teacher=None,
        optimizer=replace(recipe.optimizer, batch_size=images),
    )  # fmt: skip
    pairs = ((torch.device("cpu"), "float32"), (device, "bfloat16"))
    return [first_losses(replace(recipe, precision=precision), where) for where, precision in pairs]


def first_losses(recipe: Recipe, device: torch.device) -> list[float]:
    """The losses of two steps."""
    started = begin(recipe, device)
    losses = []
    for started.step in range(2):
        losses.append(loop._step(started, started.network, recipe, 0)[1]["loss"].item())
    return losses


def agree(losses: list[list[float]]) -> bool:
    """Whether two devices' losses are equal up to rounding."""
    expected, actual = losses
    return bool(np.allclose(actual, expected, rtol=TOLERANCE, atol=0))


def verdict(losses: list[list[float]]) -> str:
    """Both devices' losses and whether they agree, as a line of text."""
    expected, actual = (" and ".join(f"{loss:.4f}" for loss in pair) for pair in losses)
    return f"losses {actual}, on the CPU {expected}: {'right' if agree(losses) else 'WRONG'}"


def begin(recipe: Recipe, device: torch.device, *, compiled: bool = False) -> loop.Run:
    """A new run of a recipe on images of noise, which are stored on the device."""
    dataset, size = named.named_set(recipe.dataset), recipe.model.image_size
    count = max(IMAGES if device.type == "cuda" else 0, 2 * recipe.optimizer.batch_size)
    pixels = np.random.default_rng(0).integers(0, 256, (count, 3, size, size), dtype=np.uint8)
    batches = Batches(
        Pixels.of(pixels, device), np.arange(count) % dataset.classes,
        crops=Crops.of(recipe.augmentation, size=size, flip=dataset.flip), augmentation=recipe.augmentation,
        batch_size=recipe.optimizer.batch_size, classes=dataset.classes, mean=dataset.mean, std=dataset.std, seed=0,
        device=device,
    )  # fmt: skip
    return loop.set_up(recipe, loop.build(recipe, dataset.classes, 0, device), batches, compiled=compiled)


def stepper(recipe: Recipe, device: torch.device, *, compiled: bool) -> Callable[[], None]:
    """A function that takes the next step of a new run."""
    started = begin(recipe, device, compiled=compiled)

    def step() -> None:
        loop._step(started, started.network, recipe, 0)
        started.step += 1

    return step


def synchronisations(recipe: Recipe, device: torch.device) -> Counter[str]:
    """The code lines in which a step makes the host wait for the GPU, and their counts."""
    waits: Counter[str] = Counter()
    if device.type == "cuda":
        step = stepper(recipe, device, compiled=False)
        step()
        torch.cuda.set_sync_debug_mode("warn")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            step()
        torch.cuda.set_sync_debug_mode("default")
        waits.update(f"{Path(warning.filename).name}:{warning.lineno}" for warning in caught)
    return waits


def planned_rows(recipe: Recipe, batches: tuple[int, ...]) -> list[Row]:
    """The rows to measure, in the order of their nearness to the recipe."""
    own_optimizer, own_batch = recipe.optimizer.name or "adamw", recipe.optimizer.batch_size
    rows = [
        Row(optimizer=optimizer, compiled=compiled, batch=batch)
        for optimizer, compiled, batch in product(
            ("adamw", "muon"), (False, True), dict.fromkeys((own_batch, *batches))
        )
    ]
    return sorted(rows, key=lambda row: ((row.optimizer != own_optimizer) + (row.batch != own_batch), row.compiled))


def measure(recipe: Recipe, row: Row, steps: int, device: torch.device) -> Row:
    """The row with its measured values, or with its error."""
    try:
        if row.compiled:
            torch.compiler.reset()  # otherwise the second batch size would be compiled for all sizes, and run slower
        step = stepper(recipe_for(recipe, row), device, compiled=row.compiled)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        started = timed(step, WARMUP, device)
        seconds = timed(step, steps, device)
    except Exception as error:  # such as too little memory or no compiler: the other rows are still measured
        return replace(row, error=f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"[:100])
    peak = torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else 0.0
    return replace(row, images_per_second=steps * row.batch / seconds, gigabytes=peak, started=started)


def recipe_for(recipe: Recipe, row: Row) -> Recipe:
    """The recipe with a row's optimizer and batch."""
    optimizer: Optimizer = recipe.optimizer
    if row.optimizer == "adamw":
        optimizer = replace(optimizer, **ADAMW)
    elif optimizer.name is None:
        optimizer = replace(optimizer, **MUON, adamw_learning_rate=optimizer.learning_rate)
    return replace(recipe, optimizer=replace(optimizer, batch_size=row.batch))


def timed(step: Callable[[], None], count: int, device: torch.device) -> float:
    """The seconds that `count` steps take, until the device has completed them."""
    began = time.perf_counter()
    for _ in range(count):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def line(row: Row, minutes: float, recipe: Recipe) -> str:
    """The row as a line of the table."""
    label = f"{row.optimizer:5} {'compiled' if row.compiled else 'plain':8} batch {row.batch:5}"
    if row.error:
        return f"{label}  {row.error}"
    images = named.named_set(recipe.dataset).train
    pace = Pace(steps_per_second=row.images_per_second / row.batch, steps_per_epoch=max(1, images // row.batch))
    return (
        f"{label}  {row.images_per_second:8,.0f} images/s  {row.gigabytes:5.1f} GB  {row.started:5.1f} s to start  "
        f"{pace.fitting_epochs(60 * minutes):5} epochs in {minutes:g} min"
    )


class Helper:
    """A second process that trains the same recipe once `share` is called."""

    def __init__(self, machine: Machine, recipe: str, device: str) -> None:
        arguments = ["beside", recipe, "--at", str(machine.folder), "--device", device]
        command = [sys.executable, str(Path(__file__).parent), *arguments]
        self.log = machine.folder / "beside.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        self.ready = False

    def wait(self) -> None:
        """Wait until the process has taken its first steps, because they would disturb measurements."""
        assert self.process.stdout
        self.ready = self.process.stdout.readline() == "ready\n"

    def share(self, recipe: Recipe, device: torch.device, steps: int) -> float | None:
        """The part of its speed that this process keeps while both train; None if the second process has failed."""
        if not self.ready:
            print(f"the second process has failed: {self.log.read_text().strip()[-300:]}")
            return None
        step = stepper(recipe, device, compiled=device.type == "cuda")
        timed(step, WARMUP, device)
        alone = timed(step, steps, device)
        assert self.process.stdin
        print("go", file=self.process.stdin, flush=True)
        timed(step, WARMUP, device)
        both = timed(step, steps, device)
        return alone / both

    def end(self) -> None:
        """Close the process's input, which ends the process."""
        self.process.communicate()


def serve(recipe: str, device: str) -> None:
    """Run as the second process: take the first steps, wait for a line, then train until the input is closed."""
    import select

    where = models.pick_device(device)
    step = stepper(replace(load_recipe(locate(recipe)), teacher=None), where, compiled=where.type == "cuda")
    timed(step, WARMUP, where)
    print("ready", flush=True)
    if not sys.stdin.readline():
        return
    while not select.select([sys.stdin], [], [], 0)[0]:
        timed(step, 1, where)
