"""Classification on torch: the same weights, images and numbers as on ONNX Runtime."""

from typing import Any

import numpy as np
import torch
from torch import nn

from vtzoo import checked
from vtzoo.errors import VtzooError
from vtzoo.models import create, pick_device
from vtzoo.preprocess import Preprocess
from vtzoo.zoo import Entry

from .classifier import Classifier


class TorchClassifier(Classifier):
    """A classifier out of a timm-style model, in float32."""

    def __init__(
        self,
        model: nn.Module,
        labels: tuple[str, ...],
        preprocess: Preprocess,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        device: str = "cpu",
    ) -> None:
        self.labels, self.preprocess = labels, preprocess
        self.device = pick_device(device)
        self.model: Any = model.float().eval().to(self.device)  # Any: timm's methods are no part of nn.Module
        self.mean, self.std = (torch.tensor(values, device=self.device).view(1, 3, 1, 1) for values in (mean, std))

    @classmethod
    def from_folder(cls, entry: Entry, device: str) -> "TorchClassifier":
        """The classifier of a model folder, its weights checked against its result.json."""
        labels, preprocess = entry.labels, entry.preprocess
        path = entry.folder / "model.safetensors"
        weights = checked.read(path, entry.sha256("model.safetensors"))
        try:
            statistics = entry.config["pretrained_cfg"]["mean"], entry.config["pretrained_cfg"]["std"]
            model = create(entry.config)
        except Exception as error:  # architectures raise whatever they like at arguments that make no model
            raise VtzooError(f"{entry.folder / 'config.json'} does not describe a model: {error}") from error
        fill(model, weights)
        return cls(model, labels, preprocess, *statistics, device)

    @torch.inference_mode()
    def run(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logits and pooled features of prepared images."""
        images = torch.tensor(pixels, device=self.device).float().div(255).sub(self.mean).div(self.std)
        tokens = self.model.forward_features(images)
        logits, features = self.model.forward_head(tokens), self.model.forward_head(tokens, pre_logits=True)
        return logits.float().cpu().numpy(), features.float().cpu().numpy()


def fill(model: nn.Module, weights: checked.Weights) -> None:
    """Put the checked weights into the model, all of them and nothing else; a misfit is a VtzooError that names it."""
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    stored = {name: tensor.shape for name, tensor in weights.tensors.items()}
    for name in sorted(expected.keys() | stored.keys()):
        if expected.get(name) != stored.get(name):
            raise VtzooError(f"{weights.path} does not fit its config.json: {_misfit(name, expected, stored)}")
    # Copied, because the file's bytes are read-only and torch warns of such arrays.
    model.load_state_dict({name: torch.from_numpy(weights.array(name).copy()) for name in stored})


def _misfit(name: str, expected: dict[str, tuple[int, ...]], stored: dict[str, tuple[int, ...]]) -> str:
    if name not in stored:
        return f"{name} is missing"
    if name not in expected:
        return f"the model has no {name}"
    return f"{name} has shape {stored[name]}, and the model's has {expected[name]}"
