"""A fine-tuning run that is ready to start: its model, images and recipe, and their description for the user."""

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
    """A model with a head for the classes of the images, and the recipe of its training."""

    pretrained: Pretrained
    images: LabelledImages
    network: ModelWithDrloc  # the model on the device, and its localization heads
    recipe: Recipe
    text: str  # the recipe's TOML
    seed: int
    device: torch.device
    kept: bool  # the head is the pretrained one, because the classes are the same
    reused: bool  # the localization heads are the pretrained ones

    @property
    def tuned(self) -> Finetune:
        """The recipe's table on fine-tuning."""
        assert self.recipe.finetune
        return self.recipe.finetune

    @property
    def criterion(self) -> Criterion:
        """The loss and the metric for the kind of labels."""
        return MULTI_LABEL if self.images.multi_label else SINGLE_LABEL

    @cached_property
    def identity(self) -> str:
        """The recipe's hash, the seed and the hash of the training images, which identify a checkpoint of this run."""
        return f"{sha256(self.text.encode()).hexdigest()}/{self.seed}/{self.images.train.content_hash}"

    @property
    def normalization(self) -> tuple[RGB, RGB]:
        """The mean and standard deviation of pixels, 0..1, of the pretrained model."""
        mean, std = (np.broadcast_to(self.pretrained.pretrained_cfg[name], 3).tolist() for name in ("mean", "std"))
        return tuple(mean), tuple(std)

    def config(self) -> Config:
        """The config of the fine-tuned model: the pretrained one's, with the classes of the images."""
        classes, own = self.images.classes, self.pretrained.pretrained_cfg
        pretrained_cfg = {name: own[name] for name in own if name in models.DESCRIBING and name != "label_descriptions"}
        pretrained_cfg |= {"tag": self.recipe.name, "num_classes": len(classes), "label_names": list(classes)}
        return Config.describe(
            architecture=self.pretrained.config["architecture"], arguments=self.pretrained.arguments,
            features=self.network.model.num_features, labels=classes, pretrained_cfg=pretrained_cfg,
            multi_label=self.images.multi_label,
        )  # fmt: skip

    def sentences(self) -> Iterator[str]:
        """The lines that describe the training to the user before it starts."""
        recipe, size, own = self.recipe, self.recipe.model.image_size, self.pretrained.entry.config.preprocess.size
        resized = "" if size == own else f" (trained at {own} px)"
        parameters = models.parameter_count(self.network.model)
        yield f"model: {self.pretrained.entry.name} at {size} px{resized}, {parameters:,} parameters"
        head = "the model's own, as the classes are the same" if self.kept else "new"
        multi_label = ", any number of them per image" if self.images.multi_label else ""
        yield f"head: {head}, {len(self.images.classes):,} classes{multi_label}"
        if self.tuned.head_only:
            yield "training: the head alone, to convergence, on features that are computed once"
            return
        yield f"localization: {self._localization()}"
        batch, steps = recipe.optimizer.batch_size, recipe.steps
        epochs = self.tuned.head_epochs + recipe.schedule.epochs
        yield (
            f"training: at most {steps:,} steps of {batch} images, {epochs:,} epochs; the first "
            f"{self.tuned.head_epochs * (steps // epochs):,} steps train the heads alone; learning rate "
            f"{recipe.optimizer.learning_rate:.2g}"
        )
        yield f"time: at most {_duration(steps * self._seconds())} on this machine with its current load"

    def _localization(self) -> str:
        drloc = self.recipe.drloc
        if drloc is None:
            return "none"
        head = "the model's own head" if self.reused else "a new head"
        return f"weight {drloc.weight}, {drloc.pairs} pairs per image in the grid of stage {drloc.stage}, {head}"

    def _seconds(self) -> float:
        """The estimated seconds per step: the faster of two forward and backward passes, after a warm-up pass."""
        size, model = self.recipe.model.image_size, self.network.model.eval()  # keeps batch statistics unchanged
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
    """The session that fine-tunes a model (a name, a folder, hf-hub:ORG/NAME) on images; writes nothing.

    The model keeps its head if its classes, in order, are those of the images, and gets a new head if not.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise VtzooError("fine-tuning runs in a single process", "start it without torchrun")
    overrides = overrides or Overrides()
    chosen, pretrained = models.pick_device(device), open_pretrained(model, revision, overrides.image_size)
    torch.manual_seed(key(seed, 0, WEIGHTS))
    kept = pretrained.labels == images.classes and pretrained.multi_label == images.multi_label
    tuned = with_classes(pretrained, images.classes, drop_path=DROP_PATH, keep=kept)
    recipe, text = default_recipe(
        pretrained, tuned, dataset=images.name, images=len(images.train), multi_label=images.multi_label,
        overrides=overrides, device=chosen,
    )  # fmt: skip
    network = add_drloc(recipe, tuned.to(chosen), chosen)
    return Session(
        pretrained=pretrained, images=images, network=network, recipe=recipe, text=text, seed=seed, device=chosen,
        kept=kept, reused=load_heads(network.heads, pretrained.entry),
    )  # fmt: skip


def _duration(seconds: float) -> str:
    """A time in words, rounded up."""
    if seconds < 90:
        return f"{max(1, round(seconds))} seconds"
    return f"{-(-seconds // 60):.0f} minutes" if seconds < 7_200 else f"{seconds / 3_600:.1f} hours"
