"""The divergence from a teacher, against torch's; a step with a teacher, against its equation."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from vtzoo import models
from vtzoo.train import loop
from vtzoo.train.teacher import Teacher, divergence
from vtzoo.zoo.recipe import Recipe
from vtzoo.zoo.result import TeacherResult

Starter = Callable[..., loop.Run]
Tiny = Callable[..., Recipe]


# The loss


def test_the_divergence_is_the_one_computed_by_hand() -> None:
    """KL(3:1 || 1:1) = 3/4 ln(3/2) + 1/4 ln(1/2). At temperature 2, doubled logits diverge four times as much."""
    student, teacher = torch.zeros(1, 2), torch.tensor([[math.log(3), 0.0]])
    by_hand = torch.tensor(0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    torch.testing.assert_close(divergence(student, teacher, 1.0), by_hand)
    torch.testing.assert_close(divergence(2 * student, 2 * teacher, 2.0), 4 * by_hand)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_divergence_is_torchs_own_and_its_gradient_the_difference_of_probabilities(temperature: float) -> None:
    random = torch.Generator().manual_seed(0)
    student = torch.randn(5, 7, generator=random, requires_grad=True)
    teacher = torch.randn(5, 7, generator=random)
    actual = divergence(student, teacher, temperature)
    probabilities = [(logits / temperature).softmax(1) for logits in (student, teacher)]
    reference = nn.KLDivLoss(reduction="batchmean")(probabilities[0].log(), probabilities[1])
    torch.testing.assert_close(actual, temperature**2 * reference)
    (gradient,) = torch.autograd.grad(actual, student)
    torch.testing.assert_close(gradient, temperature * (probabilities[0] - probabilities[1]).detach() / 5)


def test_a_student_with_its_teachers_probabilities_has_a_divergence_of_zero() -> None:
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(divergence(logits + 5, logits, 2.0), torch.tensor(0.0), rtol=0, atol=1e-5)


# A step


def cnn() -> Any:
    """A small CNN with dropout before its last layer, which would reveal the training mode."""
    torch.manual_seed(3)
    model: Any = models.build("small_cnn", num_classes=10, image_size=16, widths=[8, 8, 8])
    model.head = nn.Sequential(nn.Dropout(0.5), model.head)
    return model


@pytest.fixture
def teacher() -> Teacher:
    model = cnn().eval().requires_grad_(False)
    facts = TeacherResult(name="teacher", weights="")
    return Teacher(model=model, weight=0.75, temperature=2.0, facts=facts, train_manifest="here")


def step(run: loop.Run, teacher: Teacher | None, optimizer: Any, count: int = 1, **options: Any) -> dict[str, Tensor]:
    """Take a run's first step, in `count` parts."""
    run.accumulate = count
    options = {"weight": 0.3, "clip_norm": 0.0, "precision": torch.float32} | options
    scaler = GradScaler("cpu", enabled=False)
    return loop.train_step(
        run.network, optimizer, scaler, loop._parts(run, 16, 0), count=count, teacher=teacher, **options
    )


def test_a_step_descends_on_both_targets_and_on_localization(teacher: Teacher, tiny: Tiny, start: Starter) -> None:
    run = start(tiny(drop_path_rate=0.0))
    ((batch, points),) = loop._parts(run, 16, 0)
    logits, localization = run.network(batch.images, points)
    labels = -(batch.targets * logits.log_softmax(1)).sum(1).mean()
    with torch.no_grad():
        targets = (teacher.model(batch.images) / 2).softmax(1)
    taught = 4 * (targets * (targets.log() - (logits / 2).log_softmax(1))).sum(1).mean()
    loss = 0.25 * labels + 0.75 * taught + 0.3 * localization
    parameters = [*run.network.parameters()]
    expected = [p.detach() - 0.1 * g for p, g in zip(parameters, torch.autograd.grad(loss, parameters), strict=True)]
    losses = step(run, teacher, torch.optim.SGD(parameters, lr=0.1))
    named = {"loss": loss, "cross_entropy": labels, "distillation": taught, "localization": localization}
    for name, value in named.items():
        torch.testing.assert_close(losses[name], value.detach())
    for parameter, value in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.detach(), value)


def test_a_step_leaves_the_teacher_as_it_was(teacher: Teacher, tiny: Tiny, start: Starter) -> None:
    recipe = tiny(muon=True)
    run = start(recipe)
    run.teacher = teacher
    before = {name: tensor.clone() for name, tensor in teacher.model.state_dict().items()}
    for _ in range(2):
        loop._step(run, run.network, recipe, 0)
        run.step += 1
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.model.state_dict().items())
    assert not any(module.training for module in teacher.model.modules())
    assert all(parameter.grad is None for parameter in teacher.model.parameters())
    owned = {id(parameter) for group in run.optimizer.param_groups for parameter in group["params"]}
    assert owned.isdisjoint(id(parameter) for parameter in teacher.model.parameters())


@pytest.mark.parametrize("count", [1, 2])
def test_the_teacher_sees_the_same_batch_as_the_student(
    count: int, teacher: Teacher, tiny: Tiny, start: Starter
) -> None:
    """The recipe crops, erases and mixes the images."""
    run, seen = start(tiny()), {"teacher": [], "student": []}
    teacher.model.register_forward_pre_hook(lambda module, inputs: seen["teacher"].append(inputs[0]))
    run.network.register_forward_pre_hook(lambda module, inputs: seen["student"].append(inputs[0]))
    step(run, teacher, torch.optim.SGD(run.network.parameters(), lr=0.0), count)
    assert len(seen["teacher"]) == len(seen["student"]) == count
    assert all(torch.equal(first, second) for first, second in zip(seen["teacher"], seen["student"], strict=True))
    batch = run.batches.batch(0)
    assert torch.equal(torch.cat(seen["teacher"]), batch.images)
    assert ((batch.targets > 0.15).sum(1) > 1).any()  # smoothing gives 0.01 to each class, mixing more to two


def test_a_step_in_parts_is_taught_as_the_whole_batch_is(teacher: Teacher, tiny: Tiny, start: Starter) -> None:
    recipe, losses, weights = tiny(drop_path_rate=0.0), [], []
    for count in (1, 4):
        run = start(recipe)
        losses.append(step(run, teacher, torch.optim.SGD(run.network.parameters(), lr=0.1), count))
        weights.append(torch.cat([parameter.detach().flatten() for parameter in run.network.parameters()]))
    torch.testing.assert_close(losses[0]["distillation"], losses[1]["distillation"], rtol=1e-5, atol=0)
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-5, atol=1e-6)


def test_a_teacher_does_not_change_the_random_numbers_of_its_student(
    teacher: Teacher, tiny: Tiny, start: Starter
) -> None:
    losses = []
    for guide in (None, replace(teacher, weight=0.0)):
        run = start(tiny())
        torch.manual_seed(5)  # of drop path
        losses.append(step(run, guide, torch.optim.SGD(run.network.parameters(), lr=0.0)))
    assert torch.equal(losses[0]["loss"], losses[1]["loss"])
    assert losses[0].keys() == losses[1].keys() - {"distillation"}


def test_in_half_precision_the_divergence_is_measured_in_float32(teacher: Teacher, tiny: Tiny, start: Starter) -> None:
    run = start(tiny())
    losses = step(run, teacher, torch.optim.SGD(run.network.parameters(), lr=0.0), precision=torch.bfloat16)
    exact_losses = step(run, teacher, torch.optim.SGD(run.network.parameters(), lr=0.0))
    assert losses["distillation"].dtype == torch.float32
    torch.testing.assert_close(losses["distillation"], exact_losses["distillation"], rtol=0.1, atol=0)
