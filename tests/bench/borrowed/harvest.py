"""harvest: a run in pieces that travel home; join: the complete model folder that they make there."""

import os
import time
import zipfile
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from vtzoo.errors import VtzooError
from vtzoo.zoo.recipe_files import load_recipe
from vtzoo.zoo.result import Result

from .machine import Machine
from .pieces import MIB, cut
from .pieces import join as joined
from .training import read_order, read_state

PIECE = 16 * MIB - MIB // 16  # bytes, the largest file that travels, less a little
FILES, ALL = 8, 64 * MIB  # that travel at a time
OVER = ("done", "cut", "failed")
REST = (
    "config.json", "curves.png", "localizer.safetensors", "log", "metrics.jsonl", "recipe.toml", "result.json",
)  # fmt: skip
TIES = 0.002  # by which two machines may measure one accuracy differently


def harvest(machine: Machine, name: str, out: Path, *, wait: float, now: bool, record: bool) -> dict[str, Any]:
    """Write a run's pieces into `out`, and return its state: the weights too once it is over, or with `now`.

    `wait` seconds are waited for its end at the most; `record` leaves the weights there, which a twin's can do without.
    """
    folder = machine.runs / name
    if read_state(folder)["phase"] == "none":
        known = ", ".join(sorted(path.name for path in machine.runs.glob("*/"))) or "none"
        raise VtzooError(f"no run {name!r} in {machine.runs}", f"runs there: {known}")
    state = _wait(folder, time.monotonic() + wait)
    if now and state["phase"] not in OVER:
        from .keeping import salvage

        recipe, order = load_recipe(folder / "recipe.toml"), read_order(folder)
        teacher = machine.model(recipe.teacher.name) if recipe.teacher else None
        salvage(folder, machine.data(recipe.dataset), order.device, teacher)
    ship = {"rest.zip": _rest(folder)}
    if (now or state["phase"] in ("done", "cut")) and not record:
        ship = {"model.safetensors": folder / "model.safetensors"} | ship
    out.mkdir(parents=True, exist_ok=True)
    for stale in out.iterdir():
        stale.unlink()
    taken = cut(ship, lambda number: out / ("." if not number else f"more{number}"), room=ALL, largest=PIECE)
    if len(taken) > 1 or len(list(out.iterdir())) > FILES:
        raise VtzooError(f"{name} is too large to travel at once", "take it without weights: --record")
    return state


def _wait(folder: Path, until: float) -> dict[str, Any]:
    """The state of a run at its end, or at that time; a worker that is gone has failed."""
    told = 0.0
    while True:
        state = read_state(folder)
        if state["phase"] not in OVER and not _alive(state["process"]):
            state = {"phase": "failed", "error": "its process is gone: see its log"}
        if state["phase"] in OVER or time.monotonic() >= until:
            return state
        if time.monotonic() - told > 20:
            print(sentence(folder.name, state), flush=True)
            told = time.monotonic()
        time.sleep(0.5)


def _alive(process: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(process, 0)
        return True
    return False


def sentence(name: str, state: dict[str, Any]) -> str:
    """A run's state in words."""
    if state["phase"] == "training" and "step" in state:
        how = f"{state['images_per_second']:,.0f} images/s, loss {state['loss']:.3f}, {state['left']:.0f} s left"
        return f"{name}: step {state['step']:,} of {state['steps']:,}, {how}"
    return f"{name}: {state['phase']}" + (f", {state['error']}" if "error" in state else "")


def _rest(folder: Path) -> Path:
    """A zip of a run's small files, those that it has."""
    packed = folder / "rest.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        for name in REST:
            if (folder / name).exists():
                file.write(folder / name, name)
    return packed


def join(pieces: Path, out: Path, data: Path) -> Result:
    """Make `out` the model folder that `vtzoo train` would have made, of the pieces of a run; its result.

    Every file is checked by its sha256, the graph exported and verified, the accuracy measured and compared with the
    borrowed machine's. Of pieces without weights it is the run's record: recipe, result, metrics.
    """
    if (out / "result.json").exists():
        raise VtzooError(f"{out} holds a model already", "choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    if missing := joined([pieces], out):
        raise VtzooError(f"{missing[0]} lacks pieces in {pieces}", "harvest again")
    with zipfile.ZipFile(out / "rest.zip") as file:
        file.extractall(out)
    (out / "rest.zip").unlink()
    if not (out / "result.json").exists():
        raise VtzooError(f"the run in {pieces} is not over: its log and metrics are in {out}", "harvest again, later")
    there = Result.read(out / "result.json")
    return _complete(out, there, data) if (out / "model.safetensors").exists() else there


def _complete(out: Path, there: Result, data: Path) -> Result:
    """Export, measure and card the weights in a folder, as the end of `vtzoo train` does."""
    import numpy as np

    from vtzoo import models
    from vtzoo.base import files
    from vtzoo.data import named, named_reader
    from vtzoo.data.transform import Preprocess
    from vtzoo.export.images import VerificationImages
    from vtzoo.predict.torch import load_weights
    from vtzoo.train import run
    from vtzoo.zoo import safetensors_reader
    from vtzoo.zoo.config import Config

    for name, known in (there.weights or {}).items():
        if files.sha256(out / name) != known:
            raise VtzooError(f"{out / name} is not what was trained: it has another sha256", "harvest again")
    recipe, config = load_recipe(out / "recipe.toml"), Config.read(out / "config.json")
    model = models.create(config.content)
    load_weights(model, safetensors_reader.read(out / "model.safetensors"))
    held = named_reader.read(named.named_set(recipe.dataset), "test", data)
    first = held.select(np.arange(min(run.PICTURES, len(held))))
    pictures = VerificationImages(
        pixels=first.pixels(Preprocess.square(recipe.model.image_size)),
        source=f"the test split of {recipe.dataset}",
        labels=first.targets,
    )
    steps = (there.train_images or 0) // (there.batch or 1)  # per epoch
    result = run.finish(
        model, None, recipe, config, out=out, result=there, steps_per_epoch=steps,
        pictures=pictures, measure=partial(run.measure, images=held),
    )  # fmt: skip
    if result.images == there.images and abs((result.top1 or 0) - (there.top1 or 0)) > TIES:
        raise VtzooError(
            f"{out} has a top-1 of {result.top1:.4f} here, and had one of {there.top1:.4f} where it was trained",
            "vtzoo verify and vtzoo evaluate --backend torch say which of its files is to blame",
        )
    return result
