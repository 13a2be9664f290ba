"""What fine-tuning does where nobody says: a complete recipe, out of the model, the number of images and the device.

The numbers were chosen on a copy of Flowers-102 at 64 px, by its validation images; `python tests/bench/finetune.py`
measures what they give on its test images.
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

STEPS = (400, 1_000, 20_000)  # of the smallest sets, of those of a thousand images, and the most
EPOCHS = 10  # at least, of larger sets
MIXED = 2_000  # images from which on they are mixed: fewer have to be seen as they are
LOOKS = 40  # at the validation images, in a run that is not stopped early
RATE, LAYER_DECAY, DROP_PATH = 1e-3, 0.8, 0.1
# In cells. The released code trains Swin with a weight of 0.5, CvT and T2T-ViT with 0.1 (recipes/paper/grid.toml), and
# the paper fine-tunes with what it trains with.
WEIGHTS, WEIGHT = {"swin": 0.5}, 0.1
PAIRS = 64  # an image, as released
PLAIN = Augmentation(
    crop_padding=0, flip=False, mixup=0.0, cutmix=0.0, mix_probability=0.0, erasing=0.0, label_smoothing=0.0
)


@dataclass(frozen=True, kw_only=True)
class Overrides:
    """What somebody asks for in the place of a default; None asks for nothing."""

    drloc: bool = True
    head_only: bool = False
    flip: bool = True
    image_size: int | None = None  # pixels a side
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None


def default_recipe(
    pretrained: Pretrained,
    model: nn.Module,
    *,
    dataset: str,
    images: int,
    multi: bool,
    overrides: Overrides,
    device: torch.device,
) -> tuple[Recipe, str]:
    """The recipe of a fine-tuning run and its TOML text; `model` is what is trained, on the CPU."""
    alone = overrides.head_only
    batch = images if alone else min(images, overrides.batch_size or batch_size(images))
    epochs = 1 if alone else overrides.epochs or _epochs(images, batch)
    heads = 0 if epochs == 1 else math.ceil(epochs / 10)
    drloc = localization(pretrained, model, epochs - heads) if overrides.drloc and not alone else None
    objective = "drloc" if drloc else "baseline"
    recipe = Recipe(
        name=f"{pretrained.name}-{objective}-{dataset}", dataset=dataset, precision=_precision(pretrained, device),
        model=_model(pretrained),
        optimizer=Optimizer(
            batch_size=batch, learning_rate=1.0 if alone else overrides.learning_rate or RATE, weight_decay=0.05,
            betas=(0.9, 0.999), clip_norm=5.0,
        ),
        schedule=_schedule(epochs - heads, 0 if alone else epochs * (images // batch)),
        augmentation=PLAIN if alone else _augmentation(overrides.flip, mixed=images >= MIXED, multi=multi),
        drloc=drloc,
        finetune=Finetune(
            source=pretrained.entry.source or pretrained.entry.name, weights=pretrained.sha256,
            images=images, multi_label=multi,
            head_only=alone, head_epochs=heads, layer_decay=LAYER_DECAY,
            look_epochs=max(1, round(epochs / LOOKS)), patience=LOOKS // 4,
        ),
    )  # fmt: skip
    return complete(recipe)


def complete(recipe: Recipe) -> tuple[Recipe, str]:
    """A recipe as its own TOML text says it, and the text."""
    said = asdict(recipe)
    text = grid.text(said, [key for key, value in said.items() if isinstance(value, dict)])
    return parse_recipe(text, "the recipe of this run"), text


def batch_size(images: int) -> int:
    """Images a step: the power of two nearest to the square root of their number, from 8 to 64."""
    return min(64, max(8, 2 ** round(math.log2(images) / 2)))


def _epochs(images: int, batch: int) -> int:
    """Epochs, of the heads alone and of all: a step for each image, within what STEPS and EPOCHS say."""
    least, small, most = STEPS
    an_epoch = images // batch
    steps = min(most, max(least, min(small, images), EPOCHS * an_epoch))
    return max(2, round(steps / an_epoch))


def _schedule(epochs: int, steps: int) -> Schedule:
    """A short rise, a cosine to the end, and weights averaged over about the last twentieth of the steps."""
    return Schedule(
        epochs=epochs, warmup_epochs=epochs / 20, cosine_epochs=epochs, final_learning_rate=1e-6,
        ema_decay=round(1 - 20 / max(steps, 20), 4),
    )  # fmt: skip


def _augmentation(flip: bool, *, mixed: bool, multi: bool) -> Augmentation:
    """Crops that keep most of an image; what is unknown of several classes can be neither mixed nor smoothed."""
    crop = RandomResizedCrop(scale=(0.5, 1.0), ratio=(3 / 4, 4 / 3))
    every = replace(PLAIN, random_resized_crop=crop, flip=flip, color_jitter=0.2)
    if multi:
        return every
    mixing = {"mixup": 0.2, "mix_probability": 0.5} if mixed else {}
    return replace(every, label_smoothing=0.1, **mixing)


def _model(pretrained: Pretrained) -> Model:
    arguments = {key: value for key, value in pretrained.arguments.items() if key != "img_size"} | {
        "drop_path_rate": DROP_PATH
    }
    crop = pretrained.preprocess.crop
    return Model(
        name=pretrained.name,
        image_size=pretrained.preprocess.size,
        crop_pct=crop if crop < 1 else None,
        arguments=arguments,
    )


def _precision(pretrained: Pretrained, device: torch.device) -> str:
    """The precision of the pretrained recipe; else bfloat16 on a GPU and float32 on a CPU."""
    if pretrained.recipe:
        return pretrained.recipe.precision
    return "bfloat16" if device.type == "cuda" else "float32"


def localization(pretrained: Pretrained, model: nn.Module, epochs: int) -> Drloc | None:
    """The localization of a run of so many epochs: the source's own, else in the last grid that is large enough.

    None where the model has no such grid.
    """
    span = {"warmup_epochs": epochs / 20, "schedule_epochs": float(epochs)}
    if pretrained.recipe and pretrained.recipe.drloc:
        return replace(pretrained.recipe.drloc, **span)
    stage = _last_stage(model, pretrained.preprocess.size)
    if stage is None:
        return None
    weight = next((weight for part, weight in WEIGHTS.items() if part in pretrained.name), WEIGHT)
    return Drloc(weight=weight, pairs=PAIRS, loss="l1", stage=stage, normalize=False, **span)


def _last_stage(model: nn.Module, size: int) -> int | None:
    """The last stage whose grid can be localized in, and whose forward pass gives the model's own logits."""
    cpu = torch.device("cpu")
    try:
        sides = [min(seen.shape[-2:]) for seen in grids_of_black(model, size, cpu)]
        large = [stage for stage, side in enumerate(sides) if side >= SMALLEST_SIDE]
        return large[-1] if large and _same_logits(model, size) else None
    except (
        VtzooError,
        RuntimeError,
        TypeError,
        AttributeError,
        AssertionError,
    ):  # each family says no its own way
        return None


@torch.no_grad()
def _same_logits(model: Any, size: int) -> bool:
    """Whether the features that come with a model's grids give the logits that the model itself gives."""
    noise = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    training = model.training
    model.eval()
    features, _ = models.features_and_grids(model, noise, stages=None)
    logits, again = model(noise), model.forward_head(features)
    model.train(training)
    return logits.shape == again.shape and torch.allclose(logits, again, atol=1e-3, rtol=1e-3)
