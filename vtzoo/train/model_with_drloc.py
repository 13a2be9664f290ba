"""A model and its localization heads as one module: DistributedDataParallel and torch.compile wrap the pair."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vtzoo import models
from vtzoo.models import localizer
from vtzoo.zoo.recipe import Recipe


class ModelWithDrloc(nn.Module):
    """The logits of images, and the localization loss of the same forward pass.

    `heads` are the localization heads of the grids `stages`, in that order; a baseline has none.
    """

    def __init__(self, model: nn.Module, heads: nn.ModuleList, stages: list[int]) -> None:
        super().__init__()
        self.model, self.heads, self.stages = model, heads, stages

    def forward(
        self, images: Float[Tensor, "b 3 h w"], points: Float[Tensor, "b m 2 2"] | None
    ) -> tuple[Float[Tensor, "b k"], Float[Tensor, ""]]:
        """Logits, and the sum of the heads' losses on pairs of `points` in the unit square; 0 without heads."""
        model: Any = self.model
        if not self.heads:
            return model(images), torch.zeros((), device=images.device)
        features, grids = models.features_and_grids(model, images, self.stages)
        losses = [
            head(models.localizable(model, grid), points=points) for head, grid in zip(self.heads, grids, strict=True)
        ]
        return model.forward_head(features), torch.stack(losses).sum()


def add_drloc(recipe: Recipe, model: nn.Module, device: torch.device) -> ModelWithDrloc:
    """The model on the device with fresh heads for the recipe's loss; a recipe without [drloc] gets no heads."""
    if recipe.drloc is None:
        return ModelWithDrloc(model, nn.ModuleList(), []).to(device)
    grids = localizer.grids_of_black(model, recipe.model.image_size, device)
    return ModelWithDrloc(model, *localizer.build_heads(recipe.drloc, recipe.model.name, grids)).to(device)
