"""Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon): momentum whose every matrix is made orthogonal.

torch and timm have a Muon each. This one differs in two things that we need: fused queries, keys and values are three
matrices, and the products run in float32 where bfloat16 would be the slower one, as on CPUs without matrix units.
"""

import math
from functools import reduce
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

Triple = tuple[float, float, float]
# (a, b, c) of p(x) = a x + b x^3 + c x^5, an iteration each: together the best odd polynomials of their degree for
# singular values from 1e-3 to 1 (Amsel et al. 2025, arXiv 2505.16932; the numbers are NoahAmsel/PolarExpress's).
COEFFICIENTS = (
    (8.237312490495555, -23.157747414558198, 16.680568411445915),
    (4.082441999064835, -2.893047735332586, 0.5252849256975648),
    (3.9263479922546582, -2.8547468034765298, 0.5318022422894988),
    (3.2982187133085143, -2.424541981026706, 0.48632008358844075),
    (2.2970369434552573, -1.63662558125903, 0.4002628455953627),
    (1.8763805351440397, -1.2347896577722228, 0.35891887501668385),
    (1.8564423485617974, -1.2132449880935525, 0.3568003487825883),
)
SAFETY = 1.01  # by which the norm is overestimated, so that rounding leaves no singular value above 1


class Muon(torch.optim.AdamW):
    """Muon on the groups with a number of `matrices`, AdamW on the others.

    `matrices` says how many matrices, one below the other, each parameter of the group is: 3 of fused queries, keys and
    values. A convolution's kernel is a matrix of (out, in * height * width). `momentum` is Nesterov's; `iterations` of
    Newton and Schulz, up to 7, make each matrix orthogonal. Updates are scaled to the size of AdamW's, as Liu et al.
    2025 do (arXiv 2502.16982), so that both take the same weight decay.
    """

    def __init__(
        self, groups: list[dict[str, Any]], *, learning_rate: float, betas: tuple[float, float], momentum: float,
        iterations: int,
    ) -> None:  # fmt: skip
        super().__init__(groups, lr=learning_rate, betas=betas, fused=True)
        self.momentum, self.iterations = momentum, iterations
        self._step_supports_amp_scaling = False  # the scaler of fp16 losses skips whole steps, not AdamW's part of them

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take a step; parameters without a gradient stay as they are."""
        for group in self.param_groups:
            if matrices := group.get("matrices"):
                moving = [parameter for parameter in group["params"] if parameter.grad is not None]
                for alike in _by_shape(moving):
                    self._move(alike, matrices, group["lr"], group["weight_decay"])
        super().step()

    def _move(self, parameters: list[Tensor], matrices: int, rate: float, decay: float) -> None:
        """Move parameters of one shape, whose matrices are made orthogonal at once: a GPU would wait for launches."""
        ahead = torch.cat([self._ahead(parameter).unflatten(0, (matrices, -1)) for parameter in parameters])
        updates = orthogonal(ahead, self.iterations).split(matrices)
        scale = rate * 0.2 * math.sqrt(max(ahead.shape[1:]))
        for parameter, update in zip(parameters, updates, strict=True):
            parameter.mul_(1 - rate * decay).add_(update.reshape(parameter.shape), alpha=-scale)
            parameter.grad = None  # AdamW passes over what has none

    def _ahead(self, parameter: Tensor) -> Float[Tensor, "m n"]:
        """Nesterov's look ahead: the gradient moved toward the momentum, which takes the gradient in first."""
        gradient, state = parameter.grad, self.state[parameter]
        assert gradient is not None
        if not state:
            state["momentum"] = torch.zeros_like(gradient)
        average = state["momentum"].lerp_(gradient, 1 - self.momentum)
        return gradient.lerp(average, self.momentum).flatten(1)


def _by_shape(tensors: list[Tensor]) -> list[list[Tensor]]:
    """The tensors in lists of one shape each."""
    found: dict[torch.Size, list[Tensor]] = {}
    for tensor in tensors:
        found.setdefault(tensor.shape, []).append(tensor)
    return list(found.values())


def orthogonal(matrices: Float[Tensor, "k m n"], iterations: int) -> Float[Tensor, "k m n"]:
    """The nearest matrix with orthonormal rows or columns to each, nearly: Newton-Schulz iterations.

    Zeros stay zeros, and on a CPU take no time: queries and keys that attend to a single token get no gradient. A GPU
    would have to wait to know of them.
    """
    if matrices.device.type == "cpu" and not (alive := matrices.flatten(1).any(dim=1)).all():
        found = torch.zeros_like(matrices)
        found[alive] = orthogonal(matrices[alive], iterations)
        return found
    x = matrices.to(precision(matrices.device))
    if tall := x.shape[1] > x.shape[2]:
        x = x.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) * SAFETY).clamp(min=1e-7)
    coefficients = COEFFICIENTS[:iterations]
    wide = x.shape[2] >= 2 * x.shape[1] and x.dtype == torch.float32  # elsewhere it is no faster, or not exact enough
    x = _by_gram(x, coefficients) if wide else _by_product(x, coefficients)
    return (x.mT if tall else x).to(matrices.dtype)


def _by_product(x: Float[Tensor, "k m n"], coefficients: tuple[Triple, ...]) -> Float[Tensor, "k m n"]:
    """p(x) of each iteration in turn: (a I + b x x' + c (x x')^2) x."""
    for a, b, c in coefficients:
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def _by_gram(x: Float[Tensor, "k m n"], coefficients: tuple[Triple, ...]) -> Float[Tensor, "k m n"]:
    """The same with m x m products alone: every iteration multiplies x by a polynomial of x x', and these commute."""
    gram, factors = x @ x.mT, []
    for a, b, c in coefficients:
        if factors:
            gram = gram @ (factors[-1] @ factors[-1])
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=1, dim2=2).add_(a)
        factors.append(factor)
    return reduce(torch.matmul, factors) @ x


def precision(device: torch.device) -> torch.dtype:
    """The precision in which a device multiplies matrices fastest, well enough for Newton-Schulz iterations."""
    fast = device.type != "cpu" or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if fast else torch.float32
