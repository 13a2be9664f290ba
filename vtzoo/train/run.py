"""Trains a recipe: reads the data, fits the model, and writes, measures and documents a model folder."""

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
from vtzoo.data.labelled_images import LabelledImages
from vtzoo.data.named import NamedSet
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
from vtzoo.zoo.recipe import Recipe
from vtzoo.zoo.recipe_files import identity, load_recipe
from vtzoo.zoo.result import Result

WEIGHTS = ("model.safetensors", "onnx/model.onnx", "localizer.safetensors")  # result.json records their sha256
PICTURES = 256  # images that verify the ONNX graph
VERSIONED = ("torch", "timm", "numpy", "pillow", "onnxruntime")


def train(
    path: Path, *, data: Path | None, out: Path, seed: int = 0, device: str = "auto", accumulate: int = 1,
    compiled: bool = False, workers: int | None = None, skip_bad: bool = False, resume: bool = False,
    teacher: Path | None = None, progress: Callable[[Progress | int], None] | None = None,
) -> Result | None:  # fmt: skip
    """Train a recipe and return its result; `out` becomes a model folder.

    `data` is the path of the recipe's data set; None reads it from the Hub. `accumulate` is the number of parts of a
    batch, computed one after another. `compiled` compiles the model. `workers` is the number of processes that decode
    in every epoch; None decodes once, within the memory budget. `skip_bad` leaves unreadable training images out.
    `resume` continues from the last checkpoint, to the losses of an uninterrupted run, bit for bit on the CPU.
    `teacher` is the teacher's model folder; None looks it up by its name. `progress` is called with the number of newly
    decoded images, and during training with its Progress.

    Under torchrun, each process takes its share of every batch, and all but rank 0 return None. A restart by torchrun,
    after a process died, resumes the run; all machines must share the folder `out`.
    """
    recipe = load_recipe(path)
    if recipe.finetune:
        hint = f"vtzoo finetune --model {recipe.finetune.source} --data DATA, with the images that it was trained on"
        raise VtzooError(f"{path} goes on from another model's weights, on images of its own", hint)
    dataset = named.named_set(recipe.dataset)
    where = models.pick_device(device)
    with process_group(where) as world:
        claim(out, resume or world.restarts > 0 or not world.leads)
        guide = open_teacher(recipe, teacher, where)
        network = build(recipe, dataset.classes, seed, where)  # before the data: refuses an untrainable recipe early
        training, test = (named_reader.read(dataset, split, data) for split in ("train", "test"))
        with world.first():  # rank 0 decodes the images into the cache, from where the other ranks read them
            check_test_images(test, recipe.model.image_size, name=dataset.name)
            batches, images = open_batches(
                recipe, training, mean=dataset.mean, std=dataset.std, flip=dataset.flip, seed=seed, device=where,
                workers=workers, accumulate=accumulate, skip_bad=skip_bad, progress=progress,
            )  # fmt: skip
        if guide:
            guide.check_images(images.manifest, test)
        recipe_sha256, stored = identity(path), out / "checkpoint.safetensors"
        run_id = f"{recipe_sha256}/{seed}/{images.manifest}" + (f"/{guide.facts.weights}" if guide else "")
        if not stored.exists():
            whiten(recipe, network.model, batches)
        run = set_up(recipe, network, batches, world=world, accumulate=accumulate, compiled=compiled, teacher=guide)
        if stored.exists():
            run.step = checkpoint.restore(stored, run=run_id, **run.parts())
        world.wait()
        if world.leads:
            files.write(out / "recipe.toml", path.read_bytes())  # now: the user may edit it during the run
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
        return finish(
            run.model, run.localizer, recipe, describe(run.model, recipe, dataset, training.classes), out=out,
            result=result, steps_per_epoch=batches.steps_per_epoch, pictures=verification_images(test, recipe),
            measure=partial(measure, images=test),
        )  # fmt: skip


def whiten(recipe: Recipe, model: Any, batches: Batches) -> None:
    """Whiten the first layer, if the recipe or the model asks for it, on the first batch: equal in every process."""
    if recipe.model.whitening:
        whitening.whiten(whitening.first_convolution(model), batches.batch(0).images, recipe.model.whitening)
    elif hasattr(model, "whiten"):  # the small CNN's first layer always is
        model.whiten(batches.batch(0).images)


def verification_images(test: LabelledImages, recipe: Recipe) -> VerificationImages:
    """The first test images, as the model takes them, to verify its ONNX graph on."""
    first = test.select(np.arange(min(PICTURES, len(test))))
    pixels = first.pixels(Preprocess.square(recipe.model.image_size))
    return VerificationImages(pixels=pixels, source=f"the test split of {recipe.dataset}", labels=first.targets)


def finish(
    model: nn.Module, localizer: nn.Module | None, recipe: Recipe, config: Config, *, out: Path,
    result: Result, steps_per_epoch: int, pictures: VerificationImages,
    measure: Callable[[Classifier], dict[str, Any]],
) -> Result:  # fmt: skip
    """Write the model folder of a fitted model, measure the model loaded from there, and return the whole result.

    `result` describes the training, `pictures` verify the ONNX graph, and `measure` returns the result's measured
    fields.
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
    result = replace(result, **measure(load(out.resolve())))  # a path: an embedded model may have the same name
    result.write(out / "result.json")
    files.write(out / "README.md", cards.render(config, recipe, result).encode())
    return result


def describe(model: Any, recipe: Recipe, dataset: NamedSet, labels: tuple[str, ...]) -> Config:
    """The config of a model that a recipe trained from scratch."""
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
    """The GPU's name, or the number of CPU threads and the architecture."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{threads} CPU core{'s' if threads > 1 else ''} ({platform.machine()})"


def versions() -> dict[str, str | None]:
    """The versions of vtzoo and of the packages that a result depends on."""
    return {"vtzoo": __version__} | {name: installed(name) for name in VERSIONED}


def installed(name: str) -> str | None:
    """The version of an installed distribution, or of its `-gpu` variant, as ONNX Runtime has."""
    for candidate in (name, f"{name}-gpu"):
        try:
            return version(candidate)
        except ModuleNotFoundError:
            continue
    return None


def claim(out: Path, resume: bool) -> None:
    """Make the folder of a run; a folder with an earlier run needs `resume`, and a folder with a model is refused."""
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
