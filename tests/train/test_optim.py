import math

import pytest
import timm
import torch
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch import nn

from vtzoo import models
from vtzoo.drloc import DenseRelativeLocalization
from vtzoo.train.optim import WeightAverage, build_optimizer, learning_rate_at
from vtzoo.zoo.recipe import Optimizer

ADAMW = Optimizer(batch_size=8, learning_rate=1e-3, weight_decay=0.05, betas=(0.9, 0.99), clip_norm=0.0)
SHAPE = {"peak": 1e-3, "warmup_epochs": 5, "cosine_epochs": 30, "final": 1e-5}


def timms(*, t_in_epochs: bool, steps: int = 1) -> CosineLRScheduler:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1e-3)
    return CosineLRScheduler(
        optimizer, t_initial=30 * steps, lr_min=1e-5, warmup_t=5 * steps, warmup_lr_init=0, t_in_epochs=t_in_epochs
    )


def test_the_learning_rate_is_timms_at_every_epoch() -> None:
    scheduler = timms(t_in_epochs=True)
    for epoch in range(32):
        scheduler.step(epoch)
        assert learning_rate_at(epoch, **SHAPE) == pytest.approx(scheduler.optimizer.param_groups[0]["lr"], rel=1e-12)


def test_the_learning_rate_is_timms_at_every_update() -> None:
    scheduler = timms(t_in_epochs=False, steps=7)
    for update in range(7 * 31):
        scheduler.step_update(update)
        assert learning_rate_at(update / 7, **SHAPE) == pytest.approx(
            scheduler.optimizer.param_groups[0]["lr"], rel=1e-12
        )


@pytest.mark.parametrize(
    ("epoch", "rate"),
    [(0, 0.0), (2.5, 0.5), (5, 0.1 + 0.45 * (1 + math.cos(math.pi / 4))), (10, 0.55), (20, 0.1), (25, 0.1)],
)
def test_the_learning_rate_by_hand(epoch: float, rate: float) -> None:
    actual = learning_rate_at(epoch, peak=1.0, warmup_epochs=5, cosine_epochs=20, final=0.1)
    assert actual == pytest.approx(rate, abs=1e-12)


def test_without_a_warm_up_the_first_rate_is_the_peak() -> None:
    assert learning_rate_at(0, peak=1.0, warmup_epochs=0, cosine_epochs=20, final=0.1) == 1.0


@pytest.mark.parametrize("name", ["swin_t", "vit_tiny_patch16_224"])
def test_norms_biases_and_position_tables_do_not_decay_and_all_else_does(name: str) -> None:
    small = {"embed_dim": 32, "window_size": 4} if name == "swin_t" else {"depth": 2}
    model = models.build(name, num_classes=10, image_size=32, **small)
    head = DenseRelativeLocalization(16)
    optimizer = build_optimizer(ADAMW, model, head)
    decayed = {id(p) for group in optimizer.param_groups if group["weight_decay"] == 0.05 for p in group["params"]}
    spared = {id(p) for group in optimizer.param_groups if group["weight_decay"] == 0 for p in group["params"]}
    named = [*model.named_parameters(), *head.named_parameters()]
    assert decayed | spared == {id(parameter) for _, parameter in named}
    assert not decayed & spared
    tables = ("relative_position_bias_table", "pos_embed", "cls_token")
    for key, parameter in named:
        assert (id(parameter) in spared) == (parameter.ndim <= 1 or key.endswith(tables)), key
    assert {tuple(group["betas"]) for group in optimizer.param_groups} == {(0.9, 0.99)}


def test_a_baseline_optimizes_the_model_alone() -> None:
    model = nn.Linear(3, 2)
    optimizer = build_optimizer(ADAMW, model, None)
    optimized = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert optimized == {id(parameter) for parameter in model.parameters()}


def walk(model: nn.Module, random: torch.Generator) -> None:
    """Add noise to every parameter and floating-point buffer, and 1 to every integer buffer."""
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor += torch.randn(tensor.shape, generator=random) if tensor.is_floating_point() else 1


def test_the_average_follows_its_formula() -> None:
    model, random = nn.Linear(4, 3), torch.Generator().manual_seed(0)
    average = WeightAverage(model, 0.5)
    expected = model.weight.detach().double().clone()
    for step in range(1, 20):
        walk(model, random)
        average.update(model, step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * model.weight.detach().double()
        torch.testing.assert_close(average.tensors["weight"].double(), expected, rtol=1e-5, atol=1e-6)


def test_at_a_constant_decay_the_average_is_timms() -> None:
    model, random = timm.create_model("resnet10t", num_classes=3), torch.Generator().manual_seed(0)
    average, reference = WeightAverage(model, 0.15), ModelEmaV3(model, decay=0.15, exclude_buffers=True)
    for step in range(1, 4):  # the rising decay starts at 2/11, above 0.15
        walk(model, random)
        average.update(model, step)
        reference.update(model)
    assert average.tensors.keys() == reference.module.state_dict().keys()
    for name, tensor in reference.module.state_dict().items():
        torch.testing.assert_close(average.tensors[name], tensor, rtol=1e-5, atol=1e-6, msg=name)


def test_an_average_of_every_third_step_moves_as_far_as_three_steps_would() -> None:
    model = nn.Linear(4, 3)
    every, third = WeightAverage(model, 0.1), WeightAverage(model, 0.1, every=3)
    walk(model, torch.Generator().manual_seed(0))
    for step in range(4, 7):  # the rising decay starts at 2/11, above 0.1
        every.update(model, step)
        third.update(model, step)
    torch.testing.assert_close(third.tensors["weight"], every.tensors["weight"])


def test_the_average_is_a_copy_and_loads_into_its_model() -> None:
    model = nn.Linear(4, 3)
    average = WeightAverage(model, 0.9)
    walk(model, torch.Generator().manual_seed(0))
    assert not torch.equal(average.tensors["weight"], model.weight)
    model.load_state_dict(average.tensors)
    assert torch.equal(average.tensors["weight"], model.weight)
