"""A model and its localization heads as one module: what ranks share, and what torch.compile compiles."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vtzoo import models
from vtzoo.drloc import DISTRIBUTIONS, SMALLEST_SIDE, DenseRelativeLocalization, check_grid
from vtzoo.errors import VtzooError
from vtzoo.zoo.recipe import Drloc, Recipe

EVERY_STAGE = "every_stage"  # the paper's L^all: l1 in each grid of at least 4x4 cells, a head each


class Joint(nn.Module):
    """The logits of images, and the localization loss of the same forward pass.

    `heads` are the localization heads of the grids `stages`, in that order; a baseline has none.
    """

    def __init__(self, model: nn.Module, heads: nn.ModuleList, stages: list[int]) -> None:
        super().__init__()
        self.model, self.heads, self.stages = model, heads, stages

    def forward(
        self, images: Float[Tensor, "b 3 h w"], points: Float[Tensor, "b m 2 2"] | None
    ) -> tuple[Float[Tensor, "b k"], Float[Tensor, ""]]:
        """Logits, and the sum of the heads' losses on pairs of `points` of the unit square; 0 without heads."""
        model: Any = self.model
        if not self.heads:
            return model(images), torch.zeros((), device=images.device)
        features, grids = models.features_and_grids(model, images, self.stages)
        losses = [
            head(models.localizable(model, grid), points=points) for head, grid in zip(self.heads, grids, strict=True)
        ]
        return model.forward_head(features), torch.stack(losses).sum()


def join(recipe: Recipe, model: nn.Module, device: torch.device) -> Joint:
    """The model with fresh heads for the recipe's loss on the device; their randomness leaves the model's alone."""
    heads, stages = nn.ModuleList(), []
    if recipe.drloc:
        grids = look(model, recipe.model.image_size, device)
        stages = _stages(recipe.drloc, recipe.model.name, grids)
        heads.extend(_head(recipe.drloc, grids[stage]) for stage in stages)
    return Joint(model, heads, stages).to(device)


def look(model: nn.Module, image_size: int, device: torch.device) -> list[Float[Tensor, "1 c h w"]]:
    """The grids to localize in, shallow to deep, of one black image; no batch-norm statistics move."""
    model.eval()
    with torch.no_grad():
        grids = models.grids(model, torch.zeros(1, 3, image_size, image_size, device=device))
    model.train()
    return [models.localizable(model, grid) for grid in grids]


def _stages(drloc: Drloc, name: str, grids: list[Tensor]) -> list[int]:
    """The stages that get a head; one that is not there, or too small, is a VtzooError."""
    if not -len(grids) <= drloc.stage < len(grids):
        raise VtzooError(
            f"{name} has {len(grids)} grids, so there is no stage {drloc.stage}",
            f"drloc.stage goes from 0 to {len(grids) - 1}",
        )
    check_grid(grids[drloc.stage])
    if drloc.loss != EVERY_STAGE:
        return [drloc.stage]
    first = drloc.stage % len(grids)
    return [stage for stage in range(first, len(grids)) if min(grids[stage].shape[-2:]) >= SMALLEST_SIDE]


def _head(drloc: Drloc, grid: Float[Tensor, "1 c h w"]) -> DenseRelativeLocalization:
    loss = "l1" if drloc.loss in (None, EVERY_STAGE) else drloc.loss
    side = max(grid.shape[-2:]) if loss in DISTRIBUTIONS else None
    return DenseRelativeLocalization(grid.shape[1], pairs=drloc.pairs, normalize=drloc.normalize, loss=loss, side=side)
