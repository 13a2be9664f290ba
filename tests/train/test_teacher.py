"""Teachers: their loss in a step and their input; a step does not change them."""

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
    """Of 3:1 from 1:1, it is 3/4 ln(3/2) + 1/4 ln(1/2); at temperature 2, of doubled logits, four times that."""
    student, teacher = torch.zeros(1, 2), torch.tensor([[math.log(3), 0.0]])
    by_hand = torch.tensor(0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    torch.testing.assert_close(divergence(student, teacher, 1.0), by_hand)
    torch.testing.assert_close(divergence(2 * student, 2 * teacher, 2.0), 4 * by_hand)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_divergence_is_torchs_own_and_its_gradient_the_difference_of_probabilities(temperature: float) -> None:
    random = torch.Generator().manual_seed(0)
    student = torch.randn(5, 7, generator=random, requires_grad=True)
    teacher = torch.randn(5, 7, generator=random)
    found = divergence(student, teacher, temperature)
    probabilities = [(logits / temperature).softmax(1) for logits in (student, teacher)]
    reference = nn.KLDivLoss(reduction="batchmean")(probabilities[0].log(), probabilities[1])
    torch.testing.assert_close(found, temperature**2 * reference)
    (gradient,) = torch.autograd.grad(found, student)
    torch.testing.assert_close(gradient, temperature * (probabilities[0] - probabilities[1]).detach() / 5)


def test_a_student_that_answers_as_its_teacher_is_at_no_distance() -> None:
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


def step(now: loop.Run, teacher: Teacher | None, optimizer: Any, count: int = 1, **how: Any) -> dict[str, Tensor]:
    """Take a run's first step, in `count` parts."""
    now.accumulate = count
    how = {"weight": 0.3, "clip_norm": 0.0, "precision": torch.float32} | how
    scaler = GradScaler("cpu", enabled=False)
    return loop.train_step(now.network, optimizer, scaler, loop._parts(now, 16, 0), count=count, teacher=teacher, **how)


def test_a_step_descends_on_both_targets_and_on_localization(teacher: Teacher, tiny: Tiny, start: Starter) -> None:
    now = start(tiny(drop_path_rate=0.0))
    ((batch, points),) = loop._parts(now, 16, 0)
    logits, localization = now.network(batch.images, points)
    labels = -(batch.targets * logits.log_softmax(1)).sum(1).mean()
    with torch.no_grad():
        wanted = (teacher.model(batch.images) / 2).softmax(1)
    taught = 4 * (wanted * (wanted.log() - (logits / 2).log_softmax(1))).sum(1).mean()
    loss = 0.25 * labels + 0.75 * taught + 0.3 * localization
    parameters = [*now.network.parameters()]
    expected = [p.detach() - 0.1 * g for p, g in zip(parameters, torch.autograd.grad(loss, parameters), strict=True)]
    found = step(now, teacher, torch.optim.SGD(parameters, lr=0.1))
    named = {"loss": loss, "cross_entropy": labels, "distillation": taught, "localization": localization}
    for name, value in named.items():
        torch.testing.assert_close(found[name], value.detach())
    for parameter, wanted in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.detach(), wanted)


def test_a_step_leaves_the_teacher_as_it_was(teacher: Teacher, tiny: Tiny, start: Starter) -> None:
    recipe = tiny(muon=True)
    now = start(recipe)
    now.teacher = teacher
    before = {name: tensor.clone() for name, tensor in teacher.model.state_dict().items()}
    for _ in range(2):
        loop._step(now, now.network, recipe, 0)
        now.step += 1
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.model.state_dict().items())
    assert not any(module.training for module in teacher.model.modules())
    assert all(parameter.grad is None for parameter in teacher.model.parameters())
    owned = {id(parameter) for group in now.optimizer.param_groups for parameter in group["params"]}
    assert owned.isdisjoint(id(parameter) for parameter in teacher.model.parameters())


@pytest.mark.parametrize("count", [1, 2])
def test_the_teacher_sees_the_very_batch_that_the_student_does(
    count: int, teacher: Teacher, tiny: Tiny, start: Starter
) -> None:
    """The batch is cropped, erased and mixed."""
    now, seen = start(tiny()), {"teacher": [], "student": []}
    teacher.model.register_forward_pre_hook(lambda module, inputs: seen["teacher"].append(inputs[0]))
    now.network.register_forward_pre_hook(lambda module, inputs: seen["student"].append(inputs[0]))
    step(now, teacher, torch.optim.SGD(now.network.parameters(), lr=0.0), count)
    assert len(seen["teacher"]) == len(seen["student"]) == count
    assert all(torch.equal(one, other) for one, other in zip(seen["teacher"], seen["student"], strict=True))
    batch = now.batches.batch(0)
    assert torch.equal(torch.cat(seen["teacher"]), batch.images)
    assert ((batch.targets > 0.15).sum(1) > 1).any()  # smoothing gives 0.01 to each class, mixing more to two


def test_a_step_in_parts_is_taught_as_the_whole_batch_is(teacher: Teacher, tiny: Tiny, start: Starter) -> None:
    recipe, found, weights = tiny(drop_path_rate=0.0), [], []
    for count in (1, 4):
        now = start(recipe)
        found.append(step(now, teacher, torch.optim.SGD(now.network.parameters(), lr=0.1), count))
        weights.append(torch.cat([parameter.detach().flatten() for parameter in now.network.parameters()]))
    torch.testing.assert_close(found[0]["distillation"], found[1]["distillation"], rtol=1e-5, atol=0)
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-5, atol=1e-6)


def test_a_teacher_draws_no_random_number_of_its_students(teacher: Teacher, tiny: Tiny, start: Starter) -> None:
    found = []
    for guide in (None, replace(teacher, weight=0.0)):
        now = start(tiny())
        torch.manual_seed(5)  # of drop path
        found.append(step(now, guide, torch.optim.SGD(now.network.parameters(), lr=0.0)))
    assert torch.equal(found[0]["loss"], found[1]["loss"])
    assert found[0].keys() == found[1].keys() - {"distillation"}


def test_in_half_precision_the_divergence_is_measured_in_float32(teacher: Teacher, tiny: Tiny, start: Starter) -> None:
    now = start(tiny())
    found = step(now, teacher, torch.optim.SGD(now.network.parameters(), lr=0.0), precision=torch.bfloat16)
    exact = step(now, teacher, torch.optim.SGD(now.network.parameters(), lr=0.0))
    assert found["distillation"].dtype == torch.float32
    torch.testing.assert_close(found["distillation"], exact["distillation"], rtol=0.1, atol=0)
