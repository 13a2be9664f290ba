"""Fine-tuning's first epochs, in which the backbone is held still and fresh heads catch up with it."""

from typing import Any

import torch
from torch import nn

from vtzoo.drloc import weight_at
from vtzoo.train.model_with_drloc import Joint
from vtzoo.zoo.recipe import Drloc, Recipe


def head_epochs(recipe: Recipe) -> int:
    """The epochs before the schedule's in which the heads alone learn: a fresh model has none."""
    return recipe.finetune.head_epochs if recipe.finetune else 0


def localization_weight(drloc: Drloc | None, epoch: float) -> float:
    """The weight at an epoch of the schedule; before the first, where it can do the backbone no harm, all of it."""
    if drloc is None:
        return 0.0
    return drloc.weight if epoch < 0 else weight_at(epoch, drloc.weight, drloc.warmup_epochs, drloc.schedule_epochs)


def hold(optimizer: torch.optim.Optimizer, joint: Joint, epoch: float) -> None:
    """Hold the backbone still before epoch 0 of the schedule, and let it go then.

    There the optimizer forgets what it knew of the heads alone: so every parameter has been moved as often as the
    others, and a checkpoint can do with one count.
    """
    heads = {id(parameter) for module in (*classifiers(joint.model), joint.heads) for parameter in module.parameters()}
    if epoch == 0:
        optimizer.state.clear()
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.requires_grad_(epoch >= 0 or id(parameter) in heads)


def classifiers(model: Any) -> list[nn.Module]:
    """A model's last layers: one, but for a distilled model's two."""
    last = model.get_classifier()
    return list(last) if isinstance(last, tuple | list | nn.ModuleList) else [last]
