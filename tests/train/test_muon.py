"""Muon against torch's Muon and AdamW and a singular value decomposition, and the parameters that it trains."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler

from vtzoo import models
from vtzoo.drloc import DenseRelativeLocalization
from vtzoo.errors import VtzooError
from vtzoo.train import muon
from vtzoo.train.criterion import SINGLE_LABEL
from vtzoo.train.loop import train_step
from vtzoo.train.muon import Muon, orthogonal
from vtzoo.train.optim import build_optimizer, hidden_matrices
from vtzoo.train.pipeline.batches import Batch
from vtzoo.zoo.recipe import Optimizer

SETTINGS: dict[str, Any] = {
    "batch_size": 8, "learning_rate": 1e-2, "weight_decay": 0.05, "betas": (0.9, 0.99), "clip_norm": 0.0,
}  # fmt: skip
MUON = Optimizer(name="muon", momentum=0.95, iterations=5, adamw_learning_rate=1e-3, **SETTINGS)


@pytest.mark.parametrize("shape", [(16, 16), (8, 32), (32, 8)])
def test_five_iterations_bring_every_singular_value_close_to_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    torch.testing.assert_close(orthogonal(matrix, 5), left @ right, rtol=0, atol=0.15)


def test_seven_iterations_are_closer_than_five() -> None:
    matrix = torch.randn(1, 24, 48, generator=torch.Generator().manual_seed(0))
    values = [torch.linalg.svdvals(orthogonal(matrix, iterations)) for iterations in (5, 7)]
    errors = [float((singular - 1).abs().max()) for singular in values]
    assert errors[1] < 0.02 < errors[0]


@pytest.mark.parametrize("iterations", [3, 5, 7])
def test_iterations_on_the_gram_matrix_of_wide_matrices_have_the_same_result(
    iterations: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The iterations on the Gram matrix need float32, which a CPU with matrix units does not choose."""
    monkeypatch.setattr(muon, "precision", lambda device: torch.float32)
    values = torch.logspace(-3, 0, 32)  # a range like that of a gradient's singular values
    left, right = (torch.linalg.qr(torch.randn(n, 32, generator=torch.Generator().manual_seed(n)))[0] for n in (32, 96))
    matrix = ((left * values) @ right.T)[None]
    scaled = (matrix / (matrix.norm() * muon.SAFETY)).double()
    expected = muon._by_product(scaled, muon.COEFFICIENTS[:iterations])
    torch.testing.assert_close(orthogonal(matrix, iterations).double(), expected, rtol=0, atol=2e-3)


def test_a_matrix_of_zeros_stays_zero() -> None:
    assert torch.equal(orthogonal(torch.zeros(1, 4, 6), 5), torch.zeros(1, 4, 6))


def test_zeros_beside_other_matrices_change_nothing() -> None:
    others = torch.randn(2, 4, 6)
    together = orthogonal(torch.stack([others[0], torch.zeros(4, 6), others[1]]), 5)
    torch.testing.assert_close(together[[0, 2]], orthogonal(others, 5))
    assert not together[1].any()


@pytest.mark.parametrize("shape", [(12, 5), (5, 12)])
def test_a_step_with_torchs_iteration_equals_torchs_step(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference iterates in bfloat16 with the first Muon's coefficients; this test sets the same in ours."""
    monkeypatch.setattr(muon, "COEFFICIENTS", ((3.4445, -4.7750, 2.0315),) * 5)
    monkeypatch.setattr(muon, "SAFETY", 1.0)
    monkeypatch.setattr(muon, "precision", lambda device: torch.bfloat16)
    random = torch.Generator().manual_seed(0)
    ours, theirs = (nn.Parameter(torch.ones(shape)) for _ in range(2))
    optimizer = Muon([{"params": [ours], "weight_decay": 0.1, "matrices": 1}], learning_rate=0.02, betas=(0.9, 0.99),
                momentum=0.95, iterations=5)  # fmt: skip
    reference = torch.optim.Muon(
        [theirs], lr=0.02, weight_decay=0.1, momentum=0.95, nesterov=True, adjust_lr_fn="match_rms_adamw"
    )
    for _ in range(4):
        gradient = torch.randn(shape, generator=random)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        optimizer.step()
        reference.step()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-3)  # steps are 0.02 * 0.2 * sqrt(12), in bfloat16
    assert (ours - 1).abs().max() > 0.01


def test_fused_queries_keys_and_values_are_three_matrices() -> None:
    weight = nn.Parameter(torch.zeros(12, 8))
    gradient = torch.randn(12, 8, generator=torch.Generator().manual_seed(0))
    gradient[:4] *= 100  # the queries' gradient; in a single matrix, it would drown the others
    weight.grad = gradient.clone()
    optimizer = Muon([{"params": [weight], "weight_decay": 0.0, "matrices": 3}], learning_rate=1.0, betas=(0.9, 0.99),
                     momentum=0.0, iterations=7)  # fmt: skip
    optimizer.step()
    scale = 0.2 * math.sqrt(8)
    for part in weight.detach().split(4):
        torch.testing.assert_close(part @ part.T, scale**2 * torch.eye(4), rtol=0, atol=0.03)


def test_a_kernel_is_a_matrix_of_its_output_channels() -> None:
    kernel = nn.Parameter(torch.zeros(4, 2, 3, 3))
    kernel.grad = torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    optimizer = Muon([{"params": [kernel], "weight_decay": 0.0, "matrices": 1}], learning_rate=1.0, betas=(0.9, 0.99),
                     momentum=0.0, iterations=7)  # fmt: skip
    optimizer.step()
    rows = kernel.detach().flatten(1)
    torch.testing.assert_close(rows @ rows.T, 0.2**2 * 18 * torch.eye(4), rtol=0, atol=0.03)


def test_parameters_of_one_shape_move_as_each_would_alone() -> None:
    random = torch.Generator().manual_seed(0)
    gradients = [torch.randn(6, 4, generator=random) for _ in range(3)]
    together, alone = ([nn.Parameter(torch.ones(6, 4)) for _ in gradients] for _ in range(2))
    for chosen in (together, *([single] for single in alone)):
        for parameter, gradient in zip(together + alone, 2 * gradients, strict=True):
            parameter.grad = gradient.clone()
        Muon([{"params": chosen, "weight_decay": 0.1, "matrices": 3}], learning_rate=0.1, betas=(0.9, 0.99),
             momentum=0.9, iterations=5).step()  # fmt: skip
    for actual, expected in zip(together, alone, strict=True):
        torch.testing.assert_close(actual, expected)
    assert not torch.equal(together[0], together[1])


def test_parameters_other_than_hidden_matrices_move_as_with_adamw() -> None:
    random = torch.Generator().manual_seed(0)
    ours, theirs, matrix = nn.Parameter(torch.ones(5)), nn.Parameter(torch.ones(5)), nn.Parameter(torch.ones(3, 3))
    optimizer = Muon(
        [{"params": [matrix], "matrices": 1}, {"params": [ours], "weight_decay": 0.1}], learning_rate=1e-2,
        betas=(0.9, 0.99), momentum=0.9, iterations=3,
    )  # fmt: skip
    reference = torch.optim.AdamW([theirs], lr=1e-2, betas=(0.9, 0.99), weight_decay=0.1)
    for _ in range(5):
        gradient = torch.randn(5, generator=random)
        ours.grad, theirs.grad, matrix.grad = gradient.clone(), gradient.clone(), torch.ones(3, 3)
        optimizer.step()
        reference.step()
    torch.testing.assert_close(ours, theirs)


def muon_and_adamw() -> tuple[Muon, nn.Parameter, nn.Parameter]:
    """An optimizer with Muon for a matrix and AdamW for a vector, and these two parameters."""
    matrix, vector = nn.Parameter(torch.ones(3, 3)), nn.Parameter(torch.ones(5))
    optimizer = Muon(
        [{"params": [matrix], "matrices": 1, "weight_decay": 0.1}, {"params": [vector], "weight_decay": 0.1}],
        learning_rate=1e-2, betas=(0.9, 0.99), momentum=0.9, iterations=5,
    )  # fmt: skip
    return optimizer, matrix, vector


@pytest.mark.parametrize("overflows", ["matrix", "vector"])
def test_a_gradient_that_overflows_in_fp16_skips_the_whole_step(overflows: str) -> None:
    optimizer, matrix, vector = muon_and_adamw()
    scaler = GradScaler("cpu", init_scale=2.0**10)
    scaler.scale(torch.zeros(()))  # sets the scale
    for parameter, name in ((matrix, "matrix"), (vector, "vector")):
        parameter.grad = torch.full_like(parameter, float("inf") if name == overflows else 1.0)
    scaler.step(optimizer)
    scaler.update()
    assert torch.equal(matrix, torch.ones(3, 3))
    assert torch.equal(vector, torch.ones(5))
    assert not any(optimizer.state.values())
    assert scaler.get_scale() == 2.0**9


@pytest.mark.parametrize("scale", [2.0**10, None])
def test_gradients_are_unscaled_and_clipped_together_before_either_optimizer_sees_them(scale: float | None) -> None:
    """After the first step, Muon's momentum and AdamW's average are a tenth of their gradients."""
    optimizer, matrix, vector = muon_and_adamw()
    inputs, scaler = torch.arange(3.0), GradScaler("cpu", init_scale=scale or 1.0, enabled=scale is not None)

    class Model(nn.Module):
        def forward(self, images: Any, points: Any) -> tuple[torch.Tensor, torch.Tensor]:
            return (matrix @ inputs)[None], 2 * vector.sum()

    batch = Batch(
        images=torch.zeros(1, 3, 1, 1), targets=torch.zeros(1, 3), chosen=torch.zeros(1, dtype=torch.long), epoch=0
    )
    train_step(
        Model(), optimizer, scaler, [(batch, None)], count=1, weight=1.0, clip_norm=0.5, precision=torch.float32,
        criterion=replace(SINGLE_LABEL, loss=lambda logits, targets: logits.sum()),
    )  # fmt: skip
    gradient = torch.cat([inputs.repeat(3), torch.full((5,), 2.0)])
    seen = torch.cat([optimizer.state[matrix]["momentum"].flatten(), optimizer.state[vector]["exp_avg"]]) / 0.1
    torch.testing.assert_close(seen, 0.5 * gradient / gradient.norm())


def test_products_are_in_bfloat16_where_that_is_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    assert muon.precision(torch.device("cuda")) == torch.bfloat16
    for fast, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda fast=fast: fast)
        assert muon.precision(torch.device("cpu")) == dtype


def test_muon_moves_swins_hidden_matrices_and_nothing_else() -> None:
    model = models.build("swin_t", num_classes=10, image_size=32, patch_size=4, window_size=4)
    moved = {name for name, parameter in model.named_parameters() if parameter in hidden_matrices(model)}
    ends = ("qkv.weight", "proj.weight", "fc1.weight", "fc2.weight", "reduction.weight")
    expected = {name for name, parameter in model.named_parameters() if parameter.ndim == 2 and name.endswith(ends)}
    assert moved == expected
    assert "patch_embed.proj.weight" not in moved
    assert {hidden_matrices(model)[p] for n, p in model.named_parameters() if n.endswith("qkv.weight")} == {3}


@pytest.mark.parametrize(
    ("name", "arguments", "spared"),
    [
        ("cvt_13", {"patch_size": 4}, ["stages.0.embed.proj", "stages.0.blocks.0.attn.q.conv", "head"]),
        ("t2t_vit_14", {"strides": [2, 2, 1]}, ["head", "pos_embed", "cls_token"]),
        ("small_cnn", {}, ["whitening", "head"]),
        ("resnet10t", {}, ["conv1.0", "fc"]),
    ],
)
def test_first_layers_classifiers_and_depth_wise_kernels_are_adamws(
    name: str, arguments: dict[str, Any], spared: list[str]
) -> None:
    model = models.build(name, num_classes=10, image_size=32, **arguments)
    moved = {key for key, parameter in model.named_parameters() if parameter in hidden_matrices(model)}
    assert moved
    assert not [key for key in moved if key.startswith(tuple(f"{layer}." for layer in spared)) or key in spared]


def test_every_parameter_is_in_one_group_and_the_rest_has_adamws_rate() -> None:
    model, head = models.build("small_cnn", num_classes=10, image_size=32), DenseRelativeLocalization(16)
    optimizer = build_optimizer(MUON, model, head)
    grouped = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    trainable = [p for p in (*model.parameters(), *head.parameters()) if p.requires_grad]
    assert {id(p) for p in grouped} == {id(p) for p in trainable}
    assert len(grouped) == len(trainable)
    scales = {"matrices" in group: group["lr_scale"] for group in optimizer.param_groups}
    assert scales == {True: 1.0, False: pytest.approx(0.1)}


def test_layer_decay_scales_muons_rates_as_adamws() -> None:
    model = models.build("vit_tiny_patch16_224", num_classes=10, image_size=32, depth=2)
    adamw = build_optimizer(Optimizer(**SETTINGS), model, None, layer_decay=0.5)
    mixed = build_optimizer(MUON, model, None, layer_decay=0.5)
    scales = {id(p): group["lr_scale"] for group in adamw.param_groups for p in group["params"]}
    for group in mixed.param_groups:
        for parameter in group["params"]:
            share = 1.0 if "matrices" in group else 0.1
            assert group["lr_scale"] == pytest.approx(share * scales[id(parameter)])


def test_a_model_without_hidden_matrices_is_refused() -> None:
    class Patches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Conv2d(3, 4, 2), nn.Linear(4, 2)
            self.pretrained_cfg = {"first_conv": "stem", "classifier": "head"}

    with pytest.raises(VtzooError, match="Patches has no hidden matrices for Muon") as raised:
        build_optimizer(MUON, Patches(), None)
    assert "out of [optimizer]" in str(raised.value.hint)
