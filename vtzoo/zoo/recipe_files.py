"""Recipe files: located by name, read, validated and copied.

The sha256 of a recipe file identifies the runs that it trains.
"""

import json
import math
import re
import tomllib
from functools import reduce
from pathlib import Path
from typing import Any

from vtzoo.base import files, strict
from vtzoo.data.named import DATASETS
from vtzoo.errors import VtzooError, unknown
from vtzoo.zoo import resources
from vtzoo.zoo.recipe import LOSSES, OPTIMIZERS, PRECISIONS, Optimizer, Recipe


def load_recipe(path: Path) -> Recipe:
    """The recipe in a TOML file. An unknown, missing or mistyped key raises a VtzooError that names the key."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise VtzooError(f"no recipe at {path}", "`vtzoo list --recipes` names those of the zoo") from None
    except (OSError, UnicodeDecodeError) as error:
        raise VtzooError(f"cannot read the recipe {path}: {error}") from error
    return parse_recipe(text, str(path))


def locate(name: str) -> Path:
    """The file of a recipe, given by its path or by the name of a shipped recipe."""
    if Path(name).suffix == ".toml":
        return Path(name)
    recipes = shipped()
    if name not in recipes:
        raise unknown("recipe", name, recipes, "vtzoo list --recipes names them all; a path ends in .toml")
    return recipes[name]


def shipped() -> dict[str, Path]:
    """The files of the shipped recipes by name: the zoo's own first, then the paper's."""
    return {path.stem: path for folder in folders() for path in sorted(folder.glob("*-*.toml"))}


def folders() -> tuple[Path, Path]:
    """The folders of the zoo's own recipes and of the paper's; each holds the grid.toml that renders its recipes."""
    own = resources.recipes_folder()
    return own, own / "paper"


def facts(path: Path) -> dict[str, Any]:
    """The images, epochs, steps and further facts of a recipe, as a row of JSON.

    The optimizer is "adamw" or one of OPTIMIZERS; the teacher is a model's name, or None.
    """
    recipe = load_recipe(path)
    return {
        "name": recipe.name, "file": str(path), "dataset": recipe.dataset, "images": recipe.images,
        "image_size": recipe.model.image_size,  # pixels, the side of the square
        "epochs": recipe.schedule.epochs, "batch": recipe.optimizer.batch_size, "steps": recipe.steps,
        "optimizer": recipe.optimizer.name or "adamw", "teacher": recipe.teacher.name if recipe.teacher else None,
    }  # fmt: skip


def copy(name: str, to: Path) -> Path:
    """The new file `to`, an editable copy of a recipe; an existing file raises a VtzooError.

    Its first line names the original. If the file's stem is a valid recipe name, the copy takes that name.
    """
    if to.suffix != ".toml":
        raise VtzooError(f"a recipe's file ends in .toml, unlike {str(to)!r}", f"vtzoo recipe copy {name} {to}.toml")
    source = locate(name)
    recipe = load_recipe(source)
    text = re.sub(r"\A#.*\n", "", source.read_text(encoding="utf-8"))  # a copy of a copy names the last original alone
    if f"-{recipe.objective}-" in to.stem:
        text = re.sub(r"(?m)^name *=.*$", lambda _: f"name = {json.dumps(to.stem)}", text, count=1)
    head = f"# A copy of {recipe.name}, sha256 {identity(source)}. Any key may be edited.\n"
    try:
        with to.open("x", encoding="utf-8") as file:
            file.write(head + text)
    except FileExistsError:
        hint = f"vtzoo train {to} trains it; vtzoo recipe copy {name} OTHER.toml makes another copy"
        raise VtzooError(f"{to} exists already", hint) from None
    return to


def parse_recipe(text: str, source: str = "recipe") -> Recipe:
    """The recipe in a TOML text; errors call the text `source`."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise VtzooError(f"{source} is not valid TOML: {error}") from error
    recipe = strict.build(Recipe, table, source, "a recipe is complete: copy the key from recipes/")
    _validate(recipe, source)
    return recipe


def identity(path: Path) -> str:
    """The sha256 of a recipe file, in hexadecimal, as runs and cards quote it."""
    return files.sha256(path)


def _validate(recipe: Recipe, source: str) -> None:
    """Raise a VtzooError for a value out of its range."""
    if recipe.dataset not in DATASETS and not recipe.finetune:
        raise unknown("dataset", recipe.dataset, DATASETS)
    if recipe.drloc and recipe.drloc.loss not in (None, *LOSSES):
        raise unknown("loss", f"{recipe.drloc.loss}", LOSSES)
    if recipe.optimizer.name not in (None, *OPTIMIZERS):
        raise unknown("optimizer", f"{recipe.optimizer.name}", OPTIMIZERS, "leave out the name for AdamW")
    _validate_muon(recipe.optimizer, source)
    if f"-{recipe.objective}-" not in recipe.name:
        form = f"a recipe {'with' if recipe.drloc else 'without'} [drloc] is named <model>-{recipe.objective}-<dataset>"
        raise VtzooError(f"{source}: {form}, not {recipe.name!r}")
    for key, holds in _range_checks(recipe).items():
        if not holds:
            value: Any = reduce(getattr, key.split(": "), recipe)
            raise VtzooError(f"{source}: {key} is out of range: {value!r}")


def _range_checks(recipe: Recipe) -> dict[str, bool]:
    """Whether each value is within its range, by its tables and key."""
    model, optimizer, schedule, augmentation = recipe.model, recipe.optimizer, recipe.schedule, recipe.augmentation
    checks = {
        "precision": recipe.precision in PRECISIONS,
        "model: image_size": model.image_size > 0,
        "model: crop_pct": 0 < (model.crop_pct or 1) <= 1 and model.crop_pct != 0,
        "model: whitening": model.whitening is None or model.whitening > 0,
        "optimizer: batch_size": optimizer.batch_size > 0,
        "optimizer: learning_rate": optimizer.learning_rate > 0,
        "optimizer: weight_decay": optimizer.weight_decay >= 0,
        "optimizer: betas": all(0 <= beta < 1 for beta in optimizer.betas),
        "optimizer: clip_norm": optimizer.clip_norm >= 0,
        "schedule: epochs": schedule.epochs > 0,
        "schedule: warmup_epochs": 0 <= schedule.warmup_epochs < schedule.cosine_epochs,
        "schedule: cosine_epochs": schedule.cosine_epochs >= schedule.epochs,
        "schedule: final_learning_rate": schedule.final_learning_rate >= 0,
        "schedule: ema_decay": 0 <= schedule.ema_decay < 1,
        "schedule: ema_every": schedule.ema_every is None or schedule.ema_every > 0,
        "augmentation: crop_padding": 0 <= augmentation.crop_padding < model.image_size,
        "augmentation: mixup": augmentation.mixup >= 0,
        "augmentation: cutmix": augmentation.cutmix >= 0,
        "augmentation: mix_probability": 0 <= augmentation.mix_probability <= 1,
        "augmentation: erasing": 0 <= augmentation.erasing <= 1,
        "augmentation: label_smoothing": 0 <= augmentation.label_smoothing < 1,
        "augmentation: color_jitter": 0 <= (augmentation.color_jitter or 0) <= 1,
        "augmentation: erasing_noise": (augmentation.erasing_noise or 0) >= 0,
    }
    if crop := augmentation.random_resized_crop:
        checks |= {
            "augmentation: crop_padding": augmentation.crop_padding == 0,  # one crop or the other
            "augmentation: random_resized_crop: scale": 0 < crop.scale[0] <= crop.scale[1] <= 1,
            "augmentation: random_resized_crop: ratio": 0 < crop.ratio[0] <= crop.ratio[1],
        }
    if chosen := augmentation.rand_augment:
        checks |= {
            "augmentation: rand_augment: operations": chosen.operations > 0,
            "augmentation: rand_augment: magnitude": 0 <= chosen.magnitude <= 10,
            "augmentation: rand_augment: magnitude_std": chosen.magnitude_std >= 0,
            "augmentation: rand_augment: probability": 0 <= chosen.probability <= 1,
        }
    if optimizer.name:
        checks |= {
            "optimizer: momentum": 0 <= (optimizer.momentum or 0) < 1,
            "optimizer: iterations": 1 <= (optimizer.iterations or 0) <= 7,
            "optimizer: adamw_learning_rate": (optimizer.adamw_learning_rate or 0) > 0,
        }
    if teacher := recipe.teacher:
        checks |= {
            "teacher: weight": 0 < teacher.weight <= 1,
            "teacher: temperature": 0 < teacher.temperature < math.inf,
        }
    if drloc := recipe.drloc:
        checks |= {
            "drloc: weight": drloc.weight > 0,
            "drloc: pairs": drloc.pairs > 0,
            "drloc: warmup_epochs": drloc.warmup_epochs >= 0,
            "drloc: schedule_epochs": drloc.schedule_epochs > drloc.warmup_epochs,
        }
    if tuned := recipe.finetune:
        checks |= {
            "finetune: images": tuned.images > 0,
            "finetune: head_epochs": tuned.head_epochs >= 0,
            "finetune: layer_decay": 0 < tuned.layer_decay <= 1,
            "finetune: look_epochs": tuned.look_epochs > 0,
            "finetune: patience": tuned.patience > 0,
        }
    return checks


def _validate_muon(optimizer: Optimizer, source: str) -> None:
    """Raise a VtzooError where Muon lacks one of its own keys, or AdamW has one."""
    for key in ("momentum", "iterations", "adamw_learning_rate"):
        if optimizer.name and getattr(optimizer, key) is None:
            hint = "Muon needs momentum, iterations and adamw_learning_rate"
            raise VtzooError(f"{source}: optimizer: {key} is missing", hint)
        if not optimizer.name and getattr(optimizer, key) is not None:
            raise VtzooError(f"{source}: AdamW has no optimizer: {key}", 'add name = "muon", or leave the key out')
