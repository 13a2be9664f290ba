"""What a training leaves on the borrowed machine: weights, their accuracy and a result.json; no graph, no card."""

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

KEPT = ("model.safetensors", "localizer.safetensors")


def keep(
    model: torch.nn.Module, localizer: torch.nn.Module | None, recipe: Recipe, config: Config, *, out: Path,
    result: Result, measure: Any, device: str, **_: Any,
) -> Result:  # fmt: skip
    """What `vtzoo.train.run.finish` does, but for the graph, the curves and the card: they can wait for home."""
    run.write_weights(model.state_dict(), out / "model.safetensors")
    if localizer:
        run.write_weights(localizer.state_dict(), out / "localizer.safetensors")
    config.write(out / "config.json")
    measured = measure(load(out.resolve(), backend="torch", device=device))
    weights = {name: files.sha256(out / name) for name in KEPT if (out / name).exists()}
    result = replace(result, weights=weights, **measured)
    result.write(out / "result.json")
    return result


def salvage(folder: Path, data: Path, device: str, teacher: Path | None) -> Result:
    """Keep what the last checkpoint of a run holds, which ended early or still goes on; its result."""
    stored = folder / "checkpoint.safetensors"
    if not stored.exists():
        raise VtzooError(f"{folder} has no checkpoint yet", "wait a minute: one is written every minute")
    with safe_open(stored, framework="pt") as file:
        facts, names = file.metadata(), list(file.keys())
        average = "average." if any(name.startswith("average.") for name in names) else "model."
        weights, head = (
            {name.removeprefix(part): file.get_tensor(name) for name in names if name.startswith(part)}
            for part in (average, "localizer.")
        )
    sha256, seed, manifest, *_ = facts["run"].split("/")  # and the sha256 of the teacher's weights
    recipe = load_recipe(folder / "recipe.toml")
    dataset = named.named_set(recipe.dataset)
    network = loop.build(recipe, dataset.classes, int(seed), torch.device("cpu"))
    network.model.load_state_dict(weights)
    localizer = None
    if head:
        localizer = network.heads[0] if len(network.heads) == 1 else network.heads
        localizer.load_state_dict(head)
    training, held = named_reader.read(dataset, "train", data), named_reader.read(dataset, "test", data)
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    guide = open_teacher(recipe, teacher, torch.device("cpu"))
    result = Result(
        name=recipe.name, dataset=recipe.dataset, seed=int(seed), steps=int(facts["step"]),
        batch=min(recipe.optimizer.batch_size, len(training)), train_seconds=round(last["seconds"]),
        train_images=len(training), train_manifest=manifest, train_skipped=0, processes=1,
        hardware=run.hardware(models.pick_device(device)), versions=run.versions(), recipe_sha256=sha256,
        teacher=guide.facts if guide else None,
    )  # fmt: skip
    config = run.describe(network.model, recipe, dataset, training.classes)
    return keep(
        network.model, localizer, recipe, config, out=folder, result=result, measure=partial(run.measure, images=held),
        device=device,
    )  # fmt: skip
