"""train: fits a recipe to the available minutes, and trains it in processes that outlive the command."""

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

CHECKPOINT_SECONDS = 60  # between checkpoints: the most work that the loss of the machine can cost
TRIAL_SHARE = 1 / 5  # part of the time after which the trial of a slow machine ends
TEACHER_SHARE = 1 / 3  # part of the time that the teacher's own training may take
TWIN_SHARE = 0.8  # part of its speed alone that a run must keep beside its twin
ENDLESS = 100_000  # epochs of the trial's recipe, so that the trial does not reach its end


@dataclass(frozen=True, kw_only=True)
class Order:
    """The options with which a worker trains wanted.toml in its folder."""

    ends: float  # seconds since 1970
    compiled: bool
    seed: int
    device: str
    trial: float = 6.0  # seconds of steady steps that measure the speed
    most: int | None = None  # epochs
    twin: bool = False  # the worker starts the twin too
    fitted: bool = False  # wanted.toml is fitted already: no trial
    share: float = 1.0  # part of its speed alone that the run keeps beside its twin


def start(machine: Machine, recipe: str, minutes: float, *, twin: bool, **options: Any) -> Path:
    """Start the training of a recipe, given by name or file, in a new process, and return the run's folder."""
    path = locate(recipe)
    loaded, order = load_recipe(path), Order(ends=time.time() + 60 * minutes, **options)
    folder = machine.runs / (loaded.name if not order.seed else f"{loaded.name}-seed{order.seed}")
    if twin:
        fitting.twin(path.read_text())
        share = twin_share(machine)
        if share < TWIN_SHARE:
            print(f"no twin beside it: two together keep {share:.0%} of their speed; train the twin after it")
        else:
            order = replace(order, twin=True, share=share)
    launch(machine, folder, path.read_text(), order)
    return folder


def twin_share(machine: Machine) -> float:
    """The part of its speed that each of two processes keeps, as `smoke` measured it; 0 without a measurement."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        return float(json.loads((machine.folder / "smoke.json").read_text())["beside"])
    return 0.0


def launch(machine: Machine, folder: Path, text: str, order: Order) -> None:
    """Start a worker in a new session, so that it outlives command and terminal, and wait until it writes state.json.

    Until then state.json names this process; if this process ended earlier, the run would count as failed.
    """
    if (state := read_state(folder))["phase"] != "none":
        raise VtzooError(f"{folder} holds a run already: {state['phase']}", "choose another --seed, or remove it")
    folder.mkdir(parents=True)
    (folder / "wanted.toml").write_text(text)
    (folder / "order.json").write_text(json.dumps(asdict(order)))
    write_state(folder, "starting")
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
        write_state(folder, "failed", error="its process ended at once: see its log")
        raise VtzooError(f"the training in {folder} ended at once", f"see {folder / 'log'}")


def work(machine: Machine, folder: Path) -> None:
    """Train the folder's order; after an error, state.json holds the phase `failed` and the error."""
    write_state(folder, "starting")
    order = read_order(folder)
    try:
        _train(machine, folder, order)
    except Exception as error:
        traceback.print_exc()
        write_state(folder, "failed", error=str(error))
        raise SystemExit(1) from error


def read_order(folder: Path) -> Order:
    """The order in a folder."""
    return Order(**json.loads((folder / "order.json").read_text()))


def _train(machine: Machine, folder: Path, order: Order) -> None:
    text = (folder / "wanted.toml").read_text()
    recipe = load_recipe(folder / "wanted.toml")
    teacher = teacher_of(machine, recipe.teacher.name, folder, order) if recipe.teacher else None
    if not order.fitted:
        write_state(folder, "trying")
        pace = try_out(machine, folder / "wanted.toml", order, teacher)
        pace = replace(pace, steps_per_second=order.share * pace.steps_per_second)
        text = fitting.fitted(text, pace.epochs(order.ends - time.time(), order.most), pace.steps_per_epoch)
    (folder / "fitted.toml").write_text(text)
    if order.twin:
        baseline = machine.runs / folder.name.replace("-drloc-", "-baseline-")
        launch(machine, baseline, fitting.twin(text), replace(order, twin=False, fitted=True))
    fit(machine, folder, order, teacher)


def teacher_of(machine: Machine, name: str, student: Path, order: Order) -> Path:
    """The model folder of a teacher; a teacher that was neither trained here nor packed is trained first."""
    if existing := machine.model(name):
        return existing
    folder, path = machine.runs / name, locate(name)
    folder.mkdir(parents=True, exist_ok=True)
    write_state(student, "teacher")
    order = replace(order, ends=time.time() + TEACHER_SHARE * (order.ends - time.time()))
    pace = try_out(machine, path, order, None)
    epochs = pace.epochs(order.ends - time.time(), load_recipe(path).schedule.epochs)
    (folder / "fitted.toml").write_text(fitting.fitted(path.read_text(), epochs, pace.steps_per_epoch))
    fit(machine, folder, order, None)
    return folder


def try_out(machine: Machine, path: Path, order: Order, teacher: Path | None) -> Pace:
    """The speed of a recipe, measured in the first steps of its whole training, data and teacher included."""
    from vtzoo.train import run
    from vtzoo.train.loop import Progress

    marks: list[tuple[float, int, int]] = []  # seconds, step, steps
    deadline = time.time() + TRIAL_SHARE * (order.ends - time.time())

    def watch(progress: Progress | int) -> None:
        if isinstance(progress, Progress):
            marks.append((time.monotonic(), progress.step, progress.steps))
            steady = len(marks) > 2 and marks[-1][0] - marks[1][0] > order.trial  # compiling slows down the first steps
            if steady or (len(marks) > 1 and time.time() > deadline):
                raise _EnoughError

    with TemporaryDirectory() as folder, suppress(_EnoughError):
        endless = Path(folder) / "endless.toml"
        endless.write_text(fitting.fitted(path.read_text(), ENDLESS, 1))
        run.train(
            endless, data=machine.data(load_recipe(path).dataset), out=Path(folder) / "run", seed=order.seed,
            device=order.device, compiled=order.compiled, teacher=teacher, progress=watch,
        )  # fmt: skip
    steady = marks[1:] if len(marks) > 2 else marks
    speeds = [(later[1] - sooner[1]) / (later[0] - sooner[0]) for sooner, later in pairwise(steady)]
    return Pace(steps_per_second=statistics.median(speeds), steps_per_epoch=marks[-1][2] // ENDLESS)


class _EnoughError(Exception):
    """Ends the trial: the speed is known."""


def fit(machine: Machine, folder: Path, order: Order, teacher: Path | None) -> None:
    """Train fitted.toml in its folder, with a checkpoint every minute, and write weights, config and result.json.

    If the time is over before the last step, the weights are those of the last checkpoint.
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
        write_state(folder, "cut")
    else:
        write_state(folder, "done")


def _report(folder: Path, order: Order, progress: Any) -> None:
    """Write a run's progress to state.json, and stop the run as Ctrl-C does once its time is over."""
    if isinstance(progress, int):
        return
    left = (progress.steps - progress.step) / (progress.images_per_second or 1)
    write_state(folder, "training", **asdict(progress), left=left)
    if time.time() > order.ends:
        signal.raise_signal(signal.SIGINT)


@contextmanager
def replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    """A block in which an attribute of a module has another value."""
    original = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, original)


def write_state(folder: Path, phase: str, **facts: Any) -> None:
    """Write a run's phase, with facts on it, to state.json."""
    state = {"phase": phase, "process": os.getpid(), "at": time.time()} | facts
    files.write(folder / "state.json", json.dumps(state).encode())


def read_state(folder: Path) -> dict[str, Any]:
    """The content of state.json; the phase `none` without a run."""
    try:
        return json.loads((folder / "state.json").read_text())
    except (OSError, ValueError):
        return {"phase": "none"}
