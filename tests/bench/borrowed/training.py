"""train: a recipe made to fit the minutes at hand, trained by processes that outlive the command."""

import json
import os
import signal
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from vtzoo.base import files
from vtzoo.errors import VtzooError
from vtzoo.zoo.recipe_files import load_recipe, locate

from . import fitting
from .fitting import Pace
from .machine import Machine

CHECKPOINT_SECONDS = 60  # from one to the next, all that a lost machine takes with it
TRYING = 1 / 5  # of the time, after which a slow machine's speed is known well enough
TEACHING = 1 / 3  # of the time, that a teacher's own training may take
TOGETHER = 0.8  # of its speed alone, that a run must keep beside another
ENDLESS = 100_000  # epochs of the recipe whose speed is tried


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a worker is to train in its folder, by recipe.toml.wanted there."""

    ends: float  # seconds since 1970
    compiled: bool
    seed: int
    device: str
    trial: float = 6.0  # seconds of steady steps, by which the speed is known
    most: int | None = None  # epochs
    twin: bool = False  # to be started beside it
    fits: bool = False  # the recipe is final
    share: float = 1.0  # of the speed alone, that is left beside a twin


def start(machine: Machine, recipe: str, minutes: float, *, twin: bool, **how: Any) -> Path:
    """Start the training of a recipe, by name or file, in a process of its own; the folder it is trained in."""
    path = locate(recipe)
    wanted, order = load_recipe(path), Order(ends=time.time() + 60 * minutes, **how)
    folder = machine.runs / (wanted.name if not order.seed else f"{wanted.name}-seed{order.seed}")
    if twin:
        fitting.twin(path.read_text())
        share = beside(machine)
        if share < TOGETHER:
            print(f"no twin beside it: two together keep {share:.0%} of their speed; train the twin after it")
        else:
            order = replace(order, twin=True, share=share)
    launch(machine, folder, path.read_text(), order)
    return folder


def beside(machine: Machine) -> float:
    """What smoke measured that two processes together keep of their speed; 0 where it measured nothing."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        return float(json.loads((machine.folder / "smoke.json").read_text())["beside"])
    return 0.0


def launch(machine: Machine, folder: Path, text: str, order: Order) -> None:
    """Start a worker in a session of its own, which ends with no command and no terminal, and wait for its first word.

    Until then state.json names this process, whose end would read as the worker's.
    """
    if (state := read_state(folder))["phase"] != "none":
        raise VtzooError(f"{folder} holds a run already: {state['phase']}", "choose another --seed, or remove it")
    folder.mkdir(parents=True)
    (folder / "wanted.toml").write_text(text)
    (folder / "order.json").write_text(json.dumps(asdict(order)))
    say(folder, "starting")
    code = machine.code(folder.name)
    command = [sys.executable, str(code / "tests" / "bench" / "borrowed"), "work", str(folder)]
    with (folder / "log").open("ab") as log:
        worker = subprocess.Popen(
            [*command, "--at", str(machine.folder)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=code,
            start_new_session=True,
        )  # fmt: skip
    while worker.poll() is None and read_state(folder)["process"] != worker.pid:
        time.sleep(0.05)
    if read_state(folder)["process"] != worker.pid:
        say(folder, "failed", error="its process ended at once: see its log")
        raise VtzooError(f"the training in {folder} ended at once", f"see {folder / 'log'}")


def work(machine: Machine, folder: Path) -> None:
    """Train what was ordered in a folder; whatever happens, state.json there says how it ended."""
    say(folder, "starting")
    order = read_order(folder)
    try:
        _train(machine, folder, order)
    except Exception as error:
        traceback.print_exc()
        say(folder, "failed", error=str(error))
        raise SystemExit(1) from error


def read_order(folder: Path) -> Order:
    """What was ordered in a folder."""
    return Order(**json.loads((folder / "order.json").read_text()))


def _train(machine: Machine, folder: Path, order: Order) -> None:
    text = (folder / "wanted.toml").read_text()
    recipe = load_recipe(folder / "wanted.toml")
    teacher = teacher_of(machine, recipe.teacher.name, folder, order) if recipe.teacher else None
    if not order.fits:
        say(folder, "trying")
        pace = try_out(machine, folder / "wanted.toml", order, teacher)
        pace = replace(pace, steps_per_second=order.share * pace.steps_per_second)
        text = fitting.fitted(text, pace.epochs(order.ends - time.time(), order.most), pace.steps_per_epoch)
    (folder / "fitted.toml").write_text(text)
    if order.twin:
        other = machine.runs / folder.name.replace("-drloc-", "-baseline-")
        launch(machine, other, fitting.twin(text), replace(order, twin=False, fits=True))
    fit(machine, folder, order, teacher)


def teacher_of(machine: Machine, name: str, student: Path, order: Order) -> Path:
    """The model folder of a teacher, which is trained first where it neither is here nor came along."""
    if known := machine.model(name):
        return known
    folder, path = machine.runs / name, locate(name)
    folder.mkdir(parents=True, exist_ok=True)
    say(student, "teacher")
    order = replace(order, ends=time.time() + TEACHING * (order.ends - time.time()))
    pace = try_out(machine, path, order, None)
    epochs = pace.epochs(order.ends - time.time(), load_recipe(path).schedule.epochs)
    (folder / "fitted.toml").write_text(fitting.fitted(path.read_text(), epochs, pace.steps_per_epoch))
    fit(machine, folder, order, None)
    return folder


def try_out(machine: Machine, path: Path, order: Order, teacher: Path | None) -> Pace:
    """How fast a recipe trains, by its own training with all that belongs to it, cut short."""
    from vtzoo.train import run
    from vtzoo.train.loop import Progress

    marks: list[tuple[float, int, int]] = []  # seconds, step, steps
    soon = time.time() + TRYING * (order.ends - time.time())

    def watch(now: Progress | int) -> None:
        if isinstance(now, Progress):
            marks.append((time.monotonic(), now.step, now.steps))
            steady = len(marks) > 2 and marks[-1][0] - marks[1][0] > order.trial  # the first ones compile
            if steady or (len(marks) > 1 and time.time() > soon):
                raise _EnoughError

    with TemporaryDirectory() as folder, suppress(_EnoughError):
        endless = Path(folder) / "endless.toml"
        endless.write_text(fitting.fitted(path.read_text(), ENDLESS, 1))
        run.train(
            endless, data=machine.data(load_recipe(path).dataset), out=Path(folder) / "run", seed=order.seed,
            device=order.device, compiled=order.compiled, teacher=teacher, progress=watch,
        )  # fmt: skip
    steady = marks[1:] if len(marks) > 2 else marks
    between = [(later[1] - sooner[1]) / (later[0] - sooner[0]) for sooner, later in pairwise(steady)]
    return Pace(steps_per_second=statistics.median(between), steps_per_epoch=marks[-1][2] // ENDLESS)


class _EnoughError(Exception):
    """The speed is known."""


def fit(machine: Machine, folder: Path, order: Order, teacher: Path | None) -> None:
    """Train fitted.toml into its folder, with a checkpoint a minute, and write weights, their accuracy and result.json.

    Where the time is over too early, they are those of the last checkpoint.
    """
    from vtzoo.train import loop, run

    from .keeping import keep, salvage

    loop.CHECKPOINT_SECONDS = CHECKPOINT_SECONDS
    data = machine.data(load_recipe(folder / "fitted.toml").dataset)
    try:
        with replaced(run, "finish", partial(keep, device=order.device)):
            run.train(
                folder / "fitted.toml", data=data, out=folder, seed=order.seed, device=order.device,
                compiled=order.compiled, teacher=teacher, progress=partial(_report, folder, order),
            )  # fmt: skip
    except KeyboardInterrupt:
        salvage(folder, data, order.device, teacher)
        say(folder, "cut")
    else:
        say(folder, "done")


def _report(folder: Path, order: Order, now: Any) -> None:
    """Say where a run stands, and end it in good order where its time is over."""
    if isinstance(now, int):
        return
    left = (now.steps - now.step) / (now.images_per_second or 1)
    say(folder, "training", **asdict(now), left=left)
    if time.time() > order.ends:
        signal.raise_signal(signal.SIGINT)


@contextmanager
def replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    """A block in which a module has another value under a name."""
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def say(folder: Path, phase: str, **facts: Any) -> None:
    """Write where a run stands into its state.json."""
    known = {"phase": phase, "process": os.getpid(), "at": time.time()} | facts
    files.write(folder / "state.json", json.dumps(known).encode())


def read_state(folder: Path) -> dict[str, Any]:
    """What state.json says; the phase `none` where there is no run."""
    try:
        return json.loads((folder / "state.json").read_text())
    except (OSError, ValueError):
        return {"phase": "none"}
