"""The pretrained model of a fine-tuning run: its weights, its preprocessing and the recipe of its training."""

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
    """A model with its weights, and the facts in its folder."""

    entry: ModelFolder
    config: dict[str, Any]  # its config.json, adapted to another image size if one was chosen
    model: Any  # nn.Module lacks timm's methods
    pretrained_cfg: dict[str, Any]  # complete, with timm's defaults
    preprocess: Preprocess
    recipe: Recipe | None  # None without a recipe.toml, as for timm's own weights
    sha256: str  # of its weights

    @property
    def name(self) -> str:
        """The architecture, by the name in MODELS if it is there and by timm's if not."""
        architecture: str = self.config["architecture"]
        return next((ours for ours, timm in models.MODELS.items() if timm == architecture), architecture)

    @property
    def labels(self) -> tuple[str, ...]:
        """The class names; empty for a model without a head."""
        classes = self.pretrained_cfg["num_classes"]
        if not classes:
            return ()
        own = self.entry.config
        return own.labels if own.named else imagenet_labels(classes) or own.labels

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several of the classes."""
        return bool(self.config.get("multi_label", False))

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of the architecture, without the number of classes and the drop path rate."""
        arguments = self.config.get("model_args") or {}
        return {key: value for key, value in arguments.items() if key not in ("num_classes", "drop_path_rate")}


def open_pretrained(name: str | Path, revision: str | None = None, image_size: int | None = None) -> Pretrained:
    """The verified model of a name, folder or repository; an untrainable model raises a VtzooError.

    `image_size` adapts the model to square images with that many pixels a side. timm resamples the position table of a
    plain vision transformer and the bias of Swin's smaller windows.
    """
    if Path(name).suffix == ".onnx":
        raise VtzooError(f"{name} is a graph, whose weights cannot be trained", "give the model folder it is made of")
    entry = fetch.model_folder(name, revision=revision, use="finetune")
    config, model = (entry.config.content, read_model(entry)) if image_size is None else _at_size(entry, image_size)
    preprocess = Preprocess.from_config(config)
    if preprocess.width is not None:
        _, height, width = preprocess.shape
        message = f"{entry.name} takes images of {height} x {width} pixels, and training makes squares"
        raise VtzooError(message, f"choose a size: --image-size {height}")
    return Pretrained(
        entry=entry, config=config, model=model, pretrained_cfg=complete(config), preprocess=preprocess,
        recipe=_recipe(entry), sha256=files.sha256(entry.folder / "model.safetensors"),
    )  # fmt: skip


def _at_size(entry: ModelFolder, image_size: int) -> tuple[dict[str, Any], nn.Module]:
    """The config.json and the model for another image size, after a forward pass on a black image."""
    try:
        config = models.at_size(entry.config.content, image_size)
        model = read_model(entry, config)
        with torch.no_grad():
            model.eval()(torch.zeros(1, 3, image_size, image_size))
        patch: Any = getattr(getattr(model, "patch_embed", None), "patch_size", 1)
        high, wide = patch if isinstance(patch, tuple) else (patch, patch)
        if image_size % high or image_size % wide:  # timm would drop the pixels of a partial patch
            raise ValueError(f"its patches are {high} x {wide}")
    except Exception as error:  # the error differs between architectures
        reason = str(error).strip().partition("\n")[0]
        message = f"{entry.name} cannot be made for images of {image_size} x {image_size} pixels: {reason}"
        raise VtzooError(message, "choose another --image-size: most take multiples of 32") from error
    return config, model


def _recipe(entry: ModelFolder) -> Recipe | None:
    if not (entry.folder / "recipe.toml").is_file():
        return None
    try:
        return entry.recipe
    except VtzooError as error:  # written by another version or program: fine-tuning needs the weights alone
        log.warning("%s; the model is fine-tuned without its recipe", error.message)
        return None


def with_classes(pretrained: Pretrained, classes: tuple[str, ...], *, drop_path: float, keep: bool) -> nn.Module:
    """The pretrained model with drop path on, where the architecture has it, and a new head unless `keep`."""
    config = pretrained.config
    try:
        model = models.create(config | {"model_args": (config.get("model_args") or {}) | {"drop_path_rate": drop_path}})
    except TypeError:  # an architecture that drops no paths
        model = models.create(config)
    model.load_state_dict(pretrained.model.state_dict())
    if not keep:
        model.reset_classifier(len(classes))  # type: ignore[operator]
    return model
