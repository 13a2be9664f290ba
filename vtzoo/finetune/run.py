"""Fine-tunes a pretrained model on a user's labelled images into a model folder, with the loop of `vtzoo.train`."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vtzoo import models
from vtzoo.base import files
from vtzoo.data.labelled_images import LabelledImages
from vtzoo.evaluate.run import measure
from vtzoo.export.images import VerificationImages
from vtzoo.export.onnx_files import require_traceable
from vtzoo.finetune import linear_probe
from vtzoo.finetune.defaults import complete
from vtzoo.finetune.images import PreparedImages, prepare_images
from vtzoo.finetune.session import Session
from vtzoo.predict.classifier import Classifier
from vtzoo.train import checkpoint
from vtzoo.train.criterion import one_hot
from vtzoo.train.early_stopping import EarlyStopping
from vtzoo.train.loop import Progress, fit, set_up
from vtzoo.train.pipeline.batches import open_batches
from vtzoo.train.run import PICTURES, claim, finish, hardware, versions
from vtzoo.zoo.recipe import Recipe
from vtzoo.zoo.result import Result

Report = Callable[[Progress | int], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Fitted:
    """The outcome of the training; the trained weights are in the session's model."""

    recipe: Recipe
    text: str  # TOML of the recipe
    result: Result  # without the accuracies
    localizer: nn.Module | None = None
    steps_per_epoch: int = 1


def finetune(
    session: Session, out: Path, *, resume: bool = False, skip_bad: bool = False, progress: Report | None = None
) -> Result:
    """The result of a session, which writes a model folder to `out`.

    The accuracies `top1`, `top5` and `map` are measured on the test images, or on the validation images if there are no
    test images; `held_...` are always measured on the validation images. `resume` continues at the last checkpoint; on
    the CPU the result is the same bit for bit as without the interruption. `skip_bad` leaves unreadable images out;
    `progress` is called as in `train`.
    """
    if session.pretrained.name not in models.MODELS:  # every model of MODELS can be traced
        require_traceable(session.network.model, session.config().content)
    claim(out, resume)

    def prepared(images: LabelledImages, split: str, *, pixels: bool = True) -> PreparedImages:
        return prepare_images(
            images, session.pretrained.preprocess, name=f"{images.name}-{split}", skip_bad=skip_bad, pixels=pixels,
            progress=progress,
        )  # fmt: skip

    val = prepared(session.images.val, "val")
    test = prepared(session.images.test, "test", pixels=False).images if session.images.test else None
    if session.tuned.head_only:
        fitted = fit_head(session, prepared(session.images.train, "train"), val, out)
    else:
        fitted = fit_all(session, val, out, skip_bad=skip_bad, progress=progress)
    result = replace(
        fitted.result, name=fitted.recipe.name, dataset=fitted.recipe.dataset, seed=session.seed, processes=1,
        hardware=hardware(session.device), versions=versions(), recipe_sha256=sha256(fitted.text.encode()).hexdigest(),
    )  # fmt: skip
    files.write(out / "recipe.toml", fitted.text.encode())

    def measured(classifier: Classifier) -> dict[str, Any]:
        own = measure(classifier, val.images)
        shown, split = (measure(classifier, test), "test") if test else (own, "validation")
        return shown | {"split": split} | {f"held_{key}": value for key, value in own.items()}

    pictures = VerificationImages(pixels=val.pixels[:PICTURES].numpy(), source="its validation images")
    return finish(
        session.network.model, fitted.localizer, fitted.recipe, session.config(), out=out, result=result,
        steps_per_epoch=fitted.steps_per_epoch, pictures=pictures, measure=measured,
    )  # fmt: skip


def fit_all(session: Session, val: PreparedImages, out: Path, *, skip_bad: bool, progress: Report | None) -> Fitted:
    """Train the whole model; it ends with the weights that are best on the validation images."""
    classes, (mean, std) = len(session.images.classes), session.normalization
    batches, images = open_batches(
        session.recipe, session.images.train, mean=mean, std=std, flip=True, seed=session.seed, device=session.device,
        skip_bad=skip_bad, progress=progress,
    )  # fmt: skip
    run = set_up(session.recipe, session.network, batches, criterion=session.criterion)
    run.early_stopping = EarlyStopping(
        images=val.pixels.to(session.device), mean=mean, std=std, criterion=session.criterion,
        targets=torch.from_numpy(one_hot(val.images.targets, classes)).to(session.device),
        patience=session.tuned.patience,
        tensors={name: tensor.detach().clone() for name, tensor in run.tensors.items()},
    )  # fmt: skip
    stored = out / "checkpoint.safetensors"
    if stored.exists():
        run.step = checkpoint.restore(stored, run=session.identity, **run.parts())
    seconds = fit(run, session.recipe, seed=session.seed, identity=session.identity, folder=out, progress=progress)
    run.model.load_state_dict(run.best)
    result = Result(
        steps=run.step, batch=batches.batch_size, train_seconds=round(seconds), train_images=images.images,
        train_manifest=images.manifest, train_skipped=images.skipped, best_step=run.early_stopping.best_step,
    )  # fmt: skip
    return Fitted(
        recipe=session.recipe, text=session.text, result=result, localizer=run.localizer,
        steps_per_epoch=batches.steps_per_epoch,
    )  # fmt: skip


def fit_head(session: Session, train: PreparedImages, val: PreparedImages, out: Path) -> Fitted:
    """Fit the head alone on fixed features; the returned recipe has the chosen weight decay."""
    began, (mean, std) = time.monotonic(), session.normalization
    linear_probe.check(out, run=session.identity)
    head = linear_probe.linear_head(session.network.model, session.recipe.model.image_size, session.device)
    train_features, val_features = (
        linear_probe.features(
            session.network.model, split.pixels, mean=mean, std=std, device=session.device,
            source=session.pretrained.sha256,
        )
        for split in (train, val)
    )  # fmt: skip
    classes = len(session.images.classes)
    targets, val_targets = (torch.from_numpy(one_hot(split.images.targets, classes)) for split in (train, val))
    fitted = linear_probe.fit(train_features, targets, val_features, val_targets, session.criterion)
    linear_probe.write(fitted, out, run=session.identity)
    head.load_state_dict({"weight": fitted.weight, "bias": fitted.bias})
    images, optimizer = len(train.images), session.recipe.optimizer
    recipe, text = complete(replace(session.recipe, optimizer=replace(optimizer, weight_decay=fitted.decay)))
    result = Result(
        steps=fitted.steps, batch=images, train_seconds=round(time.monotonic() - began), train_images=images,
        train_manifest=train.fingerprint, train_skipped=len(session.images.train) - images,
    )  # fmt: skip
    return Fitted(recipe=recipe, text=text, result=result)
