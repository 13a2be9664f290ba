"""The model that fine-tuning goes on from: its weights, how it wants its images, and the recipe it was trained by."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vtzoo import models
from vtzoo.base import files
from vtzoo.data.transform import Preprocess, complete
from vtzoo.errors import VtzooError
from vtzoo.hub import fetch
from vtzoo.predict.torch import imagenet_labels, read_model
from vtzoo.zoo.model_folder import ModelFolder
from vtzoo.zoo.recipe import Recipe

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class Pretrained:
    """A model with its weights, and what its folder says of it."""

    entry: ModelFolder
    config: dict[str, Any]  # its config.json, or that of the same model for images of another size
    model: Any  # timm's methods are no part of nn.Module
    described: dict[str, Any]  # its `pretrained_cfg`, complete
    preprocess: Preprocess
    recipe: Recipe | None  # None where nobody knows how it was trained, as with timm's own weights
    sha256: str  # of its weights

    @property
    def name(self) -> str:
        """Its architecture, by our name where we have one."""
        architecture: str = self.config["architecture"]
        return next((ours for ours, timm in models.MODELS.items() if timm == architecture), architecture)

    @property
    def labels(self) -> tuple[str, ...]:
        """What its classes are called; nothing for a model of features alone."""
        classes = self.described["num_classes"]
        if not classes:
            return ()
        own = self.entry.config
        return own.labels if own.named else imagenet_labels(classes) or own.labels

    @property
    def multi(self) -> bool:
        """Whether an image may have several of its classes."""
        return bool(self.config.get("multi_label", False))

    @property
    def arguments(self) -> dict[str, Any]:
        """What its architecture is built with, but for the image size, the number of classes and path dropping."""
        given = dict(self.config.get("model_args") or {})
        return {key: value for key, value in given.items() if key not in ("num_classes", "drop_path_rate")}


def open_pretrained(name: str | Path, revision: str | None = None, image_size: int | None = None) -> Pretrained:
    """The model of that name, folder or repository, its weights verified; what cannot be trained is a VtzooError.

    With an `image_size` it is made for square images of so many pixels a side, its weights resampled where that takes
    it: the positions of a plain vision transformer, and the bias of Swin's smaller windows.
    """
    if Path(name).suffix == ".onnx":
        raise VtzooError(f"{name} is a graph, whose weights cannot be trained", "give the model folder it is made of")
    entry = fetch.model_folder(name, revision=revision, use="finetune")
    config, model = (entry.config.content, read_model(entry)) if image_size is None else _at_size(entry, image_size)
    preprocess = Preprocess.from_config(config)
    if preprocess.width is not None:
        _, height, width = preprocess.shape
        told = f"{entry.name} takes images of {height} x {width} pixels, and training makes squares"
        raise VtzooError(told, f"say which: --image-size {height}")
    return Pretrained(
        entry=entry, config=config, model=model, described=complete(config), preprocess=preprocess,
        recipe=_recipe(entry), sha256=files.sha256(entry.folder / "model.safetensors"),
    )  # fmt: skip


def _at_size(entry: ModelFolder, image_size: int) -> tuple[dict[str, Any], nn.Module]:
    """A model for images of another size, and its config.json; it has answered one of them."""
    try:
        config = models.at_size(entry.config.content, image_size)
        model = read_model(entry, config)
        with torch.no_grad():
            model.eval()(torch.zeros(1, 3, image_size, image_size))
        patch: Any = getattr(getattr(model, "patch_embed", None), "patch_size", 1)
        high, wide = patch if isinstance(patch, tuple) else (patch, patch)
        if image_size % high or image_size % wide:  # timm would leave out what is over
            raise ValueError(f"its patches are {high} x {wide}")
    except Exception as error:  # each architecture says no in its own way
        reason = str(error).strip().partition("\n")[0]
        told = f"{entry.name} cannot be made for images of {image_size} x {image_size} pixels: {reason}"
        raise VtzooError(told, "choose another --image-size: most take multiples of 32") from error
    return config, model


def _recipe(entry: ModelFolder) -> Recipe | None:
    if not (entry.folder / "recipe.toml").is_file():
        return None
    try:
        return entry.recipe
    except VtzooError as error:  # of another version, or another program's: the weights are what counts
        log.warning("%s; the model is fine-tuned without what its recipe says", error.message)
        return None


def with_classes(pretrained: Pretrained, classes: tuple[str, ...], *, drop_path: float, keep: bool) -> nn.Module:
    """The source's model with its weights, path dropping on where it has any, and a fresh head unless it is kept."""
    config = pretrained.config
    try:
        model = models.create(config | {"model_args": (config.get("model_args") or {}) | {"drop_path_rate": drop_path}})
    except TypeError:  # an architecture that drops no paths
        model = models.create(config)
    model.load_state_dict(pretrained.model.state_dict())
    if not keep:
        model.reset_classifier(len(classes))  # type: ignore[operator]
    return model
