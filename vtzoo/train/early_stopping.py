"""Early stopping: the best weights of a run on its validation images, and the end of a run that no longer improves."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.func import functional_call

from vtzoo.train.augment.mix import normalize
from vtzoo.train.criterion import Criterion

BATCH = 128  # images at once


@dataclass(kw_only=True, eq=False)
class EarlyStopping:
    """The best weights so far on validation images, and the number of evaluations since.

    Weights are better with a higher score or, at the same score, with a lower loss: on a dozen images scores often tie.
    """

    images: UInt8[Tensor, "n 3 h w"]  # as the model's own transform makes them
    targets: Float[Tensor, "n k"]
    mean: tuple[float, ...]  # of pixels 0..1
    std: tuple[float, ...]
    criterion: Criterion
    patience: int  # evaluations without an improvement that end the run
    tensors: dict[str, Tensor]  # a copy of the best weights
    best: tuple[float, float] = (-1.0, 0.0)  # their score, and minus their loss
    best_step: int = 0  # the steps taken before them
    best_evaluation: int = 0  # the evaluation that found them, counted from 1
    evaluations: int = 0

    @property
    def exhausted(self) -> bool:
        """Whether the last `patience` evaluations brought no improvement."""
        return self.evaluations - self.best_evaluation >= self.patience

    def evaluate(self, model: nn.Module, tensors: dict[str, Tensor], step: int) -> None:
        """Score the model with the weights `tensors`, reached after `step` steps; copy them if they are the best."""
        logits = logits_with(model, tensors, self.images, self.mean, self.std)
        loss = self.criterion.loss(logits, self.targets).item()
        found = self.criterion.score(self.targets.cpu().numpy(), logits.cpu().numpy()), -loss
        self.evaluations += 1
        if found > self.best:
            self.best, self.best_step, self.best_evaluation = found, step, self.evaluations
            for name, tensor in tensors.items():
                self.tensors[name].copy_(tensor)

    def state(self) -> dict[str, Any]:
        """The numbers that a checkpoint keeps, for JSON; it keeps the weights beside them."""
        return {
            "best": self.best, "step": self.best_step, "found": self.best_evaluation, "looks": self.evaluations
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """Put back the numbers of `state`, read from JSON."""
        self.best, self.best_step = tuple(state["best"]), state["step"]
        self.best_evaluation, self.evaluations = state["found"], state["looks"]


@torch.no_grad()
def logits_with(
    model: nn.Module, tensors: dict[str, Tensor], images: UInt8[Tensor, "n 3 h w"], mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Float[Tensor, "n k"]:  # fmt: skip
    """The float32 logits of a model with the weights `tensors`; its own weights and its mode stay as they are."""
    training = model.training
    model.eval()
    parts = [functional_call(model, tensors, (normalize(part, mean, std),)) for part in images.split(BATCH)]
    model.train(training)
    return torch.cat(parts).float()
