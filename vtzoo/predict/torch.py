"""Classification on torch: the same weights, images and numbers as on ONNX Runtime."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.data import ImageNetInfo, infer_imagenet_subset
from torch import nn

from vtzoo.data.transform import Preprocess, complete
from vtzoo.errors import VtzooError
from vtzoo.models import create, pick_device
from vtzoo.predict.classifier import Classifier
from vtzoo.zoo import safetensors_reader
from vtzoo.zoo.model_folder import Entry, distinct

PICKLES = {".bin", ".ckpt", ".pkl", ".pt", ".pth"}  # what files of weights are named that torch.load reads


class TorchClassifier(Classifier):
    """A classifier out of a timm-style model, in float32."""

    def __init__(
        self,
        model: nn.Module,
        labels: tuple[str, ...],
        preprocess: Preprocess,
        mean: Sequence[float],
        std: Sequence[float],
        device: str = "cpu",
    ) -> None:
        self.labels, self.preprocess = labels, preprocess
        self.device = pick_device(device)
        self.model: Any = model.float().eval().to(self.device)  # Any: timm's methods are no part of nn.Module
        self.mean, self.std = (torch.tensor(values, device=self.device).view(1, -1, 1, 1) for values in (mean, std))

    @classmethod
    def from_folder(cls, entry: Entry, device: str) -> "TorchClassifier":
        """The classifier of a model folder: one of the zoo's, or an image classifier of timm's on the Hub.

        The weights are checked against what the folder says of them.
        """
        labels = entry.labels if entry.named else imagenet_labels(len(entry.labels)) or entry.labels
        preprocess, described = entry.preprocess, complete(entry.config)
        return cls(read_model(entry), labels, preprocess, described["mean"], described["std"], device)

    def normalized(self, pixels: np.ndarray) -> torch.Tensor:
        """Prepared images, uint8 (n, 3, height, width), as the model takes them, on its device."""
        return torch.tensor(pixels, device=self.device).float().div(255).sub(self.mean).div(self.std)

    @torch.inference_mode()
    def run(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logits and pooled features of prepared images."""
        images = self.normalized(pixels)
        try:
            tokens = self.model.forward_features(images)
            logits, features = self.model.forward_head(tokens), self.model.forward_head(tokens, pre_logits=True)
        except Exception as error:  # no memory; or whatever an architecture raises at images of a size it cannot take
            raise VtzooError(f"torch could not run the model: {error}") from error
        return logits.float().cpu().numpy(), features.float().cpu().numpy()


def read_model(entry: Entry, config: dict[str, Any] | None = None) -> nn.Module:
    """The model of a folder, which need not classify, with its weights: checked, and out of no pickle.

    `config` takes the place of the folder's config.json, as for images of another size.
    """
    _refuse_pickles(entry.folder)
    weights = safetensors_reader.read(entry.folder / "model.safetensors", entry.sha256("model.safetensors"))
    return _load(entry, weights, entry.config if config is None else config)


def imagenet_labels(classes: int) -> tuple[str, ...] | None:
    """What timm calls the classes of an ImageNet, which it knows by their number; None where it is none of them."""
    subset = infer_imagenet_subset({"num_classes": classes})
    if subset is None:
        return None
    known = ImageNetInfo(subset)
    return distinct(list(known.label_descriptions()), known.label_names())


def _refuse_pickles(folder: Path) -> None:
    """A VtzooError where the weights are there in no form that is safe to read."""
    pickles = sorted(file.name for file in folder.iterdir() if file.suffix in PICKLES)
    if pickles and not (folder / "model.safetensors").exists():
        raise VtzooError(
            f"{folder} has its weights in {pickles[0]} alone, a pickle: it could run any program, and is not read",
            "ask its authors for model.safetensors, or convert it where you trust them",
        )


def _load(entry: Entry, weights: safetensors_reader.Weights, config: dict[str, Any]) -> nn.Module:
    """The model of a folder with its weights; those that do not fit as they are go through timm's own filter."""
    try:
        model = create(config)
    except Exception as error:  # architectures raise whatever they like at arguments that make no model
        raise VtzooError(f"{entry.folder / 'config.json'} does not describe a model: {error}") from error
    try:
        fill(model, weights)
    except VtzooError as misfit:
        try:
            return create(config, tensors(weights))
        except Exception:  # so do filters, at weights that are none of theirs
            raise misfit from None
    return model


def fill(model: nn.Module, weights: safetensors_reader.Weights) -> None:
    """Put the checked weights into the model, all of them and nothing else; a misfit is a VtzooError that names it."""
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    stored = {name: tensor.shape for name, tensor in weights.tensors.items()}
    for name in sorted(expected.keys() | stored.keys()):
        if expected.get(name) != stored.get(name):
            raise VtzooError(f"{weights.path} does not fit its config.json: {_misfit(name, expected, stored)}")
    model.load_state_dict(tensors(weights))


def tensors(weights: safetensors_reader.Weights) -> dict[str, torch.Tensor]:
    """The weights by name, copied, because the file's bytes are read-only and torch warns of such arrays."""
    return {name: torch.from_numpy(weights.array(name).copy()) for name in weights.tensors}


def _misfit(name: str, expected: dict[str, tuple[int, ...]], stored: dict[str, tuple[int, ...]]) -> str:
    if name not in stored:
        return f"{name} is missing"
    if name not in expected:
        return f"the model has no {name}"
    return f"{name} has shape {stored[name]}, and the model's has {expected[name]}"
