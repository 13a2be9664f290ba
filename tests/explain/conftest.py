"""Models to explain: a hand-made one, a copy of the embedded model, and small random ones."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vtzoo import models
from vtzoo.zoo import lookup
from vtzoo.zoo.resources import DEFAULT_MODEL


class Squares(nn.Module):
    """Features: two mixtures of the colours, in each 8x8 block of pixels. Logits: of the means of their squares."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.pool = nn.Conv2d(3, 2, 1, bias=False), nn.AvgPool2d(8)
        self.weight = nn.Parameter(torch.tensor([[1.0, 0.5], [-1.0, 2.0], [-1.0, -1.0]]))
        with torch.no_grad():
            self.mix.weight.copy_(torch.tensor([[1.0, -0.5, 0.25], [-0.5, 1.0, 0.5]])[..., None, None])

    def forward_intermediates(self, images: Tensor, **_: Any) -> tuple[Tensor, list[Tensor]]:
        cells = self.pool(self.mix(images))
        return cells, [images, cells.clone()]

    def forward_head(self, cells: Tensor) -> Tensor:
        return cells.square().mean(dim=(2, 3)) @ self.weight.T


@pytest.fixture
def squares() -> nn.Module:
    return Squares().eval()


@pytest.fixture
def embedded(tmp_path: Path) -> Path:
    """A copy of the embedded model without recorded hashes, so tests may change its files."""
    folder = Path(shutil.copytree(lookup.find_model(DEFAULT_MODEL).folder, tmp_path / "embedded"))
    (folder / "result.json").unlink()
    return folder


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """Writes the folder of a small model with random weights."""

    def write(architecture: str, size: int, crop: float = 1.0, **arguments: Any) -> Path:
        pretrained = {
            "input_size": [3, size, size], "interpolation": "bicubic", "crop_pct": crop, "crop_mode": "center",
            "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25],
        }  # fmt: skip
        labels = ["apple", "猫", "$a$ b$", "rocket"]
        config = {
            "architecture": architecture, "num_classes": 4, "model_args": arguments, "label_names": labels,
            "pretrained_cfg": pretrained,
        }  # fmt: skip
        folder = tmp_path / architecture
        folder.mkdir()
        torch.manual_seed(0)
        weights = models.create(config).state_dict()
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        return folder

    return write


@pytest.fixture
def photos() -> SimpleNamespace:
    folder = Path(__file__).parents[1] / "photos"
    return SimpleNamespace(**{file.stem: file for file in folder.glob("*.jpg")})
