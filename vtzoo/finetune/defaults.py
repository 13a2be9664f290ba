"""The default recipe of a fine-tuning run, from the model, the number of images and the device.

The constants were tuned on the validation images of a copy of Flowers-102 at 64 px; `python tests/bench/finetune.py`
measures the resulting accuracy on its test images.
"""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from vtzoo import grid, models
from vtzoo.drloc import SMALLEST_SIDE
from vtzoo.errors import VtzooError
from vtzoo.finetune.pretrained import Pretrained
from vtzoo.models.localizer import grids_of_black
from vtzoo.zoo.recipe import Augmentation, Drloc, Finetune, Model, Optimizer, RandomResizedCrop, Recipe, Schedule
from vtzoo.zoo.recipe_files import parse_recipe

STEPS = (400, 1_000, 20_000)  # for the smallest sets, for sets of a thousand images, and the maximum
EPOCHS = 10  # the minimum for larger sets
MIXED = 2_000  # training images from which mixup is on
EVALUATIONS = 40  # on the validation images, in a run that does not stop early
RATE, LAYER_DECAY, DROP_PATH = 1e-3, 0.8, 0.1
# Weights of drloc on distances in cells. The released code trains Swin with 0.5, and CvT and T2T-ViT with 0.1
# (recipes/paper/grid.toml); the paper fine-tunes with the weight of its training.
WEIGHTS, WEIGHT = {"swin": 0.5}, 0.1
PAIRS = 64  # per image, as released
PLAIN = Augmentation(
    crop_padding=0, flip=False, mixup=0.0, cutmix=0.0, mix_probability=0.0, erasing=0.0, label_smoothing=0.0
)


@dataclass(frozen=True, kw_only=True)
class Overrides:
    """The user's choices; None leaves the default."""

    drloc: bool = True
    head_only: bool = False
    flip: bool = True
    image_size: int | None = None  # pixels a side
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None


def default_recipe(
    pretrained: Pretrained, model: nn.Module, *, dataset: str, images: int, multi_label: bool, overrides: Overrides,
    device: torch.device,
) -> tuple[Recipe, str]:  # fmt: skip
    """The recipe of a fine-tuning run and its TOML text; `model` is the model to train, on the CPU."""
    head_only = overrides.head_only
    batch = images if head_only else min(images, overrides.batch_size or batch_size(images))
    epochs = 1 if head_only else overrides.epochs or _epochs(images, batch)
    head_epochs = 0 if epochs == 1 else math.ceil(epochs / 10)
    drloc = _drloc(pretrained, model, epochs - head_epochs) if overrides.drloc and not head_only else None
    objective = "drloc" if drloc else "baseline"
    recipe = Recipe(
        name=f"{pretrained.name}-{objective}-{dataset}", dataset=dataset, precision=_precision(pretrained, device),
        model=_model(pretrained),
        optimizer=Optimizer(
            batch_size=batch, learning_rate=1.0 if head_only else overrides.learning_rate or RATE, weight_decay=0.05,
            betas=(0.9, 0.999), clip_norm=5.0,
        ),
        schedule=_schedule(epochs - head_epochs, 0 if head_only else epochs * (images // batch)),
        augmentation=PLAIN if head_only else _augmentation(overrides.flip, images, multi_label),
        drloc=drloc,
        finetune=Finetune(
            source=pretrained.entry.source or pretrained.entry.name, weights=pretrained.sha256,
            images=images, multi_label=multi_label, head_only=head_only, head_epochs=head_epochs,
            layer_decay=LAYER_DECAY, look_epochs=max(1, round(epochs / EVALUATIONS)), patience=EVALUATIONS // 4,
        ),
    )  # fmt: skip
    return complete(recipe)


def complete(recipe: Recipe) -> tuple[Recipe, str]:
    """A recipe as its TOML text parses, with rounded numbers, and the text."""
    tables = asdict(recipe)
    text = grid.text(tables, [key for key, value in tables.items() if isinstance(value, dict)])
    return parse_recipe(text, "the recipe of this run"), text


def batch_size(images: int) -> int:
    """The images per step: the power of two nearest to the square root of `images`, from 8 to 64."""
    return min(64, max(8, 2 ** round(math.log2(images) / 2)))


def _epochs(images: int, batch: int) -> int:
    """The epochs, including those with a frozen backbone: one step per image, within the limits STEPS and EPOCHS."""
    least, small, most = STEPS
    steps_per_epoch = images // batch
    steps = min(most, max(least, min(small, images), EPOCHS * steps_per_epoch))
    return max(2, round(steps / steps_per_epoch))


def _schedule(epochs: int, steps: int) -> Schedule:
    """A short warm-up, a cosine to the end, and an EMA over about the last twentieth of the steps."""
    return Schedule(
        epochs=epochs, warmup_epochs=epochs / 20, cosine_epochs=epochs, final_learning_rate=1e-6,
        ema_decay=round(1 - 20 / max(steps, 20), 4),
    )  # fmt: skip


def _augmentation(flip: bool, images: int, multi_label: bool) -> Augmentation:
    """Crops that keep most of an image; no mixup or smoothing of multi-label targets, which may be unknown."""
    crop = RandomResizedCrop(scale=(0.5, 1.0), ratio=(3 / 4, 4 / 3))
    augmentation = replace(PLAIN, random_resized_crop=crop, flip=flip, color_jitter=0.2)
    if multi_label:
        return augmentation
    mixing = {"mixup": 0.2, "mix_probability": 0.5} if images >= MIXED else {}
    return replace(augmentation, label_smoothing=0.1, **mixing)


def _model(pretrained: Pretrained) -> Model:
    arguments = {key: value for key, value in pretrained.arguments.items() if key != "img_size"}
    size, crop = pretrained.preprocess.size, pretrained.preprocess.crop
    return Model(
        name=pretrained.name, image_size=size, crop_pct=crop if crop < 1 else None,
        arguments=arguments | {"drop_path_rate": DROP_PATH},
    )  # fmt: skip


def _precision(pretrained: Pretrained, device: torch.device) -> str:
    """The precision of the pretrained recipe; else bfloat16 on a GPU and float32 on a CPU."""
    if pretrained.recipe:
        return pretrained.recipe.precision
    return "bfloat16" if device.type == "cuda" else "float32"


def _drloc(pretrained: Pretrained, model: nn.Module, epochs: int) -> Drloc | None:
    """The localization of the pretrained recipe, or the default on the last large enough grid; None without a grid."""
    span = {"warmup_epochs": epochs / 20, "schedule_epochs": float(epochs)}
    if pretrained.recipe and pretrained.recipe.drloc:
        return replace(pretrained.recipe.drloc, **span)
    stage = _last_stage(model, pretrained.preprocess.size)
    if stage is None:
        return None
    weight = next((weight for family, weight in WEIGHTS.items() if family in pretrained.name), WEIGHT)
    return Drloc(weight=weight, pairs=PAIRS, loss="l1", stage=stage, normalize=False, **span)


def _last_stage(model: nn.Module, size: int) -> int | None:
    """The last stage with a grid of at least SMALLEST_SIDE cells a side.

    None without such a stage, or if the forward pass that gives the grids changes the model's logits.
    """
    try:
        sides = [min(cells.shape[-2:]) for cells in grids_of_black(model, size, torch.device("cpu"))]
        large = [stage for stage, side in enumerate(sides) if side >= SMALLEST_SIDE]
        return large[-1] if large and _same_logits(model, size) else None
    except (VtzooError, RuntimeError, TypeError, AttributeError, AssertionError):  # errors differ between families
        return None


@torch.no_grad()
def _same_logits(model: Any, size: int) -> bool:
    """Whether the features that come with a model's grids give the model's own logits."""
    noise = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    training = model.training
    model.eval()
    features, _ = models.features_and_grids(model, noise, stages=None)
    logits, again = model(noise), model.forward_head(features)
    model.train(training)
    return logits.shape == again.shape and torch.allclose(logits, again, atol=1e-3, rtol=1e-3)
