"""Attention rollout against sums over all paths, and attention weights computed from timm's queries and keys."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from vtzoo import models
from vtzoo.explain.rollout import attention_weights, roll_out, rollout_matrix

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 3, "num_heads": 2}


def vit(name: str = "vit_tiny_patch16_224", **arguments: Any) -> Any:
    torch.manual_seed(0)
    return models.create({"architecture": name, "num_classes": 5, "model_args": arguments or SMALL}).eval()


def attention(tokens: int, *, heads: int = 2, blocks: int = 3) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(1, heads, tokens, tokens).softmax(dim=-1) for _ in range(blocks)]


def test_a_rollout_is_the_sum_over_all_paths_from_an_output_to_an_input() -> None:
    weights = attention(4)
    steps = [(block[0].mean(dim=0).numpy() + np.eye(4)) / 2 for block in weights]
    expected = np.zeros((4, 4))
    for third, second, first, start in product(range(4), repeat=4):
        expected[third, start] += steps[2][third, second] * steps[1][second, first] * steps[0][first, start]
    np.testing.assert_allclose(rollout_matrix(weights)[0].numpy(), expected, atol=1e-6)


def test_what_is_rolled_out_sums_to_1() -> None:
    np.testing.assert_allclose(rollout_matrix(attention(9, blocks=12))[0].sum(dim=1).numpy(), 1, atol=1e-5)


def test_a_class_token_that_attends_to_one_corner_alone_has_its_peak_there() -> None:
    looking = torch.eye(17).expand(1, 2, 17, 17).clone()
    looking[:, :, 0] = 0
    looking[:, :, 0, 16] = 1  # the last cell, at the lower right
    cells = roll_out(vit(), [looking], torch.zeros(1, 3, 32, 32))
    assert np.argwhere(cells).tolist() == [[3, 3]]
    assert cells[3, 3] == pytest.approx(16)  # shares of 16 cells


def test_equal_attention_gives_every_cell_an_equal_share() -> None:
    even = torch.full((1, 2, 17, 17), 1 / 17)
    np.testing.assert_allclose(roll_out(vit(), [even, even], torch.zeros(1, 3, 32, 32)), np.ones((4, 4)), atol=1e-6)


def test_where_all_cells_are_pooled_the_rollout_is_their_mean() -> None:
    model = vit(**SMALL, class_token=False, global_pool="avg")
    weights = attention(16)
    expected = rollout_matrix(weights)[0].numpy().mean(axis=0)
    found = roll_out(model, weights, torch.zeros(1, 3, 32, 32))
    np.testing.assert_allclose(found.ravel(), expected * 16, atol=1e-5)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vtzoo_t2t_vit_14"])
def test_the_weights_are_those_of_the_queries_and_keys(name: str) -> None:
    arguments = SMALL if name.startswith("vit") else {"img_size": 32, "strides": (1, 2, 2)}
    model, images, inputs = vit(name, **arguments), torch.randn(1, 3, 32, 32), []
    layers = [block.attn for block in model.blocks]
    hooks = [layer.register_forward_pre_hook(lambda _, given: inputs.append(given[0])) for layer in layers]
    before = model(images)
    for hook in hooks:
        hook.remove()
    found = attention_weights(model, images)
    assert found is not None
    assert len(found) == len(layers)
    for layer, tokens, weights in zip(layers, inputs, found, strict=True):
        with torch.no_grad():
            query, key, _ = layer.qkv(tokens)[0].unflatten(1, (3, layer.num_heads, -1)).permute(1, 2, 0, 3)
        expected = (query @ key.transpose(1, 2) / query.shape[-1] ** 0.5).softmax(dim=-1)
        torch.testing.assert_close(weights[0], expected, atol=1e-5, rtol=0)
    assert all(layer.fused_attn for layer in layers)
    assert torch.equal(model(images), before)


@pytest.mark.parametrize(
    "model",
    [
        ("vit_tiny_patch16_224", {**SMALL, "global_pool": "map"}),
        ("vit_tiny_patch16_224", {**SMALL, "patch_size": 16}),  # 2x2 cells
        ("deit_tiny_distilled_patch16_224", {}),
        ("swin_tiny_patch4_window7_224", {}),
        ("resnet18", {}),
    ],
)
def test_a_model_that_is_no_plain_vision_transformer_has_no_rollout(model: tuple[str, dict[str, Any]]) -> None:
    name, arguments = model
    made = models.create({"architecture": name, "num_classes": 5, "model_args": arguments}).eval()
    size = arguments.get("img_size", 224)
    assert attention_weights(made, torch.zeros(1, 3, size, size)) is None
