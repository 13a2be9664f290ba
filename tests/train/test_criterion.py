"""Losses and metrics of classifiers, against equations, scikit-learn and cases counted by hand."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from vtzoo.train.criterion import MULTI_LABEL, SINGLE_LABEL, one_hot
from vtzoo.train.early_stopping import EarlyStopping

NAN = math.nan


def test_the_multi_label_loss_is_the_mean_over_known_labels() -> None:
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0]], requires_grad=True)
    targets = torch.tensor([[1.0, NAN, 0.0], [NAN, NAN, 1.0]])
    known = [math.log(1 + math.exp(-2.0)), math.log(1 + math.exp(0.5)), math.log(1 + math.exp(2.0))]
    loss = MULTI_LABEL.loss(logits, targets)
    assert loss.item() == pytest.approx(sum(known) / 3, rel=1e-6)
    loss.backward()
    assert logits.grad is not None
    assert (logits.grad[targets.isnan()] == 0).all()
    assert (logits.grad[~targets.isnan()] != 0).all()


def test_a_batch_without_known_labels_has_a_loss_and_gradients_of_zero() -> None:
    logits = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = MULTI_LABEL.loss(logits, torch.full((2, 3), NAN))
    loss.backward()
    assert loss == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


def test_an_image_counts_as_right_by_the_fraction_of_its_known_labels() -> None:
    logits = torch.tensor([[2.0, -1.0, 0.5], [1.0, 3.0, -2.0], [1.0, 1.0, 1.0]])
    targets = torch.tensor([[1.0, NAN, 0.0], [0.0, 1.0, 0.0], [NAN, NAN, NAN]])
    assert MULTI_LABEL.right(logits, targets).item() == pytest.approx(1 / 2 + 2 / 3 + 0)


def test_the_mean_average_precision_is_scikit_learns_over_classes_that_can_be_measured() -> None:
    random = np.random.default_rng(0)
    scores, targets = random.normal(size=(40, 5)), (random.random((40, 5)) < 0.3).astype(np.float32)
    assert MULTI_LABEL.score(targets, scores) == pytest.approx(
        average_precision_score(targets, scores, average="macro")
    )
    targets[:, 3], targets[:, 4], targets[::3, 0] = 0, 1, np.nan
    known = ~np.isnan(targets[:, 0])
    partly_known = [average_precision_score(targets[known, 0], scores[known, 0])]
    fully_known = [average_precision_score(targets[:, k], scores[:, k]) for k in (1, 2)]
    assert MULTI_LABEL.score(targets, scores) == pytest.approx(np.mean(partly_known + fully_known))
    assert MULTI_LABEL.score(np.full((40, 5), np.nan), scores) == 0


def test_the_single_label_score_is_the_top1_accuracy() -> None:
    scores = np.array([[0.1, 0.9], [0.8, 0.2], [0.6, 0.4]])
    assert SINGLE_LABEL.score(one_hot(np.array([1, 0, 1]), 2), scores) == pytest.approx(2 / 3)


def early_stopping(**criterion: Any) -> EarlyStopping:
    """Early stopping on two validation images of one pixel and different classes."""
    from dataclasses import replace

    return EarlyStopping(
        images=torch.zeros(2, 3, 1, 1, dtype=torch.uint8), targets=torch.eye(2), mean=(0.5,) * 3, std=(0.5,) * 3,
        criterion=replace(SINGLE_LABEL, **criterion), patience=2, tensors={},
    )  # fmt: skip


def linear(bias: float) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3, 2))
    torch.nn.init.zeros_(model[1].weight)
    return model, {"1.weight": model[1].weight.detach(), "1.bias": torch.tensor([bias, 0.0])}


def test_the_best_weights_are_kept_and_ties_go_to_the_lower_loss() -> None:
    scores = iter([0.5, 0.5, 0.5, 0.4, 0.3])
    stopper = early_stopping(score=lambda *_: next(scores))
    model, first = linear(1.0)
    stopper.tensors = {name: tensor.clone() for name, tensor in first.items()}
    for step, bias in enumerate((2.0, 0.5, 1.0, 0.0), start=1):  # the mean loss of both classes has its minimum at 0
        stopper.evaluate(model, linear(bias)[1], step)
    assert (stopper.best_evaluation, stopper.best_step, stopper.evaluations) == (2, 2, 4)
    assert stopper.tensors["1.bias"].tolist() == [0.5, 0.0]
    assert stopper.exhausted
    assert model.training


def test_early_stopping_is_restored_from_its_state() -> None:
    scores = iter([0.5, 0.4])
    stopper, restored = early_stopping(score=lambda *_: next(scores)), early_stopping()
    model, tensors = linear(0.3)
    stopper.tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    for step in (10, 20):
        stopper.evaluate(model, tensors, step)
    restored.restore(json.loads(json.dumps(stopper.state())))
    assert restored.state() == stopper.state()
    assert (restored.best[0], restored.best_step, restored.evaluations, restored.exhausted) == (0.5, 10, 2, False)


def test_the_state_in_an_older_checkpoint_is_read() -> None:
    stopper = early_stopping()
    stopper.restore(json.loads('{"best": [0.5, -1.25], "step": 10, "found": 1, "looks": 3}'))
    assert (stopper.best, stopper.best_step, stopper.best_evaluation, stopper.evaluations) == ((0.5, -1.25), 10, 1, 3)
    assert stopper.exhausted
