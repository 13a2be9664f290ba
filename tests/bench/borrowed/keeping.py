"""Writes a training's weights, config and result.json with the accuracy on the borrowed machine; no graph, no card."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from vtzoo import models
from vtzoo.base import files
from vtzoo.data import named, named_reader
from vtzoo.errors import VtzooError
from vtzoo.predict.load import load
from vtzoo.train import loop, run
from vtzoo.train.teacher import open_teacher
from vtzoo.zoo.config import Config
from vtzoo.zoo.recipe import Recipe
from vtzoo.zoo.recipe_files import load_recipe
from vtzoo.zoo.result import Result

WEIGHTS = ("model.safetensors", "localizer.safetensors")


def keep(
    model: torch.nn.Module, localizer: torch.nn.Module | None, recipe: Recipe, config: Config, *, out: Path,
    result: Result, measure: Any, device: str, **_: Any,
) -> Result:  # fmt: skip
    """Do the work of `vtzoo.train.run.finish`, but without the graph, curves and card, which `join` makes at home."""
    run.write_weights(model.state_dict(), out / "model.safetensors")
    if localizer:
        run.write_weights(localizer.state_dict(), out / "localizer.safetensors")
    config.write(out / "config.json")
    measured = measure(load(out.resolve(), backend="torch", device=device))
    weights = {name: files.sha256(out / name) for name in WEIGHTS if (out / name).exists()}
    result = replace(result, weights=weights, **measured)
    result.write(out / "result.json")
    return result


def salvage(folder: Path, data: Path, device: str, teacher: Path | None) -> Result:
    """Write the weights of a run's last checkpoint like a finished run's, and return the result.

    The run has ended early, or still goes on.
    """
    stored = folder / "checkpoint.safetensors"
    if not stored.exists():
        raise VtzooError(f"{folder} has no checkpoint yet", "wait a minute: one is written every minute")
    with safe_open(stored, framework="pt") as file:
        metadata, names = file.metadata(), list(file.keys())
        model_prefix = "average." if any(name.startswith("average.") for name in names) else "model."
        weights, head = (
            {name.removeprefix(prefix): file.get_tensor(name) for name in names if name.startswith(prefix)}
            for prefix in (model_prefix, "localizer.")
        )
    sha256, seed, manifest, *_ = metadata["run"].split("/")  # the rest: the sha256 of the teacher's weights
    recipe = load_recipe(folder / "recipe.toml")
    dataset = named.named_set(recipe.dataset)
    network = loop.build(recipe, dataset.classes, int(seed), torch.device("cpu"))
    network.model.load_state_dict(weights)
    localizer = None
    if head:
        localizer = network.heads[0] if len(network.heads) == 1 else network.heads
        localizer.load_state_dict(head)
    training, test = named_reader.read(dataset, "train", data), named_reader.read(dataset, "test", data)
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    guide = open_teacher(recipe, teacher, torch.device("cpu"))
    result = Result(
        name=recipe.name, dataset=recipe.dataset, seed=int(seed), steps=int(metadata["step"]),
        batch=min(recipe.optimizer.batch_size, len(training)), train_seconds=round(last["seconds"]),
        train_images=len(training), train_manifest=manifest, train_skipped=0, processes=1,
        hardware=run.hardware(models.pick_device(device)), versions=run.versions(), recipe_sha256=sha256,
        teacher=guide.facts if guide else None,
    )  # fmt: skip
    config = run.describe(network.model, recipe, dataset, training.classes)
    return keep(
        network.model, localizer, recipe, config, out=folder, result=result, measure=partial(run.measure, images=test),
        device=device,
    )  # fmt: skip
