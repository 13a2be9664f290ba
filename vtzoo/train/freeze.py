"""Freezes the backbone for the first epochs of fine-tuning, while new heads train."""

from typing import Any

import torch
from torch import nn

from vtzoo.drloc import weight_at
from vtzoo.train.model_with_drloc import ModelWithDrloc
from vtzoo.zoo.recipe import Drloc, Recipe


def head_epochs(recipe: Recipe) -> int:
    """The epochs before the schedule in which the heads alone train; 0 unless the recipe fine-tunes."""
    return recipe.finetune.head_epochs if recipe.finetune else 0


def localization_weight(drloc: Drloc | None, epoch: float) -> float:
    """The loss weight at an epoch of the schedule; before epoch 0 the full weight, which a frozen backbone ignores."""
    if drloc is None:
        return 0.0
    return drloc.weight if epoch < 0 else weight_at(epoch, drloc.weight, drloc.warmup_epochs, drloc.schedule_epochs)


def freeze_backbone(optimizer: torch.optim.Optimizer, network: ModelWithDrloc, epoch: float) -> None:
    """Freeze all but the heads before epoch 0 of the schedule; unfreeze the backbone from then on.

    At epoch 0 the optimizer drops its state of the heads: every parameter then has the same number of updates, and a
    checkpoint needs a single count.
    """
    modules = (*classifiers(network.model), network.heads)
    heads = {id(parameter) for module in modules for parameter in module.parameters()}
    if epoch == 0:
        optimizer.state.clear()
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.requires_grad_(epoch >= 0 or id(parameter) in heads)


def classifiers(model: Any) -> list[nn.Module]:
    """A model's last layers: a single layer, or the two of a distilled model."""
    last = model.get_classifier()
    return list(last) if isinstance(last, tuple | list | nn.ModuleList) else [last]
