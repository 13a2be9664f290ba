"""Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon): SGD with momentum whose update matrices are orthogonal.

torch and timm have Muon too. Ours differs in two ways: fused queries, keys and values are three matrices, and products
run in float32 on devices where bfloat16 is slower, such as CPUs without matrix units.
"""

import math
from functools import reduce
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

Triple = tuple[float, float, float]
# (a, b, c) of p(x) = a x + b x^3 + c x^5 for each iteration: the composition is optimal for singular values from 1e-3
# to 1 (Amsel et al. 2025, arXiv 2505.16932; the numbers are those of NoahAmsel/PolarExpress).
COEFFICIENTS = (
    (8.237312490495555, -23.157747414558198, 16.680568411445915),
    (4.082441999064835, -2.893047735332586, 0.5252849256975648),
    (3.9263479922546582, -2.8547468034765298, 0.5318022422894988),
    (3.2982187133085143, -2.424541981026706, 0.48632008358844075),
    (2.2970369434552573, -1.63662558125903, 0.4002628455953627),
    (1.8763805351440397, -1.2347896577722228, 0.35891887501668385),
    (1.8564423485617974, -1.2132449880935525, 0.3568003487825883),
)
SAFETY = 1.01  # factor on the norm, so that rounding leaves no singular value above 1


class Muon(torch.optim.AdamW):
    """Muon on the groups with a key `matrices`, AdamW on the others.

    `matrices` is the number of matrices stacked in each parameter of the group: 3 in fused queries, keys and values. A
    convolution's kernel is a matrix (out, in * height * width). `momentum` is Nesterov's. Up to 7 Newton-Schulz
    `iterations` make each matrix orthogonal. Updates are scaled to the size of AdamW's (Liu et al. 2025, arXiv
    2502.16982), so both use the same weight decay.
    """

    def __init__(
        self, groups: list[dict[str, Any]], *, learning_rate: float, betas: tuple[float, float], momentum: float,
        iterations: int,
    ) -> None:  # fmt: skip
        super().__init__(groups, lr=learning_rate, betas=betas, fused=True)
        self.momentum, self.iterations = momentum, iterations
        self._step_supports_amp_scaling = False  # the scaler of fp16 losses skips whole steps, not only AdamW's part

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take a step; parameters without a gradient do not change."""
        for group in self.param_groups:
            if matrices := group.get("matrices"):
                moving = [parameter for parameter in group["params"] if parameter.grad is not None]
                for alike in _by_shape(moving):
                    self._move(alike, matrices, group["lr"], group["weight_decay"])
        super().step()

    def _move(self, parameters: list[Tensor], matrices: int, rate: float, decay: float) -> None:
        """Update parameters of equal shape, all matrices in one batch, which saves kernel launches on a GPU."""
        ahead = torch.cat([self._ahead(parameter).unflatten(0, (matrices, -1)) for parameter in parameters])
        updates = orthogonal(ahead, self.iterations).split(matrices)
        scale = rate * 0.2 * math.sqrt(max(ahead.shape[1:]))
        for parameter, update in zip(parameters, updates, strict=True):
            parameter.mul_(1 - rate * decay).add_(update.reshape(parameter.shape), alpha=-scale)
            parameter.grad = None  # so AdamW skips it

    def _ahead(self, parameter: Tensor) -> Float[Tensor, "m n"]:
        """Nesterov's momentum: the gradient, interpolated toward the momentum after its update."""
        gradient, state = parameter.grad, self.state[parameter]
        assert gradient is not None
        if not state:
            state["momentum"] = torch.zeros_like(gradient)
        average = state["momentum"].lerp_(gradient, 1 - self.momentum)
        return gradient.lerp(average, self.momentum).flatten(1)


def _by_shape(tensors: list[Tensor]) -> list[list[Tensor]]:
    """The tensors in lists of equal shape."""
    found: dict[torch.Size, list[Tensor]] = {}
    for tensor in tensors:
        found.setdefault(tensor.shape, []).append(tensor)
    return list(found.values())


def orthogonal(matrices: Float[Tensor, "k m n"], iterations: int) -> Float[Tensor, "k m n"]:
    """Each matrix's nearest matrix with orthonormal rows or columns, approximated by Newton-Schulz iterations.

    Zero matrices stay zero; on a CPU they are skipped. They occur for queries and keys that attend to a single token,
    and have no gradient. On a GPU the check would force a synchronization.
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
    wide = x.shape[2] >= 2 * x.shape[1] and x.dtype == torch.float32  # otherwise no faster, or not exact enough
    x = _by_gram(x, coefficients) if wide else _by_product(x, coefficients)
    return (x.mT if tall else x).to(matrices.dtype)


def _by_product(x: Float[Tensor, "k m n"], coefficients: tuple[Triple, ...]) -> Float[Tensor, "k m n"]:
    """The iterations p(x) = (a I + b x x' + c (x x')^2) x, one after another."""
    for a, b, c in coefficients:
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def _by_gram(x: Float[Tensor, "k m n"], coefficients: tuple[Triple, ...]) -> Float[Tensor, "k m n"]:
    """The same iterations in m x m products: each multiplies x by a polynomial of x x', and the polynomials commute."""
    gram, factors = x @ x.mT, []
    for a, b, c in coefficients:
        if factors:
            gram = gram @ (factors[-1] @ factors[-1])
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=1, dim2=2).add_(a)
        factors.append(factor)
    return reduce(torch.matmul, factors) @ x


def precision(device: torch.device) -> torch.dtype:
    """The type in which a device multiplies matrices fastest; both types are exact enough for Newton-Schulz."""
    fast = device.type != "cpu" or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if fast else torch.float32
