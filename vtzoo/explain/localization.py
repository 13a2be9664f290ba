"""What a model's localization head answers about the pairs of an image's tokens, beside the truth."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from vtzoo import models
from vtzoo.drloc import DISTRIBUTIONS, SMALLEST_SIDE, DenseRelativeLocalization
from vtzoo.errors import VtzooError
from vtzoo.predict.torch import tensors
from vtzoo.zoo import safetensors_reader
from vtzoo.zoo.model_folder import Entry
from vtzoo.zoo.recipe import Drloc, parse_recipe

FILE = "localizer.safetensors"
TOGETHER = 4096  # pairs through the head at once, so that a large grid needs no memory to speak of
HINT = "the folder holds files of two runs: train it again, or remove localizer.safetensors"


@dataclass(frozen=True, kw_only=True, eq=False)
class Localization:
    """Every ordered pair of the cells of a grid: how far apart they are, and how far apart the head takes them to be.

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
        """That of the best constant for each axis, in cells: what a head that sees nothing can do."""
        return float(np.abs(np.median(self.true, axis=0) - self.true).mean())

    def by_cell(self) -> np.ndarray:
        """The mean error, in cells, of the pairs that a cell has a part in, float64 (rows, columns)."""
        errors = np.abs(self.predicted - self.true).mean(axis=1)
        numbers = self.places[..., 0] * self.grid[1] + self.places[..., 1]
        total = np.bincount(numbers.ravel(), np.repeat(errors, 2))
        return (total / np.bincount(numbers.ravel())).reshape(self.grid)

    def as_json(self) -> dict[str, Any]:
        """The two errors, in cells, and the number of pairs."""
        return {"error_cells": self.error, "constant_cells": self.constant_error, "pairs": len(self.places)}


@dataclass(frozen=True, kw_only=True)
class Localizer:
    """A localization head, and which of the model's grids it was trained in."""

    head: DenseRelativeLocalization
    stage: int

    @torch.no_grad()
    def answers(self, model: nn.Module, images: Float[Tensor, "b c h w"]) -> list[Localization]:
        """What the head says of each image."""
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
        """The head's answers in cells: of a distribution over offsets the mean."""
        answers = self.head.predict(grid, places)
        if self.head.loss in DISTRIBUTIONS:
            values = torch.arange(answers.shape[-1], device=grid.device) - answers.shape[-1] // 2
            return (answers.softmax(dim=-1) * values).sum(dim=-1)
        sides = torch.tensor(grid.shape[-2:] if self.head.normalize else (1, 1), device=grid.device)
        return answers[..., 0] * sides


def localize(entry: Entry, model: nn.Module, images: Float[Tensor, "1 c h w"]) -> Localization | None:
    """What a model's localization head says of an image; None where its folder has none."""
    localizer = read_localizer(entry, model, images)
    return localizer and localizer.answers(model, images)[0]


def read_localizer(entry: Entry, model: nn.Module, images: Float[Tensor, "b c h w"]) -> Localizer | None:
    """The localization head that a model folder keeps, as its recipe describes it; None where there is none.

    Where every stage had one, it is that of the last. One that does not fit the model is a VtzooError.
    """
    path = entry.folder / FILE
    if not path.exists():
        return None
    drloc = parse_recipe(entry.recipe_text, str(entry.folder / "recipe.toml")).drloc
    if drloc is None:
        raise VtzooError(f"{path} is there, and recipe.toml beside it trains without localization", HINT)
    stored = tensors(safetensors_reader.read(path, entry.sha256(FILE)))
    with torch.no_grad():
        grids = [models.localizable(model, grid) for grid in models.grids(model, images[:1])]
    stage = _stage(drloc, grids, stored)
    return Localizer(head=_head(drloc, grids[stage], _last(stored), path).to(images.device), stage=stage)


def _stage(drloc: Drloc, grids: list[Tensor], stored: dict[str, Tensor]) -> int:
    """The index of the grid that the head belongs to."""
    if not -len(grids) <= drloc.stage < len(grids):
        raise VtzooError(f"recipe.toml localizes in stage {drloc.stage}, and the model has {len(grids)} grids", HINT)
    if all(name.startswith("head.") for name in stored):
        return drloc.stage % len(grids)
    return max(stage for stage, grid in enumerate(grids) if min(grid.shape[-2:]) >= SMALLEST_SIDE)


def _last(stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of one head: of several, which have numbers before their names, the last."""
    numbers = [int(first) for first in (name.partition(".")[0] for name in stored) if first.isdecimal()]
    prefix = f"{max(numbers)}." if numbers else ""
    return {name.removeprefix(prefix): tensor for name, tensor in stored.items() if name.startswith(prefix)}


def _head(
    drloc: Drloc, grid: Float[Tensor, "1 c h w"], weights: dict[str, Tensor], path: Path
) -> DenseRelativeLocalization:
    """The head that the recipe describes for that grid, with its weights; a misfit is a VtzooError that names it."""
    loss = "l1" if drloc.loss in (None, "every_stage") else drloc.loss
    side = max(grid.shape[-2:]) if loss in DISTRIBUTIONS else None
    head = DenseRelativeLocalization(grid.shape[1], normalize=drloc.normalize, loss=loss, side=side)
    wanted = {name: tuple(tensor.shape) for name, tensor in head.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    for name in sorted(wanted.keys() | given.keys()):
        if wanted.get(name) != given.get(name):
            said = [f"of shape {shapes[name]}" if name in shapes else "absent" for shapes in (given, wanted)]
            raise VtzooError(f"{path} does not fit the model: its {name} is {said[0]}, and must be {said[1]}", HINT)
    head.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    return head.eval()


def every_pair(height: int, width: int, device: torch.device) -> Float[Tensor, "m 2 2"]:
    """All ordered pairs of cells, also of a cell with itself: (first or second, row or column).

    Training draws from them uniformly, so that their mean is what training's draws come to on average.
    """
    cell = torch.cartesian_prod(torch.arange(height), torch.arange(width))
    first, second = cell.repeat_interleave(len(cell), dim=0), cell.repeat(len(cell), 1)
    return torch.stack([first, second], dim=1).float().to(device)
