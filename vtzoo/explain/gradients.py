"""Grad-CAM: which cells of a token grid speak for a class.

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
    """The map of each class, float32 (rows, columns) from 0 to 1; all 0 where no cell speaks for it.

    It is taken in the last grid of at least 4x4 cells, where the logit's gradient reaches it. It does not where a class
    token is pooled: to the last block's cells nothing listens. The last output before, of the same grid, takes its
    place: there, as is common, the input of that block's attention.
    """
    if not hasattr(model, "forward_intermediates"):
        message = f"{type(model).__name__} has no grid of cells to show where it looked"
        raise VtzooError(message, "timm's architectures that have forward_intermediates have one")
    head: Any = model
    with torch.enable_grad(), _recording(model) as outputs:
        features, grids = models.features_and_grids(model, images, stages=None)
        logits = head.forward_head(features)[0]
    large = [grid for grid in grids if min(grid.shape[-2:]) >= SMALLEST_SIDE]
    if not large:
        sizes = ", ".join(f"{grid.shape[-2]}x{grid.shape[-1]}" for grid in grids)
        message = f"the grids of {type(model).__name__} are too small to show where it looked: {sizes} cells"
        raise VtzooError(message, f"it takes {SMALLEST_SIDE}x{SMALLEST_SIDE} cells: a larger image, or smaller patches")
    return [_map(logits[index], large, outputs, type(model).__name__) for index in classes]


@contextmanager
def _recording(model: nn.Module) -> Iterator[list[Tensor]]:
    """What every module puts out inside the block, in order."""
    outputs: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        parts = output if isinstance(output, tuple | list) else [output]
        outputs.extend(part for part in parts if isinstance(part, Tensor))

    hooks = [module.register_forward_hook(keep) for module in model.modules()]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


def _map(logit: Float[Tensor, ""], grids: list[Tensor], outputs: list[Tensor], name: str) -> np.ndarray:
    for grid in reversed(grids):
        fitting = _up_to(grid, outputs)
        originals = [output for output, _ in fitting]
        gradients = torch.autograd.grad(logit, originals, retain_graph=True, allow_unused=True) if originals else ()
        for (_, cells), gradient in zip(reversed(fitting), reversed(gradients), strict=True):
            slope = None if gradient is None else as_grid(gradient, grid.shape)
            if slope is not None and slope.any():
                return weighted(cells[0], slope[0])
    raise VtzooError(f"no grid of {name} can be followed to its answer", "Grad-CAM needs one: try another architecture")


def _up_to(grid: Float[Tensor, "1 c h w"], outputs: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """The outputs laid out as a grid is, in order, the last one being the grid itself; none where it is none of them.

    Each comes with its cells. A grid is handed out as a copy or a view that leads nowhere: its original must be found.
    """
    laid = [(output, as_grid(output, grid.shape)) for output in outputs if output.requires_grad]
    fitting = [(output, cells) for output, cells in laid if cells is not None]
    same = [place for place, (_, cells) in enumerate(fitting) if torch.equal(cells, grid)]
    return fitting[: same[-1] + 1] if same else []


def as_grid(output: Tensor, shape: torch.Size) -> Float[Tensor, "1 c h w"] | None:
    """The output as a grid of that shape, from channels first or last, or from tokens; None where it is neither."""
    _, channels, rows, columns = shape
    if output.shape == shape:
        return output
    if output.shape == (1, rows, columns, channels):
        return output.permute(0, 3, 1, 2)
    if output.ndim == 3 and output.shape[2] == channels and output.shape[1] >= rows * columns:
        return output[:, -rows * columns :].transpose(1, 2).unflatten(2, (rows, columns))
    return None


@torch.no_grad()
def weighted(cells: Float[Tensor, "c h w"], slope: Float[Tensor, "c h w"]) -> np.ndarray:
    """The sum of the channels, each times the mean of the logit's gradient in it, cut off at 0, over its largest."""
    heat = (slope.mean(dim=(1, 2), keepdim=True) * cells).sum(dim=0).clamp(min=0)
    return (heat / heat.max().clamp(min=torch.finfo(heat.dtype).tiny)).float().cpu().numpy()
