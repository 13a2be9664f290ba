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

FUSED = ("qkv", "kqv")  # what a linear layer is called that makes queries, keys and values at once
RATES = {  # the key of each learning rate of a Muon recipe, by whether it is that of hidden matrices
    True: "Muon's, optimizer.learning_rate in the recipe",
    False: "that of AdamW beside Muon, optimizer.adamw_learning_rate in the recipe",
}


def build_optimizer(
    how: Optimizer, model: nn.Module, heads: nn.Module | None, layer_decay: float | None = None
) -> torch.optim.Optimizer:
    """A recipe's optimizer over the model and the localization heads, if any."""
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
    """Groups of parameters for an optimizer: no decay on biases, norms and tables.

    With a `layer_decay` each group has an `lr_scale`: 1 for the classifier, and that much less for every layer further
    from it, as BEiT's fine-tuning has it (Bao et al. 2022).
    """
    spared = getattr(model, "no_weight_decay", tuple)()  # the names of timm's position tables, among others
    if layer_decay is None:
        groups = param_groups_weight_decay(model, weight_decay, no_weight_decay_list=spared)
    else:
        groups = param_groups_layer_decay(model, weight_decay, no_weight_decay_list=spared, layer_decay=layer_decay)
    if heads is not None:
        groups += param_groups_weight_decay(heads, weight_decay)
    return [group for group in groups if group["params"]]


def hidden_matrices(model: Any) -> dict[nn.Parameter, int]:
    """The weights that Muon moves, and how many matrices each is: linear layers and convolutions within the model.

    The patches (timm's `first_conv`), the classifiers and depth-wise kernels are AdamW's. A model without hidden
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
    """The names of layers in a `pretrained_cfg`, which says one, several or none."""
    return (said,) if isinstance(said, str) else tuple(said or ())


def _split(group: dict[str, Any], matrices: dict[nn.Parameter, int], adamw_scale: float) -> Iterable[dict[str, Any]]:
    """A group's parameters by the number of matrices each is; those that are none are AdamW's, at a rate of its own."""
    for number in (0, 1, 3):
        if chosen := [parameter for parameter in group["params"] if matrices.get(parameter, 0) == number]:
            scale = group.get("lr_scale", 1.0) * (1.0 if number else adamw_scale)
            yield group | {"params": chosen, "lr_scale": scale} | ({"matrices": number} if number else {})


def slower(optimizer: torch.optim.Optimizer, groups: Iterable[dict[str, Any]] | None = None) -> str:
    """The hint for a run that diverges: which optimizer's learning rate to lower, by which key of its recipe.

    `groups` are those of the optimizer whose weights are not finite, None where any may be to blame.
    """
    if isinstance(optimizer, Muon):
        spoiled = {"matrices" in group for group in groups or optimizer.param_groups}
        rates = [rate for of_matrices, rate in RATES.items() if of_matrices in spoiled]
    else:
        rates = ["AdamW's, --learning-rate when fine-tuning, optimizer.learning_rate in a recipe"]
    return f"lower the learning rate ({'; '.join(rates)}), or train in float32; the last checkpoint is intact"


def learning_rate_at(epoch: float, *, peak: float, warmup_epochs: float, cosine_epochs: float, final: float) -> float:
    """The learning rate at an epoch, fractions allowed: a linear rise from 0 to `peak`, then a cosine down to `final`.

    The cosine runs from epoch 0 and is joined at `warmup_epochs`, as timm's scheduler does by default, which the
    released code uses.
    """
    if epoch < warmup_epochs:
        return peak * epoch / warmup_epochs
    return final + 0.5 * (peak - final) * (1 + math.cos(math.pi * min(epoch / cosine_epochs, 1.0)))


class Average:
    """An exponential moving average of a model's parameters, with its buffers as they are.

    The decay of a step starts low, (1 + step) / (10 + step), and stops at `decay`, so that the first, random weights
    are soon forgotten. Every `every` steps the average moves, as far as it would have in so many steps.
    """

    def __init__(self, model: nn.Module, decay: float, every: int = 1) -> None:
        self.decay, self.every = decay, every
        self.tensors = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move the average a little toward the model's weights, where it is time; `step` counts from 1."""
        if step % self.every:
            return
        decay = min(self.decay, (1 + step) / (10 + step)) ** self.every
        averaged, latest = _floats(self.tensors.items(), model)
        torch._foreach_lerp_(averaged, latest, 1 - decay)
        current = model.state_dict()
        for name, buffer in model.named_buffers():
            if name in current:
                self.tensors[name].copy_(buffer)


def _floats(tensors: Iterable[tuple[str, Tensor]], model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """The averaged and the latest parameters, in one order."""
    latest = dict(model.named_parameters())
    pairs = [(tensor, latest[name].detach()) for name, tensor in tensors if name in latest]
    return [one for one, _ in pairs], [other for _, other in pairs]
