"""A recipe: everything that decides a training run but its seed, read from one complete TOML file.

There are no defaults and no inheritance: what the file says is what runs, and the file's sha256 is the run's identity.
"""

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin

from . import files, resources
from .datasets import DATASETS
from .errors import VtzooError, unknown


@dataclass(frozen=True, kw_only=True)
class Model:
    """What is trained."""

    name: str  # a key of vtzoo.models.MODELS, or any timm architecture
    image_size: int  # pixels, the side of the square input
    arguments: dict[str, Any]  # to the architecture: patch_size, window_size, drop_path_rate...


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """AdamW's settings."""

    batch_size: int  # images a step, over all devices
    learning_rate: float  # AdamW's, at its peak, for this batch size
    weight_decay: float  # on weight matrices; none on biases, norms and position tables
    betas: tuple[float, float]
    clip_norm: float  # of the gradient; 0 never clips


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long, and how the learning rate and the averaged weights go."""

    epochs: int  # run
    warmup_epochs: float  # linear, from 0
    cosine_epochs: int  # at which the cosine reaches `final_learning_rate`; equal to `epochs` where it is annealed
    final_learning_rate: float
    ema_decay: float  # of the averaged weights, which are the ones evaluated and published; 0 keeps none


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What is done to the images and the labels of training, drawn anew for every image and epoch."""

    crop_padding: int  # pixels of reflected border around the image, before a random crop of the original size
    flip: bool  # left to right, half of the images
    mixup: float  # alpha of the Beta distribution; 0 for none
    cutmix: float  # likewise
    mix_probability: float  # of a batch's images, to be mixed at all
    erasing: float  # probability of a random rectangle of the mean colour
    label_smoothing: float


@dataclass(frozen=True, kw_only=True)
class Drloc:
    """Dense relative localization: vtzoo.drloc has the loss."""

    weight: float  # of the localization loss, at its peak
    pairs: int  # per image
    stage: int  # index of the grid, shallow to deep; -1 is the last
    normalize: bool  # targets in grid sides instead of cells
    warmup_epochs: float  # in which the weight rises linearly from 0
    schedule_epochs: float  # at which it has fallen linearly to 0


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training run, but for its seed."""

    name: str  # <model>-<objective>-<dataset>, the stem of the file
    dataset: str  # a key of vtzoo.datasets.DATASETS
    precision: str  # "float32" or "bfloat16": of the forward pass, by autocast
    model: Model
    optimizer: Optimizer
    schedule: Schedule
    augmentation: Augmentation
    drloc: Drloc | None  # None is the baseline: no localization head is built


def load_recipe(path: Path) -> Recipe:
    """The recipe in a TOML file. Any key that is unknown, missing or mistyped is a VtzooError that names it."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise VtzooError(f"no recipe at {path}", "`vtzoo list --recipes` names those of the zoo") from None
    except (OSError, UnicodeDecodeError) as error:
        raise VtzooError(f"cannot read the recipe {path}: {error}") from error
    return parse_recipe(text, str(path))


def locate(name: str) -> Path:
    """The file of a recipe: a path as it is, or the name of one that ships with the zoo."""
    if Path(name).suffix == ".toml":
        return Path(name)
    recipes = shipped()
    if name not in recipes:
        raise unknown("recipe", name, recipes, "vtzoo list --recipes names them all; a path ends in .toml")
    return recipes[name]


def shipped() -> dict[str, Path]:
    """The files of the recipes that ship with the zoo, by name and in its order."""
    return {path.stem: path for path in sorted(resources.recipes_folder().glob("*-*.toml"))}


def parse_recipe(text: str, source: str = "recipe") -> Recipe:
    """The recipe that a TOML text says; `source` names the text in errors."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise VtzooError(f"{source} is not valid TOML: {error}") from error
    recipe = _strict(Recipe, table, source)
    _validate(recipe, source)
    return recipe


def identity(path: Path) -> str:
    """The sha256 of a recipe file, in hexadecimal: what a run and its card refer to."""
    return files.sha256(path)


def _strict(kind: Any, table: dict[str, Any], where: str) -> Any:
    """Build the dataclass `kind` from a TOML table that must hold exactly its keys, each of its type."""
    wanted = {field.name: field.type for field in fields(kind)}
    for key in table:
        if key not in wanted:
            raise unknown("key", f"{where}: {key}", [f"{where}: {name}" for name in wanted])
    values = {}
    for key, annotation in wanted.items():
        optional = get_origin(annotation) is UnionType and NoneType in get_args(annotation)
        if key in table:
            values[key] = _typed(get_args(annotation)[0] if optional else annotation, table[key], f"{where}: {key}")
        elif optional:
            values[key] = None
        else:
            raise VtzooError(f"{where}: {key} is missing", "a recipe is complete: copy the key from recipes/")
    return kind(**values)


def _typed(annotation: Any, value: Any, where: str) -> Any:
    """The value as its annotation wants it; whole numbers serve as floats, booleans never as numbers."""
    if hasattr(annotation, "__dataclass_fields__"):
        if isinstance(value, dict):
            return _strict(annotation, value, where)
    elif get_origin(annotation) is tuple:
        if isinstance(value, list) and len(value) == len(get_args(annotation)):
            return tuple(_typed(one, each, where) for one, each in zip(get_args(annotation), value, strict=True))
    elif get_origin(annotation) is dict:
        if isinstance(value, dict):
            return value
    elif annotation is float and type(value) in (int, float):
        return float(value)
    elif type(value) is annotation:
        return value
    raise VtzooError(f"{where} must be {_name(annotation)}, not {value!r}")


def _name(annotation: Any) -> str:
    names = {float: "a number", int: "a whole number", bool: "true or false", str: "a string"}
    if get_origin(annotation) is tuple:
        return f"a list of {len(get_args(annotation))} numbers"
    return names.get(annotation, "a table")


def _validate(recipe: Recipe, source: str) -> None:
    """Refuse values that no run could mean."""
    if recipe.dataset not in DATASETS:
        raise unknown("dataset", recipe.dataset, DATASETS)
    objective = "drloc" if recipe.drloc else "baseline"
    if f"-{objective}-" not in recipe.name:
        raise VtzooError(
            f"{source}: a recipe {'with' if recipe.drloc else 'without'} [drloc] is named "
            f"<model>-{objective}-<dataset>, not {recipe.name!r}"
        )
    checks = {
        "precision": recipe.precision in ("float32", "bfloat16"),
        "model: image_size": recipe.model.image_size > 0,
        "optimizer: batch_size": recipe.optimizer.batch_size > 0,
        "optimizer: learning_rate": recipe.optimizer.learning_rate > 0,
        "optimizer: weight_decay": recipe.optimizer.weight_decay >= 0,
        "optimizer: betas": all(0 <= beta < 1 for beta in recipe.optimizer.betas),
        "optimizer: clip_norm": recipe.optimizer.clip_norm >= 0,
        "schedule: epochs": recipe.schedule.epochs > 0,
        "schedule: warmup_epochs": 0 <= recipe.schedule.warmup_epochs < recipe.schedule.cosine_epochs,
        "schedule: cosine_epochs": recipe.schedule.cosine_epochs >= recipe.schedule.epochs,
        "schedule: final_learning_rate": recipe.schedule.final_learning_rate >= 0,
        "schedule: ema_decay": 0 <= recipe.schedule.ema_decay < 1,
        "augmentation: crop_padding": 0 <= recipe.augmentation.crop_padding < recipe.model.image_size,
        "augmentation: mixup": recipe.augmentation.mixup >= 0,
        "augmentation: cutmix": recipe.augmentation.cutmix >= 0,
        "augmentation: mix_probability": 0 <= recipe.augmentation.mix_probability <= 1,
        "augmentation: erasing": 0 <= recipe.augmentation.erasing <= 1,
        "augmentation: label_smoothing": 0 <= recipe.augmentation.label_smoothing < 1,
    }
    if recipe.drloc:
        checks |= {
            "drloc: weight": recipe.drloc.weight > 0,
            "drloc: pairs": recipe.drloc.pairs > 0,
            "drloc: warmup_epochs": recipe.drloc.warmup_epochs >= 0,
            "drloc: schedule_epochs": recipe.drloc.schedule_epochs > recipe.drloc.warmup_epochs,
        }
    for key, holds in checks.items():
        if not holds:
            table, _, field = key.rpartition(": ")
            value = getattr(getattr(recipe, table) if table else recipe, field)
            raise VtzooError(f"{source}: {key} is out of range: {value!r}")
