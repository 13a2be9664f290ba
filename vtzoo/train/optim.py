"""The optimizers, AdamW and Muon, the learning-rate schedule, and the weight average (EMA) that is published."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import Tensor, nn

from vtzoo.errors import VtzooError
from vtzoo.train.muon import Muon
from vtzoo.zoo.recipe import Optimizer

FUSED = ("qkv", "kqv")  # names of linear layers that make queries, keys and values at once
RATES = {  # the two learning rates of a Muon recipe: of hidden matrices (True), and of all other parameters
    True: "Muon's, optimizer.learning_rate in the recipe",
    False: "that of AdamW beside Muon, optimizer.adamw_learning_rate in the recipe",
}


def build_optimizer(
    how: Optimizer, model: nn.Module, heads: nn.Module | None, layer_decay: float | None = None
) -> torch.optim.Optimizer:
    """A recipe's optimizer of the model and its localization heads."""
    groups = parameter_groups(model, heads, how.weight_decay, layer_decay)
    if how.name is None:
        return torch.optim.AdamW(groups, lr=how.learning_rate, betas=how.betas, fused=True)
    assert how.momentum is not None
    assert how.iterations is not None
    assert how.adamw_learning_rate is not None
    matrices, scale = hidden_matrices(model), how.adamw_learning_rate / how.learning_rate
    groups = [part for group in groups for part in _split(group, matrices, scale)]
    return Muon(
        groups, learning_rate=how.learning_rate, betas=how.betas, momentum=how.momentum, iterations=how.iterations
    )


def parameter_groups(
    model: nn.Module, heads: nn.Module | None, weight_decay: float, layer_decay: float | None = None
) -> list[dict[str, Any]]:
    """Parameter groups for an optimizer, without weight decay on biases, norms and position tables.

    With a `layer_decay` each group has an `lr_scale`: 1 for the classifier, times `layer_decay` for every layer away
    from it, as in BEiT's fine-tuning (Bao et al. 2022).
    """
    spared = getattr(model, "no_weight_decay", tuple)()  # names, such as those of timm's position tables
    if layer_decay is None:
        groups = param_groups_weight_decay(model, weight_decay, no_weight_decay_list=spared)
    else:
        groups = param_groups_layer_decay(model, weight_decay, no_weight_decay_list=spared, layer_decay=layer_decay)
    if heads is not None:
        groups += param_groups_weight_decay(heads, weight_decay)
    return [group for group in groups if group["params"]]


def hidden_matrices(model: Any) -> dict[nn.Parameter, int]:
    """Muon's parameters, the weights of hidden linear layers and convolutions, each with its number of matrices.

    Patch embeddings (timm's `first_conv`), classifiers and depth-wise kernels are AdamW's. A model without hidden
    matrices is a VtzooError.
    """
    first, last = (_names(model.pretrained_cfg.get(key)) for key in ("first_conv", "classifier"))
    found = {}
    for name, module in model.named_modules():
        hidden = isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)
        if hidden and module.weight.requires_grad and name not in {*first, *last}:
            found[module.weight] = 3 if name.rpartition(".")[2] in FUSED and len(module.weight) % 3 == 0 else 1
    if not found:
        raise VtzooError(
            f"{type(model).__name__} has no hidden matrices for Muon to move",
            "take AdamW: leave name, momentum, iterations and adamw_learning_rate out of [optimizer]",
        )
    return found


def _names(said: str | Iterable[str] | None) -> tuple[str, ...]:
    """Layer names out of a `pretrained_cfg`, whose value is one name, several, or None."""
    return (said,) if isinstance(said, str) else tuple(said or ())


def _split(group: dict[str, Any], matrices: dict[nn.Parameter, int], adamw_scale: float) -> Iterable[dict[str, Any]]:
    """A group's parameters, split by their number of matrices; those without any are AdamW's, with its own rate."""
    for number in (0, 1, 3):
        if chosen := [parameter for parameter in group["params"] if matrices.get(parameter, 0) == number]:
            scale = group.get("lr_scale", 1.0) * (1.0 if number else adamw_scale)
            yield group | {"params": chosen, "lr_scale": scale} | ({"matrices": number} if number else {})


def divergence_hint(optimizer: torch.optim.Optimizer, groups: Iterable[dict[str, Any]] | None = None) -> str:
    """The hint for a run that diverges: which learning rate to lower, and its key in the recipe.

    `groups` are the optimizer's groups whose weights are not finite; None stands for all.
    """
    if isinstance(optimizer, Muon):
        spoiled = {"matrices" in group for group in groups or optimizer.param_groups}
        rates = [rate for of_matrices, rate in RATES.items() if of_matrices in spoiled]
    else:
        rates = ["AdamW's, --learning-rate when fine-tuning, optimizer.learning_rate in a recipe"]
    return f"lower the learning rate ({'; '.join(rates)}), or train in float32; the last checkpoint is intact"


def learning_rate_at(epoch: float, *, peak: float, warmup_epochs: float, cosine_epochs: float, final: float) -> float:
    """The learning rate at an epoch, fractions allowed: a linear rise from 0 to `peak`, then a cosine down to `final`.

    The cosine starts at epoch 0, so the rate drops below `peak` at `warmup_epochs`: timm's scheduler, which the
    released code uses, does so by default.
    """
    if epoch < warmup_epochs:
        return peak * epoch / warmup_epochs
    return final + 0.5 * (peak - final) * (1 + math.cos(math.pi * min(epoch / cosine_epochs, 1.0)))


class WeightAverage:
    """An exponential moving average (EMA) of a model's parameters, and the latest values of its buffers.

    The decay grows with the step, (1 + step) / (10 + step), up to `decay`: the first, random weights soon lose their
    share. The average is updated after every `every` steps, with the decay of so many steps.
    """

    def __init__(self, model: nn.Module, decay: float, every: int = 1) -> None:
        self.decay, self.every = decay, every
        self.tensors = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move the average toward the model's weights, after every `every` steps; `step` counts from 1."""
        if step % self.every:
            return
        decay = min(self.decay, (1 + step) / (10 + step)) ** self.every
        averaged, latest = _parameters(self.tensors.items(), model)
        torch._foreach_lerp_(averaged, latest, 1 - decay)
        current = model.state_dict()
        for name, buffer in model.named_buffers():
            if name in current:
                self.tensors[name].copy_(buffer)


def _parameters(tensors: Iterable[tuple[str, Tensor]], model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """The averaged and the latest parameters, in the same order."""
    latest = dict(model.named_parameters())
    pairs = [(tensor, latest[name].detach()) for name, tensor in tensors if name in latest]
    return [averaged for averaged, _ in pairs], [latest for _, latest in pairs]
