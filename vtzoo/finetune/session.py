"""A fine-tuning run that is ready to start: the model, the images, the recipe, and what people are told of them."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch

from vtzoo import models
from vtzoo.data.labelled_images import LabelledImages
from vtzoo.data.named import RGB
from vtzoo.errors import VtzooError
from vtzoo.finetune.defaults import DROP_PATH, Overrides, default_recipe
from vtzoo.finetune.pretrained import Pretrained, open_pretrained, with_classes
from vtzoo.models.localizer import load_heads
from vtzoo.train.criterion import MULTI_LABEL, SINGLE_LABEL, Criterion
from vtzoo.train.model_with_drloc import ModelWithDrloc, add_drloc
from vtzoo.train.pipeline.batches import WEIGHTS, key
from vtzoo.zoo.config import Config
from vtzoo.zoo.recipe import Finetune, Recipe


@dataclass(frozen=True, kw_only=True, eq=False)
class Session:
    """A model with a head for the classes of the images, and how it is to be trained."""

    pretrained: Pretrained
    images: LabelledImages
    network: ModelWithDrloc  # the model on the device, and its localization heads
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
        return MULTI_LABEL if self.images.multi_label else SINGLE_LABEL

    @cached_property
    def identity(self) -> str:
        """What a checkpoint of this run is known by."""
        return f"{sha256(self.text.encode()).hexdigest()}/{self.seed}/{self.images.train.content_hash}"

    @property
    def normalization(self) -> tuple[RGB, RGB]:
        """The mean and standard deviation of pixels, 0..1, that the pretrained model takes."""
        mean, std = (np.broadcast_to(self.pretrained.described[name], 3).tolist() for name in ("mean", "std"))
        return tuple(mean), tuple(std)

    def config(self) -> Config:
        """The config of the model: the source's, with other classes."""
        described = {name: value for name, value in self.pretrained.described.items() if name in models.DESCRIBING}
        classes, model = self.images.classes, self.network.model
        described |= {"tag": self.recipe.name, "num_classes": len(classes), "label_names": list(classes)}
        described.pop("label_descriptions", None)
        return Config.describe(
            architecture=self.pretrained.config["architecture"], arguments=self.pretrained.arguments,
            features=model.num_features, labels=classes, pretrained_cfg=described,
            multi_label=self.images.multi_label,
        )  # fmt: skip

    def sentences(self) -> Iterator[str]:
        """What will be done with the images, line by line."""
        recipe, size, own = self.recipe, self.recipe.model.image_size, self.pretrained.entry.config.preprocess.size
        resized = "" if size == own else f", where it was trained at {own}"
        parameters = models.parameter_count(self.network.model)
        yield f"model: {self.pretrained.entry.name} at {size} px{resized}, {parameters:,} parameters"
        head = "the model's own, as these are its classes" if self.kept else "fresh"
        several = ", any number of which an image may have" if self.images.multi_label else ""
        yield f"head: {head}, {len(self.images.classes):,} classes{several}"
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
        size, model = self.recipe.model.image_size, self.network.model.eval()  # statistics of batches stay as they are
        images = torch.zeros(self.recipe.optimizer.batch_size, 3, size, size, device=self.device)
        precision, taken = getattr(torch, self.recipe.precision), []
        for _ in range(3):
            began = time.monotonic()
            with torch.autocast(self.device.type, precision, enabled=precision != torch.float32):
                loss = model(images).float().sum()
            loss.backward()
            loss.item()  # waits for a GPU
            taken.append(time.monotonic() - began)
        self.network.zero_grad()
        self.network.train()
        return min(taken[1:])


def prepare(
    model: str | Path, images: LabelledImages, *, revision: str | None = None, overrides: Overrides | None = None,
    seed: int = 0, device: str = "auto",
) -> Session:  # fmt: skip
    """The run that fine-tunes a model (a name, a folder, hf-hub:ORG/NAME) on images; nothing is written yet.

    Where the classes are the model's own, in its order, its head goes on; else it gets a fresh one.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise VtzooError("fine-tuning runs in a single process", "start it without torchrun")
    overrides = overrides or Overrides()
    where, pretrained = models.pick_device(device), open_pretrained(model, revision, overrides.image_size)
    torch.manual_seed(key(seed, 0, WEIGHTS))
    kept = pretrained.labels == images.classes and pretrained.multi == images.multi_label
    tuned = with_classes(pretrained, images.classes, drop_path=DROP_PATH, keep=kept)
    recipe, text = default_recipe(
        pretrained, tuned, dataset=images.name, images=len(images.train), multi=images.multi_label,
        overrides=overrides, device=where,
    )  # fmt: skip
    network = add_drloc(recipe, tuned.to(where), where)
    return Session(
        pretrained=pretrained, images=images, network=network, recipe=recipe, text=text, seed=seed, device=where,
        kept=kept, reused=load_heads(network.heads, pretrained.entry),
    )  # fmt: skip


def _duration(seconds: float) -> str:
    """A time in words, rounded up."""
    if seconds < 90:
        return f"{max(1, round(seconds))} seconds"
    return f"{-(-seconds // 60):.0f} minutes" if seconds < 7_200 else f"{seconds / 3_600:.1f} hours"
