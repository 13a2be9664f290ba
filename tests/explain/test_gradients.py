"""Grad-CAM, against values computed by hand and against hooks on a named module."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vtzoo import models
from vtzoo.errors import VtzooError
from vtzoo.explain.gradients import grad_cam


def test_a_map_is_what_the_formula_gives_by_hand(squares: Any) -> None:
    torch.manual_seed(0)
    images = torch.randn(1, 3, 32, 40)
    blocks = images[0].numpy().reshape(3, 4, 8, 5, 8).mean(axis=(2, 4))
    mixture = np.array([[1, -0.5, 0.25], [-0.5, 1, 0.5]], np.float32)
    cells = np.einsum("mc,chw->mhw", mixture, blocks)
    # The logit is sum_m w_m mean(cells_m^2): its gradient in a cell is 2 w_m cells_m / 20, its mean 2 w_m mean_m / 20.
    for row, found in zip(([1, 0.5], [-1, 2]), grad_cam(squares, images, [0, 1]), strict=True):
        weights = np.array(row) * cells.mean(axis=(1, 2)) / 10
        heat = np.maximum(np.einsum("m,mhw->hw", weights, cells), 0)
        np.testing.assert_allclose(found, heat / heat.max(), atol=1e-5)


def test_a_map_is_0_where_no_cell_speaks_for_the_class(squares: Any) -> None:
    images = torch.ones(1, 3, 32, 32)  # every cell alike, and the third class's weights are negative
    assert grad_cam(squares, images, [2])[0].tolist() == np.zeros((4, 4)).tolist()


def test_a_map_peaks_where_a_model_that_sees_red_alone_has_a_red_corner(squares: Any) -> None:
    squares.mix.weight.data = torch.tensor([[1.0, 0, 0], [0, 0, 0]])[..., None, None]
    images = torch.zeros(1, 3, 48, 32)
    images[0, 0, 40:, :8] = 1
    images[0, 1:, :8, 24:] = 1  # another corner, which is not red
    (heat,) = grad_cam(squares, images, [0])
    assert heat.shape == (6, 4)
    assert np.argwhere(heat).tolist() == [[5, 0]]


SMALL = {"img_size": 32, "patch_size": 4, "embed_dim": 16, "depth": 3, "num_heads": 2}
# The module that common practice hooks in each model. Swin's last grids have 2x2 and 1x1 cells. If a model pools its
# class token, the output cells of its last block have no influence on the logits.
FAMILIES = [
    ("resnet18", {}, 128, "layer4"),
    ("swin_tiny_patch4_window7_224", {"img_size": 32, "patch_size": 2, "window_size": 4}, 32, "layers.2"),
    ("vtzoo_cvt_13", {}, 64, "stages.2.blocks.9.norm1"),
    ("vtzoo_cvt_13", {"global_pool": "avg"}, 64, "stages.2.blocks.9"),
    ("vit_tiny_patch16_224", SMALL, 32, "blocks.2.norm1"),
    ("vit_tiny_patch16_224", {**SMALL, "global_pool": "avg"}, 32, "blocks.2"),
    ("vtzoo_t2t_vit_14", {"img_size": 32, "strides": (1, 2, 2)}, 32, "blocks.13.norm1"),
    ("pvt_v2_b0", {}, 128, "stages.3"),
]


@pytest.mark.parametrize(("name", "arguments", "size", "module"), FAMILIES)
def test_a_map_is_that_of_a_hook_on_the_module(name: str, arguments: dict[str, Any], size: int, module: str) -> None:
    torch.manual_seed(1)
    model: Any = models.create({"architecture": name, "num_classes": 5, "model_args": arguments}).eval()
    images = torch.randn(1, 3, size, size)
    kept: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Tensor) -> None:
        output.retain_grad()
        kept.append(output)

    likely = int(model(images).argmax())  # of one that is not, there may be nothing above 0
    (found,) = grad_cam(model, images, [likely])
    hook = model.get_submodule(module).register_forward_hook(keep)
    model(images)[0, likely].backward()
    hook.remove()
    rows, columns = found.shape
    values, slope = (flat(tensor, rows, columns) for tensor in (kept[0].detach(), kept[0].grad))
    heat = np.maximum(values @ slope.mean(axis=0), 0).reshape(rows, columns)
    assert heat.any()
    np.testing.assert_allclose(found, heat / heat.max(), atol=1e-4)


def flat(tensor: Tensor | None, rows: int, columns: int) -> np.ndarray:
    """The cells of an output, row by row, (rows * columns, channels)."""
    assert tensor is not None
    if tensor.ndim == 3:
        return tensor[0, -rows * columns :].numpy()
    channels_last = tensor.shape[1:3] == (rows, columns)
    return (tensor if channels_last else tensor.permute(0, 2, 3, 1)).reshape(rows * columns, -1).numpy()


def test_explaining_leaves_no_hook_behind(squares: Any) -> None:
    grad_cam(squares, torch.ones(1, 3, 32, 32), [0])
    assert not any(module._forward_hooks for module in squares.modules())


def test_a_model_whose_grids_are_too_small_is_refused_with_their_sizes(squares: Any) -> None:
    squares.forward_intermediates = lambda images, **_: (images, [torch.ones(1, 2, 3, 3), torch.ones(1, 2, 2, 2)])
    squares.forward_head = lambda cells: cells.mean(dim=(2, 3))
    with pytest.raises(VtzooError) as caught:
        grad_cam(squares, torch.ones(1, 3, 8, 8), [0])
    assert caught.value.message == "the grids of Squares are too small to explain: 3x3, 2x2 cells"
    assert caught.value.hint == "4x4 cells are needed: use larger images or smaller patches"


def test_a_model_without_grids_is_refused() -> None:
    with pytest.raises(VtzooError, match="Linear has no grid of cells to explain"):
        grad_cam(nn.Linear(2, 2), torch.ones(1, 3, 8, 8), [0])


def test_a_grid_that_no_module_puts_out_is_refused(squares: Any) -> None:
    squares.forward_intermediates = lambda images, **_: (squares.pool(squares.mix(images)), [torch.ones(1, 7, 4, 4)])
    with pytest.raises(VtzooError, match="the gradient of a logit reaches no grid of Squares"):
        grad_cam(squares, torch.ones(1, 3, 32, 32), [0])
