"""A fine-tuning run that is ready to start: the model, the images, the recipe, and what people are told of them."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vtzoo import models
from vtzoo.data.collection import Collection
from vtzoo.data.named import Dataset
from vtzoo.errors import VtzooError
from vtzoo.finetune.defaults import DROP_PATH, Wishes, plan
from vtzoo.finetune.pretrained import Source, open_source, reuse_localizer, with_classes
from vtzoo.train.criterion import ONE, SEVERAL, Criterion
from vtzoo.train.model_with_drloc import Joint, join
from vtzoo.train.pipeline.batches import WEIGHTS, key
from vtzoo.zoo.recipe import Finetune, Recipe


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """A model with a head for the classes of a collection, and how it is to be trained."""

    source: Source
    collection: Collection
    joint: Joint  # the model on the device, and its localization heads
    recipe: Recipe
    text: str  # the recipe's TOML
    seed: int
    device: torch.device
    kept: bool  # whether the head is the source's own, of the same classes
    reused: bool  # whether the localization heads are the source's

    @property
    def tuned(self) -> Finetune:
        """The recipe's own part on fine-tuning."""
        assert self.recipe.finetune
        return self.recipe.finetune

    @property
    def criterion(self) -> Criterion:
        """What the classes are taught and measured by."""
        return SEVERAL if self.collection.multi else ONE

    @cached_property
    def identity(self) -> str:
        """What a checkpoint of this run is known by."""
        return f"{sha256(self.text.encode()).hexdigest()}/{self.seed}/{self.collection.train.manifest}"

    @property
    def row(self) -> Dataset:
        """The collection as a data set, whose images are normalized as the source's were."""
        mean, std = (tuple(np.broadcast_to(self.source.described[name], 3).tolist()) for name in ("mean", "std"))
        return Dataset(
            name=self.collection.name, classes=len(self.collection.classes), train=len(self.collection.train),
            test=len(self.collection.test or self.collection.held), hub_id="", licence="", mean=mean, std=std,
        )  # fmt: skip

    def config(self) -> dict[str, Any]:
        """The config.json of the model: the source's, with other classes."""
        described = {name: value for name, value in self.source.described.items() if name in models.DESCRIBING}
        classes, model = self.collection.classes, self.joint.model
        described |= {"tag": self.recipe.name, "num_classes": len(classes), "label_names": list(classes)}
        described.pop("label_descriptions", None)
        return {
            "architecture": self.source.config["architecture"],
            "num_classes": len(classes),
            "num_features": model.num_features,
            "dtype": "float32",
            "model_args": self.source.arguments,
            "label_names": list(classes),
            **({"multi_label": True} if self.collection.multi else {}),
            "pretrained_cfg": described,
        }

    def sentences(self) -> Iterator[str]:
        """What will be done with the images, line by line."""
        recipe, size, own = self.recipe, self.recipe.model.image_size, self.source.entry.preprocess.size
        resized = "" if size == own else f", where it was trained at {own}"
        parameters = models.parameter_count(self.joint.model)
        yield f"model: {self.source.entry.name} at {size} px{resized}, {parameters:,} parameters"
        head = "the model's own, as these are its classes" if self.kept else "fresh"
        several = ", any number of which an image may have" if self.collection.multi else ""
        yield f"head: {head}, {len(self.collection.classes):,} classes{several}"
        if self.tuned.head_only:
            yield "training: the head alone, to convergence, on features that are computed once"
            return
        yield f"localization: {self._localization()}"
        batch, steps = recipe.optimizer.batch_size, recipe.steps
        alone = self.tuned.head_epochs * (steps // self._epochs)
        yield (
            f"training: {steps:,} steps of {batch} images at the most, {self._epochs:,} epochs, the heads alone in the "
            f"first {alone:,} steps, at a learning rate of {recipe.optimizer.learning_rate:.2g}"
        )
        yield f"time: {_duration(steps * self._seconds())} at the most on this machine as it is now"

    @property
    def _epochs(self) -> int:
        return self.tuned.head_epochs + self.recipe.schedule.epochs

    def _localization(self) -> str:
        drloc = self.recipe.drloc
        if drloc is None:
            return "none"
        head = "the model's own head" if self.reused else "a fresh head"
        return f"weight {drloc.weight}, {drloc.pairs} pairs an image in the grid of stage {drloc.stage}, {head}"

    def _seconds(self) -> float:
        """About what a step takes: the faster of two forward and backward passes, after one to warm up."""
        size, model = self.recipe.model.image_size, self.joint.model.eval()  # statistics of batches stay as they are
        images = torch.zeros(self.recipe.optimizer.batch_size, 3, size, size, device=self.device)
        precision, taken = getattr(torch, self.recipe.precision), []
        for _ in range(3):
            began = time.monotonic()
            with torch.autocast(self.device.type, precision, enabled=precision != torch.float32):
                loss = model(images).float().sum()
            loss.backward()
            loss.item()  # waits for a GPU
            taken.append(time.monotonic() - began)
        self.joint.zero_grad()
        self.joint.train()
        return min(taken[1:])


def prepare(
    model: str | Path, collection: Collection, *, revision: str | None = None, wishes: Wishes | None = None,
    seed: int = 0, device: str = "auto",
) -> Job:  # fmt: skip
    """The run that fine-tunes a model (a name, a folder, hf-hub:ORG/NAME) on a collection; nothing is written yet.

    Where the classes are the model's own, in its order, its head goes on; else it gets a fresh one.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise VtzooError("fine-tuning runs in a single process", "start it without torchrun")
    wishes = wishes or Wishes()
    where, source = models.pick_device(device), open_source(model, revision, wishes.image_size)
    torch.manual_seed(key(seed, 0, WEIGHTS))
    kept = source.labels == collection.classes and source.multi == collection.multi
    tuned = with_classes(source, collection.classes, drop_path=DROP_PATH, keep=kept)
    recipe, text = plan(
        source, tuned, dataset=collection.name, images=len(collection.train), multi=collection.multi,
        wishes=wishes, device=where,
    )  # fmt: skip
    joint = join(recipe, tuned.to(where), where)
    return Job(
        source=source, collection=collection, joint=joint, recipe=recipe, text=text, seed=seed, device=where,
        kept=kept, reused=reuse_localizer(source, joint),
    )  # fmt: skip


def _duration(seconds: float) -> str:
    """A time in words, rounded up."""
    if seconds < 90:
        return f"{max(1, round(seconds))} seconds"
    return f"{-(-seconds // 60):.0f} minutes" if seconds < 7_200 else f"{seconds / 3_600:.1f} hours"
