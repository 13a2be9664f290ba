"""harvest: writes a run in pieces, to be carried home; join: makes the complete model folder from the pieces."""

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
from .pieces import MIB, cut, plan
from .pieces import join as join_pieces
from .training import read_order, read_state

PIECE = 16 * MIB - MIB // 16  # bytes: 1/16 MiB less than the largest file that comes back
FILES, TOTAL = 8, 64 * MIB  # files, and their bytes, that come back at a time
ENDED = ("done", "cut", "failed")
REST = (
    "config.json", "curves.png", "localizer.safetensors", "log", "metrics.jsonl", "recipe.toml", "result.json",
)  # fmt: skip
TOLERANCE = 0.002  # largest difference of the same model's top-1 between two machines


def harvest(machine: Machine, name: str, out: Path, *, wait: float, now: bool, record: bool) -> dict[str, Any]:
    """Write a run's pieces into `out`, and return the run's state.

    The pieces include the weights if the run is done or cut, or with `now`; `record` leaves them out, for a twin.
    `wait` is the longest time, in seconds, to wait for the run's end.
    """
    folder = machine.runs / name
    if read_state(folder)["phase"] == "none":
        existing = ", ".join(sorted(path.name for path in machine.runs.glob("*/"))) or "none"
        raise VtzooError(f"no run {name!r} in {machine.runs}", f"runs there: {existing}")
    state = _wait(folder, time.monotonic() + wait)
    if now and state["phase"] not in ENDED:
        from .keeping import salvage

        recipe, order = load_recipe(folder / "recipe.toml"), read_order(folder)
        teacher = machine.model(recipe.teacher.name) if recipe.teacher else None
        salvage(folder, machine.data(recipe.dataset), order.device, teacher)
    paths = {"rest.zip": _rest(folder)}
    weights = folder / "model.safetensors"
    if (now or state["phase"] in ("done", "cut")) and not record and weights.exists():
        paths = {"model.safetensors": weights} | paths
    pieces = plan({file: path.stat().st_size for file, path in paths.items()}, room=TOTAL, largest=PIECE)
    if any(piece.folder for piece in pieces) or len(pieces) + 1 > FILES:  # the pieces and their manifest
        raise VtzooError(f"{name} is too large to travel at once", "take it without weights: --record")
    out.mkdir(parents=True, exist_ok=True)
    for stale in out.iterdir():
        stale.unlink()
    cut(paths, lambda folder: out, room=TOTAL, largest=PIECE)
    return state


def _wait(folder: Path, until: float) -> dict[str, Any]:
    """The state of a run at its end, or at the time `until`; a run without its process has failed."""
    reported = 0.0
    while True:
        state = read_state(folder)
        if state["phase"] not in ENDED and not _alive(state["process"]):
            state = {"phase": "failed", "error": "its process is gone: see its log"}
        if state["phase"] in ENDED or time.monotonic() >= until:
            return state
        if time.monotonic() - reported > 20:
            print(sentence(folder.name, state), flush=True)
            reported = time.monotonic()
        time.sleep(0.5)


def _alive(process: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(process, 0)
        return True
    return False


def sentence(name: str, state: dict[str, Any]) -> str:
    """A run's state as a line of text."""
    if state["phase"] == "training" and "step" in state:
        progress = f"{state['images_per_second']:,.0f} images/s, loss {state['loss']:.3f}, {state['left']:.0f} s left"
        return f"{name}: step {state['step']:,} of {state['steps']:,}, {progress}"
    return f"{name}: {state['phase']}" + (f", {state['error']}" if "error" in state else "")


def _rest(folder: Path) -> Path:
    """A zip of those files in REST that the run has."""
    packed = folder / "rest.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        for name in REST:
            if (folder / name).exists():
                file.write(folder / name, name)
    return packed


def join(pieces: Path, out: Path, data: Path) -> Result:
    """Make the model folder that `vtzoo train` would have made, from the pieces of a run, and return its result.

    Every file is checked by its sha256; the graph is exported and verified; the accuracy is measured and compared with
    the borrowed machine's. From pieces without weights, `out` becomes the run's record: recipe, result, metrics.
    """
    if (out / "result.json").exists():
        raise VtzooError(f"{out} holds a model already", "choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    if missing := join_pieces([pieces], out):
        raise VtzooError(f"{missing[0]} lacks pieces in {pieces}", "harvest again")
    with zipfile.ZipFile(out / "rest.zip") as file:
        file.extractall(out)
    (out / "rest.zip").unlink()
    if not (out / "result.json").exists():
        raise VtzooError(f"the run in {pieces} is not over: its log and metrics are in {out}", "harvest again, later")
    trained = Result.read(out / "result.json")
    return _complete(out, trained, data) if (out / "model.safetensors").exists() else trained


def _complete(out: Path, trained: Result, data: Path) -> Result:
    """Export and measure the weights in a folder and write the card, as the end of `vtzoo train` does."""
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

    for name, sha256 in (trained.weights or {}).items():
        if files.sha256(out / name) != sha256:
            raise VtzooError(f"{out / name} is not what was trained: it has another sha256", "harvest again")
    recipe, config = load_recipe(out / "recipe.toml"), Config.read(out / "config.json")
    model = models.create(config.content)
    load_weights(model, safetensors_reader.read(out / "model.safetensors"))
    test = named_reader.read(named.named_set(recipe.dataset), "test", data)
    first = test.select(np.arange(min(run.PICTURES, len(test))))
    pictures = VerificationImages(
        pixels=first.pixels(Preprocess.square(recipe.model.image_size)),
        source=f"the test split of {recipe.dataset}",
        labels=first.targets,
    )
    steps = (trained.train_images or 0) // (trained.batch or 1)  # per epoch
    result = run.finish(
        model, None, recipe, config, out=out, result=trained, steps_per_epoch=steps,
        pictures=pictures, measure=partial(run.measure, images=test),
    )  # fmt: skip
    if result.images == trained.images and abs((result.top1 or 0) - (trained.top1 or 0)) > TOLERANCE:
        raise VtzooError(
            f"{out} has a top-1 of {result.top1:.4f} here, and had one of {trained.top1:.4f} where it was trained",
            "vtzoo verify and vtzoo evaluate --backend torch say which of its files is to blame",
        )
    return result
