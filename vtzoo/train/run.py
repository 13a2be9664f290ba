"""A recipe in, a model folder out: reads the data, fits, and writes what predicts, evaluates and publishes."""

import platform
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vtzoo import __version__, cards, models
from vtzoo.base import files
from vtzoo.data import named, named_reader
from vtzoo.data.named import Dataset
from vtzoo.data.transform import Preprocess
from vtzoo.errors import VtzooError
from vtzoo.evaluate.run import measure
from vtzoo.export.images import VerificationImages
from vtzoo.export.onnx_files import write_packaged_graph
from vtzoo.models import whitening
from vtzoo.models.localizer import write_localizer
from vtzoo.models.weights import write_weights
from vtzoo.predict.classifier import Classifier
from vtzoo.predict.load import load
from vtzoo.train import checkpoint
from vtzoo.train.curves import draw_curves
from vtzoo.train.distributed import process_group
from vtzoo.train.loop import Progress, build, fit, set_up
from vtzoo.train.pipeline.batches import Batches, check_test_images, open_batches
from vtzoo.train.teacher import open_teacher
from vtzoo.zoo.config import Config
from vtzoo.zoo.recipe import Recipe, identity, load_recipe
from vtzoo.zoo.result import Result

WEIGHTS = ("model.safetensors", "onnx/model.onnx", "localizer.safetensors")  # what result.json keeps the hashes of
PICTURES = 256  # that a graph is verified on
VERSIONED = ("torch", "timm", "numpy", "pillow", "onnxruntime")


def train(
    path: Path, *, data: Path | None, out: Path, seed: int = 0, device: str = "auto", accumulate: int = 1,
    compiled: bool = False, workers: int | None = None, skip_bad: bool = False, resume: bool = False,
    teacher: Path | None = None, progress: Callable[[Progress | int], None] | None = None,
) -> Result | None:  # fmt: skip
    """Train a recipe and return its result; `out` becomes a model folder.

    `data` is where the recipe's data set is read from, None for the Hub. `accumulate` splits a batch into so many parts
    one after another, `compiled` compiles the model, `workers` processes decode in every epoch where a number is given,
    and `skip_bad` leaves unreadable training images out. With `resume` a run goes on at its last checkpoint, to the
    very losses of a run that was never interrupted; on the CPU, bit for bit. `teacher` is the model folder of the
    recipe's teacher; None looks for it among the models at hand. `progress` is called with every further number of
    images that are decoded, then with where the run stands.

    Started by torchrun, each process takes its share of every batch; all but the first return None. What torchrun
    starts again after a process died goes on by itself; machines must share the folder `out`.
    """
    recipe = load_recipe(path)
    if recipe.finetune:
        hint = f"vtzoo finetune --model {recipe.finetune.source} --data DATA, with the images that it was trained on"
        raise VtzooError(f"{path} goes on from another model's weights, on images of its own", hint)
    dataset = named.find(recipe.dataset)
    where = models.pick_device(device)
    with process_group(where) as world:
        claim(out, resume or world.restarts > 0 or not world.leads)
        guide = open_teacher(recipe, teacher, where)
        network = build(
            recipe, dataset.classes, seed, where
        )  # what cannot be trained is refused before the data is read
        training, held = (named_reader.read(dataset, split, data) for split in ("train", "test"))  # before the hours
        with world.first():  # decodes the images into the cache, where the others find them
            check_test_images(held, recipe.model.image_size, name=dataset.name)
            batches, images = open_batches(
                recipe, training, mean=dataset.mean, std=dataset.std, flip=dataset.flip, seed=seed, device=where,
                workers=workers, accumulate=accumulate, skip_bad=skip_bad, progress=progress,
            )  # fmt: skip
        if guide:
            guide.check_images(images.manifest, held)
        recipe_sha256, stored = identity(path), out / "checkpoint.safetensors"
        run_id = f"{recipe_sha256}/{seed}/{images.manifest}" + (f"/{guide.facts.weights}" if guide else "")
        if not stored.exists():
            whiten(recipe, network.model, batches)
        run = set_up(
            recipe, network, batches, world=world, accumulate=accumulate, compiled=compiled, teacher=guide
        )  # fmt: skip
        if stored.exists():
            run.step = checkpoint.restore(stored, run=run_id, **run.parts())
        world.wait()
        if world.leads:
            files.write(out / "recipe.toml", path.read_bytes())  # as it is now: it may be edited while the run goes on
        seconds = fit(run, recipe, seed=seed, identity=run_id, folder=out, progress=progress)
        if not world.leads:
            return None
        result = Result(
            name=recipe.name, dataset=recipe.dataset, seed=seed, steps=run.step, batch=batches.batch_size,
            train_seconds=round(seconds), train_images=images.images, train_manifest=images.manifest,
            train_skipped=images.skipped, processes=world.size, hardware=hardware(where), versions=versions(),
            recipe_sha256=recipe_sha256, teacher=guide.facts if guide else None,
        )  # fmt: skip
        run.model.load_state_dict(run.tensors)
        first = held.select(np.arange(min(PICTURES, len(held))))
        pixels, origin = first.pixels(Preprocess.square(recipe.model.image_size)), f"the test split of {recipe.dataset}"
        pictures = VerificationImages(pixels=pixels, source=origin, labels=first.targets)
        return finish(
            run.model, run.localizer, recipe, describe(run.model, recipe, dataset, training.classes), out=out,
            result=result, steps_per_epoch=batches.steps_per_epoch, pictures=pictures,
            measure=partial(measure, images=held),
        )  # fmt: skip


def whiten(recipe: Recipe, model: Any, batches: Batches) -> None:
    """Set the first layer by training images, where it is to be: from the first batch, in every process."""
    if recipe.model.whitening:
        whitening.whiten(whitening.first_convolution(model), batches.batch(0).images, recipe.model.whitening)
    elif hasattr(model, "whiten"):  # its first layer is nothing else
        model.whiten(batches.batch(0).images)


def finish(
    model: nn.Module, localizer: nn.Module | None, recipe: Recipe, config: Config, *, out: Path,
    result: Result, steps_per_epoch: int, pictures: VerificationImages,
    measure: Callable[[Classifier], dict[str, Any]],
) -> Result:  # fmt: skip
    """Write the model folder of a fitted model, measure it as anybody loads it, and card it; the whole result.

    `result` describes the training, `pictures` are prepared images to verify the graph on, and `measure` returns the
    fields of the result that it measures.
    """
    (out / "onnx").mkdir(exist_ok=True)
    write_weights(model.state_dict(), out / "model.safetensors")
    if localizer:
        write_localizer(localizer, out)
    config.write(out / "config.json")
    draw_curves(out / "metrics.jsonl", out / "curves.png", steps_per_epoch, recipe.drloc)
    certificate = write_packaged_graph(model, config.content, out, images=pictures)
    published = [name for name in WEIGHTS if (out / name).exists()]
    weights = {name: files.sha256(out / name) for name in published}
    result = replace(result, certificate=certificate, weights=weights)
    result.write(out / "result.json")
    result = replace(result, **measure(load(out.resolve())))  # never an embedded model of the same name
    result.write(out / "result.json")
    files.write(out / "README.md", cards.render(config, recipe, result).encode())
    return result


def describe(model: Any, recipe: Recipe, dataset: Dataset, labels: tuple[str, ...]) -> Config:
    """The config of a model that was trained from scratch."""
    size = recipe.model.image_size
    sized = models.sized(recipe.model.name, size)
    arguments = {key: value for key, value in recipe.model.arguments.items() if key != "drop_path_rate"}
    return Config.describe(
        architecture=models.MODELS.get(recipe.model.name, recipe.model.name), arguments=sized | arguments,
        features=model.num_features, labels=labels,
        pretrained_cfg={
            "tag": recipe.name, "num_classes": dataset.classes, "input_size": [3, size, size],
            "fixed_input_size": bool(sized), "interpolation": "bicubic", "crop_mode": "center",
            "crop_pct": recipe.model.crop_pct or 1.0,
            "mean": list(dataset.mean), "std": list(dataset.std), "license": "apache-2.0",
            "first_conv": model.pretrained_cfg.get("first_conv"), "classifier": model.pretrained_cfg.get("classifier"),
        },
    )  # fmt: skip


def hardware(device: torch.device) -> str:
    """What trains here, in words: the GPU's name, or the number of CPU threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{threads} CPU core{'s' if threads > 1 else ''} ({platform.machine()})"


def versions() -> dict[str, str | None]:
    """Of what a result depends on."""
    return {"vtzoo": __version__} | {name: installed(name) for name in VERSIONED}


def installed(name: str) -> str | None:
    """The version of an installed distribution; ONNX Runtime goes by two names."""
    for candidate in (name, f"{name}-gpu"):
        try:
            return version(candidate)
        except ModuleNotFoundError:
            continue
    return None


def claim(out: Path, resume: bool) -> None:
    """Make the folder; refuse to train over an earlier run, unless to go on with it, and over a model put there."""
    if out.exists() and not out.is_dir():
        raise VtzooError(f"{out} is not a folder", "choose another --out")
    if (out / "checkpoint.safetensors").exists():
        if not resume:
            raise VtzooError(f"{out} already holds a run", "go on with it: --resume; or choose another --out")
    elif (out / "config.json").exists():
        raise VtzooError(f"{out} already holds a model, and no checkpoint to go on from", "choose another --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VtzooError(f"cannot make the folder {out}: {error.strerror}", "choose another --out") from error
