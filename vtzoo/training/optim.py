"""What moves the weights: AdamW, the learning rate's schedule, and the averaged weights that are published."""

import math
from collections.abc import Iterable

import torch
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import Tensor, nn


def adamw(
    model: nn.Module, heads: nn.Module | None, *, learning_rate: float, weight_decay: float,
    betas: tuple[float, float], layer_decay: float | None = None,
) -> torch.optim.AdamW:  # fmt: skip
    """AdamW over the model and the localization heads, if any; no decay on biases, norms and tables.

    With a `layer_decay` each group of parameters has an `lr_scale`: 1 for the classifier, and that much less for every
    layer further from it, as BEiT's fine-tuning has it (Bao et al. 2022).
    """
    spared = getattr(model, "no_weight_decay", tuple)()  # the names of timm's position tables, among others
    if layer_decay is None:
        groups = param_groups_weight_decay(model, weight_decay, no_weight_decay_list=spared)
    else:
        groups = param_groups_layer_decay(model, weight_decay, no_weight_decay_list=spared, layer_decay=layer_decay)
    if heads is not None:
        groups += param_groups_weight_decay(heads, weight_decay)
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=learning_rate, betas=betas, fused=True)


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

    The decay starts low, (1 + step) / (10 + step), and stops at `decay`, so that the first, random weights are soon
    forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.tensors = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move the average a little toward the model's weights; `step` counts from 1."""
        decay = min(self.decay, (1 + step) / (10 + step))
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
