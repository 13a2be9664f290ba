"""The best weights of a run by its validation images, and when to stop looking for better ones."""

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
class Selection:
    """What validation images say of a run: its best weights so far, and whether it has stopped getting better.

    A look is better by a higher score or, at the same one, by a lower loss: of a dozen images many are the same.
    """

    images: UInt8[Tensor, "n 3 h w"]  # as the model's own transform makes them
    targets: Float[Tensor, "n k"]
    mean: tuple[float, ...]  # of pixels 0..1
    std: tuple[float, ...]
    criterion: Criterion
    patience: int  # looks without a better one
    tensors: dict[str, Tensor]  # the best weights, a copy
    best: tuple[float, float] = (-1.0, 0.0)  # their score, and minus their loss
    step: int = 0  # after which they were found
    found: int = 0  # the look that found them; looks count from 1
    looks: int = 0

    @property
    def settled(self) -> bool:
        """Whether the last so many looks found nothing better."""
        return self.looks - self.found >= self.patience

    def look(self, model: nn.Module, tensors: dict[str, Tensor], step: int) -> None:
        """Measure the model with its weights after a step, and keep a copy of them where they are the best so far."""
        logits = answers(model, tensors, self.images, self.mean, self.std)
        loss = self.criterion.loss(logits, self.targets).item()
        seen = self.criterion.score(logits.cpu().numpy(), self.targets.cpu().numpy()), -loss
        self.looks += 1
        if seen > self.best:
            self.best, self.step, self.found = seen, step, self.looks
            for name, tensor in tensors.items():
                self.tensors[name].copy_(tensor)

    def numbers(self) -> dict[str, Any]:
        """What a checkpoint keeps beside the weights."""
        return {"best": self.best, "step": self.step, "found": self.found, "looks": self.looks}

    def restore(self, numbers: dict[str, Any]) -> None:
        """Put back what `numbers` gave, out of JSON."""
        self.best, self.step = tuple(numbers["best"]), numbers["step"]
        self.found, self.looks = numbers["found"], numbers["looks"]


@torch.no_grad()
def answers(
    model: nn.Module, tensors: dict[str, Tensor], images: UInt8[Tensor, "n 3 h w"], mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Float[Tensor, "n k"]:  # fmt: skip
    """The logits of a model with these weights in the place of its own, in float32; training then goes on as before."""
    training = model.training
    model.eval()
    parts = [functional_call(model, tensors, (normalize(part, mean, std),)) for part in images.split(BATCH)]
    model.train(training)
    return torch.cat(parts).float()
