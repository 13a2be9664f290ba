"""The distances that a localization head predicts between the tokens of an image, beside the true ones."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from vtzoo import models
from vtzoo.drloc import DISTRIBUTIONS, DenseRelativeLocalization
from vtzoo.models.localizer import read_head
from vtzoo.zoo.model_folder import ModelFolder

TOGETHER = 4096  # pairs through the head at once, so that a large grid needs little memory


@dataclass(frozen=True, kw_only=True, eq=False)
class Localization:
    """The true and the predicted distance of every ordered pair of cells of a grid.

    Distances are in cells, along rows and along columns, and signed if the head was trained on signed offsets.
    """

    places: np.ndarray  # int64 (pairs, 2, 2): first and second cell, row and column
    predicted: np.ndarray  # float32 (pairs, 2)
    true: np.ndarray  # float32 (pairs, 2)
    grid: tuple[int, int]  # rows, columns

    @property
    def error(self) -> float:
        """The mean absolute error over pairs and axes, in cells.

        The error detects foreign images only unreliably. tests/bench/outliers.py measures how well it separates 500
        images of a kind from 500 of CIFAR-100's test split, the embedded model's own: the area under the ROC curve is
        0.958 for noise, 0.92 for handwritten digits, and 0.64 for photographs of flowers (0.5 is chance).
        """
        return float(np.abs(self.predicted - self.true).mean())

    @property
    def constant_error(self) -> float:
        """The mean absolute error of the best constant for each axis, in cells: the best that a blind head can do."""
        return float(np.abs(np.median(self.true, axis=0) - self.true).mean())

    def by_cell(self) -> np.ndarray:
        """The mean error, in cells, over the pairs with each cell, float64 (rows, columns)."""
        errors = np.abs(self.predicted - self.true).mean(axis=1)
        numbers = self.places[..., 0] * self.grid[1] + self.places[..., 1]
        total = np.bincount(numbers.ravel(), np.repeat(errors, 2))
        return (total / np.bincount(numbers.ravel())).reshape(self.grid)

    def as_json(self) -> dict[str, Any]:
        """The two errors, in cells, and the number of pairs."""
        return {"error_cells": self.error, "constant_cells": self.constant_error, "pairs": len(self.places)}


@dataclass(frozen=True, kw_only=True)
class Localizer:
    """A localization head, and the index of the model's grid that it was trained on."""

    head: DenseRelativeLocalization
    stage: int

    @torch.no_grad()
    def localizations(self, model: nn.Module, images: Float[Tensor, "b c h w"]) -> list[Localization]:
        """The true and predicted distances in each image."""
        grid = models.localizable(model, models.features_and_grids(model, images, [self.stage])[1][0])
        height, width = grid.shape[-2:]
        pairs = every_pair(height, width, grid.device)
        chunks = pairs.expand(len(grid), -1, -1, -1).split(TOGETHER, dim=1)
        predicted = torch.cat([self._distances(grid, chunk) for chunk in chunks], dim=1).cpu().numpy()
        offsets, signed = pairs[:, 0] - pairs[:, 1], self.head.loss == "signed" or self.head.loss in DISTRIBUTIONS
        true, places = (offsets if signed else offsets.abs()).cpu().numpy(), pairs.long().cpu().numpy()
        return [Localization(places=places, predicted=item, true=true, grid=(height, width)) for item in predicted]

    def _distances(self, grid: Tensor, places: Float[Tensor, "b m 2 2"]) -> Float[Tensor, "b m 2"]:
        """The head's predictions in cells; of a distribution over offsets, its mean."""
        predicted = self.head.predict(grid, places)
        if self.head.loss in DISTRIBUTIONS:
            values = torch.arange(predicted.shape[-1], device=grid.device) - predicted.shape[-1] // 2
            return (predicted.softmax(dim=-1) * values).sum(dim=-1)
        sides = torch.tensor(grid.shape[-2:] if self.head.normalize else (1, 1), device=grid.device)
        return predicted[..., 0] * sides


def localize(entry: ModelFolder, model: nn.Module, images: Float[Tensor, "1 c h w"]) -> Localization | None:
    """The distances that a model's localization head predicts in an image; None if the model folder has no head."""
    localizer = read_localizer(entry, model, images)
    return localizer and localizer.localizations(model, images)[0]


def read_localizer(entry: ModelFolder, model: nn.Module, images: Float[Tensor, "b c h w"]) -> Localizer | None:
    """The localizer of a model folder, the last of several heads; None without a head; a VtzooError if unfit."""
    found = read_head(entry, model, images)
    return found and Localizer(head=found[0], stage=found[1])


def every_pair(height: int, width: int, device: torch.device) -> Float[Tensor, "m 2 2"]:
    """All ordered pairs of cells, including a cell with itself: (first or second, row or column).

    Training draws uniformly from these pairs, so their mean is the expected value of training's draws.
    """
    cell = torch.cartesian_prod(torch.arange(height), torch.arange(width))
    first, second = cell.repeat_interleave(len(cell), dim=0), cell.repeat(len(cell), 1)
    return torch.stack([first, second], dim=1).float().to(device)
