"""smoke: does vtzoo train right on this machine, and how fast; one minute, one table."""

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
APART = 0.02  # of a loss, that bfloat16 on the device may differ from float32 on the CPU
WARM = 5  # steps before those that are timed
IMAGES = 8192  # of noise
ADAMW = {"name": None, "momentum": None, "iterations": None, "adamw_learning_rate": None}
MUON = {"name": "muon", "momentum": 0.95, "iterations": 5}


@dataclass(frozen=True, kw_only=True)
class How:
    """How much is measured."""

    seconds: float  # after which no further row is begun
    batches: tuple[int, ...]  # images
    steps: int  # timed in a row
    checked: int  # images, of the steps that two devices compare
    alone: bool  # without a look at two processes together
    device: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """A way to train, and its speed."""

    optimizer: str
    compiled: bool
    batch: int  # images
    images_per_second: float = 0.0
    gigabytes: float = 0.0  # of the GPU's memory, at the peak
    started: float = 0.0  # seconds that the first steps took, compiling included
    error: str = ""


def smoke(machine: Machine, name: str, minutes: float, how: How) -> bool:
    """Print whether steps are right and how fast they are, and keep it in smoke.json; False where one is wrong."""
    began, device = time.monotonic(), models.pick_device(how.device)
    recipe = load_recipe(locate(name))
    recipe = replace(recipe, teacher=None)
    helper = None if how.alone else Helper(machine, name, how.device)  # gets ready while other things are looked at
    versions = ", ".join(f"{package} {version}" for package, version in run.versions().items())
    print(f"{run.hardware(device)}; Python {sys.version.split()[0]}, {versions}", flush=True)
    checks = {model: check(model, how.checked, device) for model in MODELS}
    for model, losses in checks.items():
        print(f"{model}: {told(losses)}", flush=True)
    waits = synchronisations(recipe, device)
    print(f"a step waits for the device {sum(waits.values())} times {dict(waits.most_common(3)) or ''}", flush=True)
    if helper:
        helper.wait()
    rows = []
    for row in wanted(recipe, how.batches):
        if time.monotonic() - began < how.seconds or not rows:
            rows.append(measure(recipe, row, how.steps, device))
            print(line(rows[-1], minutes, recipe), flush=True)
    in_time = time.monotonic() - began < how.seconds
    together = helper.share(recipe, device, how.steps) if helper and in_time else None
    if helper:
        helper.end()
    print("two together: " + ("not measured" if together is None else f"each keeps {together:.0%} of its speed"))
    facts = {"checks": checks, "waits": waits, "rows": [asdict(row) for row in rows], "beside": together}
    (machine.folder / "smoke.json").write_text(json.dumps(facts, indent=1) + "\n")
    return all(agree(losses) for losses in checks.values())


def check(model: str, images: int, device: torch.device) -> list[list[float]]:
    """The losses of a model's first two steps, in float32 on the CPU and in bfloat16 on the device."""
    recipe = load_recipe(locate(f"{model}-drloc-cifar100"))
    still = {"drop_path_rate": 0.0} | ({"token_drop_rate": 0.0} if model == "t2t_vit_14" else {})
    recipe = replace(
        recipe, model=replace(recipe.model, arguments=recipe.model.arguments | still), teacher=None,
        optimizer=replace(recipe.optimizer, batch_size=images),
    )  # fmt: skip
    places = ((torch.device("cpu"), "float32"), (device, "bfloat16"))
    return [first_losses(replace(recipe, precision=precision), place) for place, precision in places]


def first_losses(recipe: Recipe, device: torch.device) -> list[float]:
    """The losses of two steps."""
    started = begin(recipe, device)
    losses = []
    for started.step in range(2):
        losses.append(loop._step(started, started.network, recipe, 0)[1]["loss"].item())
    return losses


def agree(losses: list[list[float]]) -> bool:
    """Whether two devices' losses are one but for rounding."""
    expected, found = losses
    return bool(np.allclose(found, expected, rtol=APART, atol=0))


def told(losses: list[list[float]]) -> str:
    """Losses in words."""
    expected, found = (" and ".join(f"{loss:.4f}" for loss in pair) for pair in losses)
    return f"losses {found}, on the CPU {expected}: {'right' if agree(losses) else 'WRONG'}"


def begin(recipe: Recipe, device: torch.device, *, compiled: bool = False) -> loop.Run:
    """A recipe's fresh run on images of noise, which lie on the device."""
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


def stepping(recipe: Recipe, device: torch.device, *, compiled: bool) -> Callable[[], None]:
    """What takes a fresh run's next step."""
    started = begin(recipe, device, compiled=compiled)

    def step() -> None:
        loop._step(started, started.network, recipe, 0)
        started.step += 1

    return step


def synchronisations(recipe: Recipe, device: torch.device) -> Counter[str]:
    """Where a step makes the host wait for the GPU, and how often."""
    found: Counter[str] = Counter()
    if device.type == "cuda":
        step = stepping(recipe, device, compiled=False)
        step()
        torch.cuda.set_sync_debug_mode("warn")
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            step()
        torch.cuda.set_sync_debug_mode("default")
        found.update(f"{Path(one.filename).name}:{one.lineno}" for one in seen)
    return found


def wanted(recipe: Recipe, batches: tuple[int, ...]) -> list[Row]:
    """The rows, those nearest to the recipe first."""
    own, first = recipe.optimizer.name or "adamw", recipe.optimizer.batch_size
    rows = [
        Row(optimizer=optimizer, compiled=compiled, batch=batch)
        for optimizer, compiled, batch in product(("adamw", "muon"), (False, True), dict.fromkeys((first, *batches)))
    ]
    return sorted(rows, key=lambda row: ((row.optimizer != own) + (row.batch != first), row.compiled))


def measure(recipe: Recipe, row: Row, steps: int, device: torch.device) -> Row:
    """A row with its figures, or with what went wrong."""
    try:
        if row.compiled:
            torch.compiler.reset()  # else a second batch size would be compiled for all sizes, and run slower
        step = stepping(as_row(recipe, row), device, compiled=row.compiled)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        started = timed(step, WARM, device)
        seconds = timed(step, steps, device)
    except Exception as error:  # of memory, or of a compiler that is not there: the other rows go on
        return replace(row, error=f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"[:100])
    peak = torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else 0.0
    return replace(row, images_per_second=steps * row.batch / seconds, gigabytes=peak, started=started)


def as_row(recipe: Recipe, row: Row) -> Recipe:
    """The recipe with a row's optimizer and batch."""
    how: Optimizer = recipe.optimizer
    if row.optimizer == "adamw":
        how = replace(how, **ADAMW)
    elif how.name is None:
        how = replace(how, **MUON, adamw_learning_rate=how.learning_rate)
    return replace(recipe, optimizer=replace(how, batch_size=row.batch))


def timed(step: Callable[[], None], count: int, device: torch.device) -> float:
    """The seconds that so many steps take, until the device has done them."""
    began = time.perf_counter()
    for _ in range(count):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def line(row: Row, minutes: float, recipe: Recipe) -> str:
    """A row of the table."""
    what = f"{row.optimizer:5} {'compiled' if row.compiled else 'plain':8} batch {row.batch:5}"
    if row.error:
        return f"{what}  {row.error}"
    images = named.named_set(recipe.dataset).train
    pace = Pace(steps_per_second=row.images_per_second / row.batch, steps_per_epoch=max(1, images // row.batch))
    return (
        f"{what}  {row.images_per_second:8,.0f} images/s  {row.gigabytes:5.1f} GB  {row.started:5.1f} s to start  "
        f"{pace.fitting(60 * minutes):5} epochs in {minutes:g} min"
    )


class Helper:
    """A second process that trains the same recipe, when it is told to."""

    def __init__(self, machine: Machine, recipe: str, device: str) -> None:
        words = ["beside", recipe, "--at", str(machine.folder), "--device", device]
        command = [sys.executable, str(Path(__file__).parent), *words]
        self.log = machine.folder / "beside.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        self.ready = False

    def wait(self) -> None:
        """Wait until it has taken its first steps, so that it disturbs no measurement."""
        assert self.process.stdout
        self.ready = self.process.stdout.readline() == "ready\n"

    def share(self, recipe: Recipe, device: torch.device, steps: int) -> float | None:
        """What is left of the speed alone while it trains too; None where it could not."""
        if not self.ready:
            print(f"the second process has failed: {self.log.read_text().strip()[-300:]}")
            return None
        step = stepping(recipe, device, compiled=device.type == "cuda")
        timed(step, WARM, device)
        alone = timed(step, steps, device)
        assert self.process.stdin
        print("go", file=self.process.stdin, flush=True)
        timed(step, WARM, device)
        both = timed(step, steps, device)
        return alone / both

    def end(self) -> None:
        """Close its input, at which it ends."""
        self.process.communicate()


def serve(recipe: str, device: str) -> None:
    """Be the second process: get ready, wait for a line, then train until the input is closed."""
    import select

    where = models.pick_device(device)
    step = stepping(replace(load_recipe(locate(recipe)), teacher=None), where, compiled=where.type == "cuda")
    timed(step, WARM, where)
    print("ready", flush=True)
    if not sys.stdin.readline():
        return
    while not select.select([sys.stdin], [], [], 0)[0]:
        timed(step, 1, where)
