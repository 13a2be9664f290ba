"""A recipe: everything that decides a training run but its seed, read from one complete TOML file.

There are no defaults and no inheritance: what the file says is what runs, and the file's sha256 is the run's identity.
A key that may be absent, as the table `[drloc]`, names a thing that is then not done.
"""

import json
import math
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vtzoo.base import files, strict
from vtzoo.data.named import DATASETS
from vtzoo.errors import VtzooError, unknown
from vtzoo.zoo import resources

LOSSES = ("l1", "signed", "cross_entropy", "variance_aware", "every_stage", "off_grid")  # vtzoo.drloc has them
OPTIMIZERS = ("muon",)  # vtzoo.train.muon has it
PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, kw_only=True)
class Model:
    """What is trained."""

    name: str  # a key of vtzoo.models.MODELS, or any timm architecture
    image_size: int  # pixels, the side of the square input
    crop_pct: float | None = None  # of a test image's shorter side that the square keeps, 0..1; absent is all of it
    whitening: float | None = None  # variance taken for noise where the first layer is whitened; absent is at random
    arguments: dict[str, Any]  # to the architecture: patch_size, window_size, drop_path_rate...


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """AdamW's settings, or those of Muon with AdamW beside it."""

    name: str | None = None  # one of OPTIMIZERS; absent is AdamW
    batch_size: int  # images a step, over all devices
    learning_rate: float  # at its peak, for this batch size
    weight_decay: float  # on weight matrices; none on biases, norms and position tables
    betas: tuple[float, float]  # AdamW's
    clip_norm: float  # of the gradient; 0 never clips
    momentum: float | None = None  # Muon's, Nesterov's kind; it and the next two are there for Muon alone
    iterations: int | None = None  # of Newton and Schulz, 1..7, that make a matrix of Muon's orthogonal
    adamw_learning_rate: float | None = None  # at its peak, of what AdamW moves where Muon moves the hidden matrices


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long, and how the learning rate and the averaged weights go."""

    epochs: int  # run
    warmup_epochs: float  # linear, from 0
    cosine_epochs: int  # at which the cosine reaches `final_learning_rate`; equal to `epochs` where it is annealed
    final_learning_rate: float
    ema_decay: float  # a step, of the averaged weights, which are evaluated and published; 0 keeps none
    ema_every: int | None = None  # steps from one move of the averaged weights to the next; absent is 1


@dataclass(frozen=True, kw_only=True)
class RandomResizedCrop:
    """A box of random size, shape and place, resized to the model's square (Szegedy et al. 2015)."""

    scale: tuple[float, float]  # of the image's area that the box covers, from and to
    ratio: tuple[float, float]  # of the box's width to its height, from and to


@dataclass(frozen=True, kw_only=True)
class RandAugment:
    """Random operations on colour and shape (Cubuk et al. 2020), as timm's rand-m9-mstd0.5-inc1 has them."""

    operations: int  # drawn for every image, with replacement
    magnitude: float  # 0..10, the mean of a normal distribution
    magnitude_std: float  # its standard deviation
    probability: float  # with which each drawn operation is carried out


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What is done to the images and the labels of training, drawn anew for every image and epoch."""

    crop_padding: int  # pixels of reflected border around the image, before a random crop of the original size
    random_resized_crop: RandomResizedCrop | None = None  # in the place of a padded crop
    flip: bool  # left to right, half of the images; never where the data set's row says no
    rand_augment: RandAugment | None = None
    color_jitter: float | None = None  # the largest relative change of brightness, contrast and saturation, 0..1
    mixup: float  # alpha of the Beta distribution; 0 for none
    cutmix: float  # likewise
    mix_probability: float  # of a batch's images, to be mixed at all
    erasing: float  # probability of a random rectangle of the mean colour
    erasing_noise: float | None = None  # standard deviation of normal noise in it, of normalized pixels
    label_smoothing: float


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A trained model of the same data set, whose logits are a second target (Hinton et al. 2015)."""

    name: str  # the model's, which is its recipe's
    weight: float  # of the teacher's targets, 0..1; the labels have what is left of 1
    temperature: float  # that divides both models' logits


@dataclass(frozen=True, kw_only=True)
class Drloc:
    """Dense relative localization: vtzoo.drloc has the loss."""

    weight: float  # of the localization loss, at its peak
    pairs: int  # per image
    loss: str | None = None  # one of LOSSES; absent is l1, the released one
    stage: int  # index of the grid, shallow to deep; -1 is the last; where every stage is trained, the first one
    normalize: bool  # targets in grid sides instead of cells
    warmup_epochs: float  # in which the weight rises linearly from 0
    schedule_epochs: float  # at which it has fallen linearly to 0


@dataclass(frozen=True, kw_only=True)
class Finetune:
    """How training goes on from the weights of another model, on people's own images."""

    source: str  # the model's name
    weights: str  # sha256 of its model.safetensors
    images: int  # that it is trained on
    multi_label: bool  # an image may have several classes: a sigmoid each, not one softmax
    head_only: bool  # the features stay as they are, and the head is fitted to them by L-BFGS
    head_epochs: int  # before the schedule's, in which the new head alone learns, at the peak rate
    layer_decay: float  # of the learning rate, from each layer to the one below it
    look_epochs: int  # from one look at the validation images to the next; the best weights seen are kept
    patience: int  # looks without a better one after which the run ends


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training run, but for its seed."""

    name: str  # <model>-<objective>-<dataset>, the stem of the file
    dataset: str  # a key of vtzoo.data.named.DATASETS; of a fine-tuned model what the images are called
    precision: str  # one of PRECISIONS: of the forward pass, by autocast
    model: Model
    optimizer: Optimizer
    schedule: Schedule
    augmentation: Augmentation
    teacher: Teacher | None = None  # None is taught by the labels alone
    drloc: Drloc | None  # None is the baseline: no localization head is built
    finetune: Finetune | None = None  # None starts from fresh weights

    @property
    def objective(self) -> str:
        """The middle part of its name."""
        return "drloc" if self.drloc else "baseline"

    @property
    def steps(self) -> int:
        """Of the optimizer, in the whole run: an epoch's images after its last whole batch wait for another epoch."""
        epochs = self.schedule.epochs + (self.finetune.head_epochs if self.finetune else 0)
        return epochs * (self.images // min(self.optimizer.batch_size, self.images))

    @property
    def images(self) -> int:
        """It is trained on, as vtzoo.data.named counts them, or as they were found."""
        return self.finetune.images if self.finetune else DATASETS[self.dataset].train


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
    """The files of the recipes that ship with the zoo, by name: the zoo's own first, then the paper's."""
    return {path.stem: path for folder in folders() for path in sorted(folder.glob("*-*.toml"))}


def folders() -> tuple[Path, Path]:
    """Where recipes that ship lie, each folder with the grid that renders it: the zoo's own, and the paper's."""
    own = resources.recipes_folder()
    return own, own / "paper"


def facts(path: Path) -> dict[str, Any]:
    """What training a recipe comes to, on its data set as vtzoo.data.named counts it: images, epochs and steps.

    The optimizer is "adamw" or one of OPTIMIZERS; the teacher is a model's name, or None.
    """
    recipe = load_recipe(path)
    return {
        "name": recipe.name,
        "file": str(path),
        "dataset": recipe.dataset,
        "images": recipe.images,
        "image_size": recipe.model.image_size,  # pixels, the side of the square
        "epochs": recipe.schedule.epochs,
        "batch": recipe.optimizer.batch_size,
        "steps": recipe.steps,
        "optimizer": recipe.optimizer.name or "adamw",
        "teacher": recipe.teacher.name if recipe.teacher else None,
    }


def copy(name: str, to: Path) -> Path:
    """Write a recipe into a file to edit, and return the file; one that exists already is a VtzooError.

    Its first line says what it is a copy of. Where the file's stem has the form of a name, it is the copy's name.
    """
    if to.suffix != ".toml":
        raise VtzooError(f"a recipe's file ends in .toml, unlike {str(to)!r}", f"vtzoo recipe copy {name} {to}.toml")
    source = locate(name)
    recipe = load_recipe(source)
    text = re.sub(r"\A#.*\n", "", source.read_text(encoding="utf-8"))  # where the source was from is not asked any more
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
    """The recipe that a TOML text says; `source` names the text in errors."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise VtzooError(f"{source} is not valid TOML: {error}") from error
    recipe = strict.build(Recipe, table, source, "a recipe is complete: copy the key from recipes/")
    _validate(recipe, source)
    return recipe


def identity(path: Path) -> str:
    """The sha256 of a recipe file, in hexadecimal: what a run and its card refer to."""
    return files.sha256(path)


def _validate(recipe: Recipe, source: str) -> None:
    """Refuse values that no run could mean."""
    if recipe.dataset not in DATASETS and not recipe.finetune:
        raise unknown("dataset", recipe.dataset, DATASETS)
    if recipe.drloc and recipe.drloc.loss not in (None, *LOSSES):
        raise unknown("loss", f"{recipe.drloc.loss}", LOSSES)
    if recipe.optimizer.name not in (None, *OPTIMIZERS):
        raise unknown("optimizer", f"{recipe.optimizer.name}", OPTIMIZERS, "leave out the name for AdamW")
    _validate_muon(recipe.optimizer, source)
    if f"-{recipe.objective}-" not in recipe.name:
        raise VtzooError(
            f"{source}: a recipe {'with' if recipe.drloc else 'without'} [drloc] is named "
            f"<model>-{recipe.objective}-<dataset>, not {recipe.name!r}"
        )
    checks = {
        "precision": recipe.precision in PRECISIONS,
        "model: image_size": recipe.model.image_size > 0,
        "model: crop_pct": 0 < (recipe.model.crop_pct or 1) <= 1 and recipe.model.crop_pct != 0,
        "model: whitening": recipe.model.whitening is None or recipe.model.whitening > 0,
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
        "schedule: ema_every": recipe.schedule.ema_every is None or recipe.schedule.ema_every > 0,
        "augmentation: crop_padding": 0 <= recipe.augmentation.crop_padding < recipe.model.image_size,
        "augmentation: mixup": recipe.augmentation.mixup >= 0,
        "augmentation: cutmix": recipe.augmentation.cutmix >= 0,
        "augmentation: mix_probability": 0 <= recipe.augmentation.mix_probability <= 1,
        "augmentation: erasing": 0 <= recipe.augmentation.erasing <= 1,
        "augmentation: label_smoothing": 0 <= recipe.augmentation.label_smoothing < 1,
        "augmentation: color_jitter": 0 <= (recipe.augmentation.color_jitter or 0) <= 1,
        "augmentation: erasing_noise": (recipe.augmentation.erasing_noise or 0) >= 0,
    }
    if crop := recipe.augmentation.random_resized_crop:
        checks |= {
            "augmentation: crop_padding": recipe.augmentation.crop_padding == 0,  # one crop or the other
            "augmentation: random_resized_crop: scale": 0 < crop.scale[0] <= crop.scale[1] <= 1,
            "augmentation: random_resized_crop: ratio": 0 < crop.ratio[0] <= crop.ratio[1],
        }
    if chosen := recipe.augmentation.rand_augment:
        checks |= {
            "augmentation: rand_augment: operations": chosen.operations > 0,
            "augmentation: rand_augment: magnitude": 0 <= chosen.magnitude <= 10,
            "augmentation: rand_augment: magnitude_std": chosen.magnitude_std >= 0,
            "augmentation: rand_augment: probability": 0 <= chosen.probability <= 1,
        }
    if recipe.optimizer.name:
        checks |= {
            "optimizer: momentum": 0 <= (recipe.optimizer.momentum or 0) < 1,
            "optimizer: iterations": 1 <= (recipe.optimizer.iterations or 0) <= 7,
            "optimizer: adamw_learning_rate": (recipe.optimizer.adamw_learning_rate or 0) > 0,
        }
    if recipe.teacher:
        checks |= {
            "teacher: weight": 0 < recipe.teacher.weight <= 1,
            "teacher: temperature": 0 < recipe.teacher.temperature < math.inf,
        }
    if recipe.drloc:
        checks |= {
            "drloc: weight": recipe.drloc.weight > 0,
            "drloc: pairs": recipe.drloc.pairs > 0,
            "drloc: warmup_epochs": recipe.drloc.warmup_epochs >= 0,
            "drloc: schedule_epochs": recipe.drloc.schedule_epochs > recipe.drloc.warmup_epochs,
        }
    if tuned := recipe.finetune:
        checks |= {
            "finetune: images": tuned.images > 0,
            "finetune: head_epochs": tuned.head_epochs >= 0,
            "finetune: layer_decay": 0 < tuned.layer_decay <= 1,
            "finetune: look_epochs": tuned.look_epochs > 0,
            "finetune: patience": tuned.patience > 0,
        }
    for key, holds in checks.items():
        if not holds:
            value: Any = recipe
            for name in key.split(": "):
                value = getattr(value, name)
            raise VtzooError(f"{source}: {key} is out of range: {value!r}")


def _validate_muon(how: Optimizer, source: str) -> None:
    """Muon has keys of its own, all of them, and AdamW none of these."""
    for key in ("momentum", "iterations", "adamw_learning_rate"):
        if how.name and getattr(how, key) is None:
            raise VtzooError(
                f"{source}: optimizer: {key} is missing", "Muon needs momentum, iterations and adamw_learning_rate"
            )
        if not how.name and getattr(how, key) is not None:
            raise VtzooError(f"{source}: AdamW has no optimizer: {key}", 'add name = "muon", or leave the key out')
