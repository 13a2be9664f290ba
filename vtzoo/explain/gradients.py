"""Grad-CAM: the evidence for a class in each cell of a token grid.

Source: Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", ICCV 2017
(arXiv 1610.02391).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from vtzoo import models
from vtzoo.drloc import SMALLEST_SIDE
from vtzoo.errors import VtzooError


def grad_cam(model: nn.Module, images: Float[Tensor, "1 c h w"], classes: list[int]) -> list[np.ndarray]:
    """The map of each class, float32 (rows, columns) from 0 to 1; all 0 if no cell is evidence for the class.

    The map is of the last grid of at least 4x4 cells that the logit's gradient reaches. If a class token is pooled, the
    last block has no downstream attention, and no gradient reaches its cells. Then the map is of the last earlier
    output with the same grid: as is common, the input of that block's attention.
    """
    if not hasattr(model, "forward_intermediates"):
        message = f"{type(model).__name__} has no grid of cells to explain"
        raise VtzooError(message, "use one of timm's architectures with forward_intermediates")
    head: Any = model
    with torch.enable_grad(), _recording(model) as outputs:
        features, grids = models.features_and_grids(model, images, stages=None)
        logits = head.forward_head(features)[0]
    large = [grid for grid in grids if min(grid.shape[-2:]) >= SMALLEST_SIDE]
    if not large:
        sizes = ", ".join(f"{grid.shape[-2]}x{grid.shape[-1]}" for grid in grids)
        message = f"the grids of {type(model).__name__} are too small to explain: {sizes} cells"
        hint = f"{SMALLEST_SIDE}x{SMALLEST_SIDE} cells are needed: use larger images or smaller patches"
        raise VtzooError(message, hint)
    return [_map(logits[index], large, outputs, type(model).__name__) for index in classes]


@contextmanager
def _recording(model: nn.Module) -> Iterator[list[Tensor]]:
    """The output tensors of every module that runs in the block, in order."""
    outputs: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        returned = output if isinstance(output, tuple | list) else [output]
        outputs.extend(tensor for tensor in returned if isinstance(tensor, Tensor))

    hooks = [module.register_forward_hook(keep) for module in model.modules()]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


def _map(logit: Float[Tensor, ""], grids: list[Tensor], outputs: list[Tensor], name: str) -> np.ndarray:
    """The map of one logit, in the last output that its gradient reaches."""
    for grid in reversed(grids):
        fitting = _up_to(grid, outputs)
        originals = [output for output, _ in fitting]
        gradients = torch.autograd.grad(logit, originals, retain_graph=True, allow_unused=True) if originals else ()
        for (_, cells), gradient in zip(reversed(fitting), reversed(gradients), strict=True):
            slope = None if gradient is None else as_grid(gradient, grid.shape)
            if slope is not None and slope.any():
                return weighted_map(cells[0], slope[0])
    raise VtzooError(f"the gradient of a logit reaches no grid of {name}", "try another architecture")


def _up_to(grid: Float[Tensor, "1 c h w"], outputs: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """The outputs with the grid's shape, up to the grid itself, each with its cells; empty if the grid is not found.

    A model returns its grid as a copy or a view without a gradient, so the original output must be found.
    """
    arranged = [(output, as_grid(output, grid.shape)) for output in outputs if output.requires_grad]
    fitting = [(output, cells) for output, cells in arranged if cells is not None]
    same = [place for place, (_, cells) in enumerate(fitting) if torch.equal(cells, grid)]
    return fitting[: same[-1] + 1] if same else []


def as_grid(output: Tensor, shape: torch.Size) -> Float[Tensor, "1 c h w"] | None:
    """The output as a grid of that shape, from channels first or last, or from tokens; None for any other shape."""
    _, channels, rows, columns = shape
    if output.shape == shape:
        return output
    if output.shape == (1, rows, columns, channels):
        return output.permute(0, 3, 1, 2)
    if output.ndim == 3 and output.shape[2] == channels and output.shape[1] >= rows * columns:
        return output[:, -rows * columns :].transpose(1, 2).unflatten(2, (rows, columns))
    return None


@torch.no_grad()
def weighted_map(cells: Float[Tensor, "c h w"], slope: Float[Tensor, "c h w"]) -> np.ndarray:
    """The channels summed, each weighted by its mean gradient, then clamped at 0 and divided by the maximum."""
    heat = (slope.mean(dim=(1, 2), keepdim=True) * cells).sum(dim=0).clamp(min=0)
    return (heat / heat.max().clamp(min=torch.finfo(heat.dtype).tiny)).float().cpu().numpy()
