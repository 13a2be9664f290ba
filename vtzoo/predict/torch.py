"""Classification on torch, with the same weights and preprocessing as on ONNX Runtime."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.data import ImageNetInfo, infer_imagenet_subset
from torch import nn

from vtzoo.data.transform import Preprocess
from vtzoo.errors import VtzooError
from vtzoo.models import create, pick_device
from vtzoo.models.weights import tensors
from vtzoo.predict.classifier import Classifier
from vtzoo.zoo import safetensors_reader
from vtzoo.zoo.config import distinct
from vtzoo.zoo.model_folder import ModelFolder

PICKLES = {".bin", ".ckpt", ".pkl", ".pt", ".pth"}  # suffixes of weights that only torch.load reads


class TorchClassifier(Classifier):
    """A classifier on a timm-style model, in float32."""

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
        self.model: Any = model.float().eval().to(self.device)  # Any: nn.Module lacks timm's methods
        self.mean, self.std = (torch.tensor(values, device=self.device).view(1, -1, 1, 1) for values in (mean, std))

    @classmethod
    def from_folder(cls, entry: ModelFolder, device: str) -> "TorchClassifier":
        """The classifier of a model folder of the zoo's, or of an image classifier of timm's on the Hub.

        The weights are checked against the hash in the folder.
        """
        config = entry.config
        labels = config.labels if config.named else imagenet_labels(len(config.labels)) or config.labels
        preprocess, described = config.preprocess, config.completed
        return cls(read_model(entry), labels, preprocess, described["mean"], described["std"], device)

    def normalized(self, pixels: np.ndarray) -> torch.Tensor:
        """Prepared images, uint8 (n, 3, height, width), normalized to float32 on the model's device."""
        return torch.tensor(pixels, device=self.device).float().div(255).sub(self.mean).div(self.std)

    @torch.inference_mode()
    def run(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logits and pooled features of prepared images."""
        images = self.normalized(pixels)
        try:
            tokens = self.model.forward_features(images)
            logits, features = self.model.forward_head(tokens), self.model.forward_head(tokens, pre_logits=True)
        except Exception as error:  # out of memory, or an architecture's own error for an image size
            raise VtzooError(f"torch could not run the model: {error}") from error
        return logits.float().cpu().numpy(), features.float().cpu().numpy()


def read_model(entry: ModelFolder, config: dict[str, Any] | None = None) -> nn.Module:
    """The model of a folder, which need not classify, with its checked weights; no pickle is read.

    `config` replaces the folder's config.json, for example for another image size.
    """
    _refuse_pickles(entry.folder)
    weights = safetensors_reader.read(entry.folder / "model.safetensors", entry.sha256("model.safetensors"))
    return _load(entry, weights, entry.config.content if config is None else config)


def imagenet_labels(classes: int) -> tuple[str, ...] | None:
    """Class names by timm of the ImageNet variant with that many classes; None if there is no such variant."""
    subset = infer_imagenet_subset({"num_classes": classes})
    if subset is None:
        return None
    known = ImageNetInfo(subset)
    return distinct(list(known.label_descriptions()), known.label_names())


def _refuse_pickles(folder: Path) -> None:
    """A VtzooError if the folder has its weights only as pickles."""
    pickles = sorted(file.name for file in folder.iterdir() if file.suffix in PICKLES)
    if pickles and not (folder / "model.safetensors").exists():
        raise VtzooError(
            f"{folder} has its weights only in {pickles[0]}: a pickle can run any program, so vtzoo does not read it",
            "ask its authors for model.safetensors, or convert the file if you trust them",
        )


def _load(entry: ModelFolder, weights: safetensors_reader.Weights, config: dict[str, Any]) -> nn.Module:
    """The model of a folder with its weights; weights that do not fit are converted by timm's own filter."""
    try:
        model = create(config)
    except Exception as error:  # each architecture has its own errors for wrong arguments
        raise VtzooError(f"{entry.folder / 'config.json'} does not describe a model: {error}") from error
    try:
        load_weights(model, weights)
    except VtzooError as misfit:
        try:
            return create(config, tensors(weights))
        except Exception:  # so has each filter, for weights of another model
            raise misfit from None
    return model


def load_weights(model: nn.Module, weights: safetensors_reader.Weights) -> None:
    """Copy the checked weights into the model. A missing, unknown or misshapen tensor is a VtzooError that names it."""
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    stored = {name: tensor.shape for name, tensor in weights.tensors.items()}
    for name in sorted(expected.keys() | stored.keys()):
        if expected.get(name) != stored.get(name):
            raise VtzooError(f"{weights.path} does not fit its config.json: {_misfit(name, expected, stored)}")
    model.load_state_dict(tensors(weights))


def _misfit(name: str, expected: dict[str, tuple[int, ...]], stored: dict[str, tuple[int, ...]]) -> str:
    if name not in stored:
        return f"{name} is missing"
    if name not in expected:
        return f"the model has no {name}"
    return f"{name} has shape {stored[name]}, not {expected[name]}"
