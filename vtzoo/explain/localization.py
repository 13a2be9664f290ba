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
    """The true and the predicted distances of every ordered pair of cells of a grid.

    Distances are in cells, of rows and of columns; with a sign where the head was trained on signed offsets.
    """

    places: np.ndarray  # int64 (pairs, 2, 2): first and second cell, row and column
    predicted: np.ndarray  # float32 (pairs, 2)
    true: np.ndarray  # float32 (pairs, 2)
    grid: tuple[int, int]  # rows, columns

    @property
    def error(self) -> float:
        """The mean absolute error over pairs and axes, in cells.

        It is no sure sign of a foreign image. tests/bench/outliers.py asks how well it tells 500 images of a kind from
        500 of CIFAR-100's test split, the embedded model's own, as an area under the ROC curve, where 0.5 is chance:
        0.958 for noise, 0.92 for handwritten digits, and 0.64 for photographs of flowers.
        """
        return float(np.abs(self.predicted - self.true).mean())

    @property
    def constant_error(self) -> float:
        """The mean absolute error of the best constant for each axis, in cells."""
        return float(np.abs(np.median(self.true, axis=0) - self.true).mean())

    def by_cell(self) -> np.ndarray:
        """The mean error, in cells, over all pairs with each cell, float64 (rows, columns)."""
        errors = np.abs(self.predicted - self.true).mean(axis=1)
        numbers = self.places[..., 0] * self.grid[1] + self.places[..., 1]
        total = np.bincount(numbers.ravel(), np.repeat(errors, 2))
        return (total / np.bincount(numbers.ravel())).reshape(self.grid)

    def as_json(self) -> dict[str, Any]:
        """The two errors, in cells, and the number of pairs."""
        return {"error_cells": self.error, "constant_cells": self.constant_error, "pairs": len(self.places)}


@dataclass(frozen=True, kw_only=True)
class Localizer:
    """A localization head, and the stage of the grid that it was trained on."""

    head: DenseRelativeLocalization
    stage: int

    @torch.no_grad()
    def answers(self, model: nn.Module, images: Float[Tensor, "b c h w"]) -> list[Localization]:
        """The head's predictions for each image."""
        grid = models.localizable(model, models.features_and_grids(model, images, [self.stage])[1][0])
        height, width = grid.shape[-2:]
        places = every_pair(height, width, grid.device)
        batch = places.expand(len(grid), -1, -1, -1)
        said = torch.cat([self._distances(grid, some) for some in batch.split(TOGETHER, dim=1)], dim=1).cpu().numpy()
        offsets = places[:, 0] - places[:, 1]
        true = (offsets if self._signed else offsets.abs()).cpu().numpy()
        where = places.long().cpu().numpy()
        return [Localization(places=where, predicted=one, true=true, grid=(height, width)) for one in said]

    @property
    def _signed(self) -> bool:
        return self.head.loss == "signed" or self.head.loss in DISTRIBUTIONS

    def _distances(self, grid: Tensor, places: Float[Tensor, "b m 2 2"]) -> Float[Tensor, "b m 2"]:
        """The head's predictions in cells; of a distribution over offsets, the mean."""
        answers = self.head.predict(grid, places)
        if self.head.loss in DISTRIBUTIONS:
            values = torch.arange(answers.shape[-1], device=grid.device) - answers.shape[-1] // 2
            return (answers.softmax(dim=-1) * values).sum(dim=-1)
        sides = torch.tensor(grid.shape[-2:] if self.head.normalize else (1, 1), device=grid.device)
        return answers[..., 0] * sides


def localize(entry: ModelFolder, model: nn.Module, images: Float[Tensor, "1 c h w"]) -> Localization | None:
    """The predictions of a model's localization head for an image; None without a head in its folder."""
    localizer = read_localizer(entry, model, images)
    return localizer and localizer.answers(model, images)[0]


def read_localizer(entry: ModelFolder, model: nn.Module, images: Float[Tensor, "b c h w"]) -> Localizer | None:
    """The localizer of a model folder, the last of several heads; None without one, a VtzooError if it does not fit."""
    found = read_head(entry, model, images)
    return found and Localizer(head=found[0], stage=found[1])


def every_pair(height: int, width: int, device: torch.device) -> Float[Tensor, "m 2 2"]:
    """All ordered pairs of cells, a cell with itself included: (first or second, row or column).

    Training draws from them uniformly, so that their mean is what training's draws come to on average.
    """
    cell = torch.cartesian_prod(torch.arange(height), torch.arange(width))
    first, second = cell.repeat_interleave(len(cell), dim=0), cell.repeat(len(cell), 1)
    return torch.stack([first, second], dim=1).float().to(device)
