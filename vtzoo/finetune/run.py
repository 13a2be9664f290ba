"""A model and people's own images in, a model folder of their classes out: by the loop that trains fresh ones too."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vtzoo import models
from vtzoo.base import files
from vtzoo.data.collection import Labelled
from vtzoo.export.run import Pictures, require_graph
from vtzoo.finetune import linear_probe
from vtzoo.finetune.defaults import complete
from vtzoo.finetune.images import measure, open_images, split_of
from vtzoo.finetune.session import Job
from vtzoo.predict.load import Classifier
from vtzoo.train import checkpoint
from vtzoo.train.criterion import hot
from vtzoo.train.early_stopping import Selection
from vtzoo.train.loop import Progress, fit, set_up
from vtzoo.train.pipeline.batches import open_batches
from vtzoo.train.run import PICTURES, claim, finish, hardware, versions
from vtzoo.zoo.recipe import Recipe

Report = Callable[[Progress | int], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Images:
    """The images of a part that can be read, and their pixels as the model's own transform makes them."""

    labelled: Labelled
    pixels: Tensor  # uint8 (n, 3, height, width)


@dataclass(frozen=True, kw_only=True, eq=False)
class Fitted:
    """What came of the training, beside the weights, which are in the job's model."""

    recipe: Recipe
    text: str  # its TOML
    facts: dict[str, Any]  # for result.json
    localizer: nn.Module | None = None
    steps_per_epoch: int = 1


def finetune(
    job: Job, out: Path, *, resume: bool = False, skip_bad: bool = False, progress: Report | None = None
) -> dict[str, Any]:
    """Do what a job says, and return its result.json; `out` becomes a model folder.

    The accuracy is that of the test images where there are any, else of the validation images, whose own is there as
    `held_...` in any case. With `resume` a run goes on at its last checkpoint, to the result of one that was never
    interrupted; on the CPU, bit for bit. `skip_bad` leaves unreadable images out; `progress` is called as in `train`.
    """
    if job.source.name not in models.MODELS:  # those have a graph
        require_graph(job.joint.model, job.config())
    claim(out, resume)
    collection = job.collection

    def opened(images: Labelled, part: str, *, pixels: bool = True) -> Images:
        labelled, made = open_images(
            images, collection.classes, job.source.preprocess, name=f"{collection.name}-{part}", skip_bad=skip_bad,
            pixels=pixels, progress=progress,
        )  # fmt: skip
        return Images(labelled=labelled, pixels=made)

    held = opened(collection.held, "validation")
    test = opened(collection.test, "test", pixels=False).labelled if collection.test else None
    if job.tuned.head_only:
        fitted = fit_head(job, opened(collection.train, "train"), held, out)
    else:
        fitted = fit_all(job, held, out, skip_bad=skip_bad, progress=progress)
    facts = fitted.facts | {
        "seed": job.seed, "processes": 1, "hardware": hardware(job.device), "versions": versions(),
        "recipe_sha256": sha256(fitted.text.encode()).hexdigest(),
    }  # fmt: skip
    files.write(out / "recipe.toml", fitted.text.encode())

    def measured(classifier: Classifier) -> dict[str, Any]:
        own = measure(classifier, held.labelled, job.criterion)
        shown, split = (measure(classifier, test, job.criterion), "test") if test else (own, "validation")
        return shown | {"split": split} | {f"held_{key}": value for key, value in own.items()}

    pictures = Pictures(pixels=held.pixels[:PICTURES].numpy(), source="its validation images")
    return finish(
        job.joint.model, fitted.localizer, fitted.recipe, job.config(), out=out, facts=facts,
        steps_per_epoch=fitted.steps_per_epoch, pictures=pictures, measure=measured,
    )  # fmt: skip


def fit_all(job: Job, held: Images, out: Path, *, skip_bad: bool, progress: Report | None) -> Fitted:
    """Train the whole model, and leave the best weights by the validation images in it."""
    collection, row = job.collection, job.row
    targets = collection.train.targets if collection.multi else None
    batches, images = open_batches(
        job.recipe, row, split_of(collection.train, collection.classes), seed=job.seed, device=job.device,
        skip_bad=skip_bad, progress=progress, targets=targets,
    )  # fmt: skip
    run = set_up(job.recipe, job.joint, batches, criterion=job.criterion)
    run.selection = Selection(
        images=held.pixels.to(job.device), mean=row.mean, std=row.std, criterion=job.criterion,
        targets=torch.from_numpy(hot(held.labelled.targets, row.classes)).to(job.device), patience=job.tuned.patience,
        tensors={name: tensor.detach().clone() for name, tensor in run.tensors.items()},
    )  # fmt: skip
    stored = out / "checkpoint.safetensors"
    if stored.exists():
        run.step = checkpoint.restore(stored, run=job.identity, **run.parts())
    seconds = fit(run, job.recipe, seed=job.seed, identity=job.identity, folder=out, progress=progress)
    run.model.load_state_dict(run.best)
    facts = {
        "steps": run.step, "batch": batches.batch_size, "train_seconds": round(seconds),
        "train_images": images.images, "train_manifest": collection.train.manifest, "train_skipped": images.skipped,
        "best_step": run.selection.step,
    }  # fmt: skip
    return Fitted(
        recipe=job.recipe, text=job.text, facts=facts, localizer=run.localizer,
        steps_per_epoch=batches.steps_per_epoch,
    )  # fmt: skip


def fit_head(job: Job, train: Images, held: Images, out: Path) -> Fitted:
    """Fit the head alone, on features that are computed once; its recipe says by which weight decay."""
    began, row = time.monotonic(), job.row
    linear_probe.check(out, run=job.identity)
    head = linear_probe.linear_head(job.joint.model, job.recipe.model.image_size, job.device)
    seen = [
        linear_probe.features(
            job.joint.model, part.pixels, mean=row.mean, std=row.std, device=job.device, source=job.source.sha256
        )
        for part in (train, held)
    ]
    targets = [torch.from_numpy(hot(part.labelled.targets, row.classes)) for part in (train, held)]
    found = linear_probe.learn(seen[0], targets[0], seen[1], targets[1], job.criterion)
    linear_probe.keep(found, out, run=job.identity)
    head.load_state_dict({"weight": found.weight, "bias": found.bias})
    images, optimizer = len(train.labelled), job.recipe.optimizer
    recipe, text = complete(replace(job.recipe, optimizer=replace(optimizer, weight_decay=found.decay)))
    facts = {
        "steps": found.steps, "batch": images, "train_seconds": round(time.monotonic() - began), "train_images": images,
        "train_manifest": job.collection.train.manifest, "train_skipped": len(job.collection.train) - images,
    }  # fmt: skip
    return Fitted(recipe=recipe, text=text, facts=facts)
