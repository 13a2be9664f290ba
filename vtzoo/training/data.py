"""Batches for training: the whole decoded set on the training device, augmented there as tensors."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vtzoo.recipe import Augmentation

from . import augment


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Normalized images (b, 3, size, size) and soft targets (b, classes)."""

    images: Float[Tensor, "b 3 h w"]
    targets: Float[Tensor, "b k"]


class Batches:
    """The batch of every step, each a function of (seed, step) alone: a run can start at any step.

    `images` is uint8 (n, 3, size, size), `labels` (n,). The images' order is shuffled anew each epoch; those left
    over after the last whole batch wait for another epoch, and a set smaller than one batch is one batch.
    """

    def __init__(
        self, images: np.ndarray, labels: np.ndarray, *, batch_size: int, classes: int, mean: tuple[float, ...],
        std: tuple[float, ...], augmentation: Augmentation, flip: bool, seed: int, device: torch.device,
    ) -> None:  # fmt: skip
        self.images = torch.from_numpy(images).to(device)
        self.labels = torch.from_numpy(labels).to(device)
        self.batch_size = min(batch_size, len(images))
        self.steps_per_epoch = len(images) // self.batch_size
        self.classes, self.mean, self.std = classes, mean, std
        self.augmentation, self.flip, self.seed = augmentation, flip, seed
        self._epoch, self._order = -1, torch.empty(0)

    def batch(self, step: int) -> Batch:
        """The augmented batch of a step; steps count from 0."""
        epoch, place = divmod(step, self.steps_per_epoch)
        chosen = self._shuffled(epoch)[place * self.batch_size : (place + 1) * self.batch_size]
        return self._augmented(chosen, epoch, step)

    def _augmented(self, chosen: Tensor, epoch: int, step: int) -> Batch:
        how = self.augmentation
        uniform = augment.draws(self.seed, epoch, chosen)
        images = augment.crop_and_flip(self.images[chosen], uniform, how.crop_padding, how.flip and self.flip)
        images = augment.normalize(images, self.mean, self.std)
        if how.erasing:
            images = augment.erase(images, uniform, how.erasing)
        targets = augment.smooth(self.labels[chosen], self.classes, how.label_smoothing)
        if how.mix_probability and (how.mixup or how.cutmix):
            images, targets = augment.mix(
                images, targets, mixup=how.mixup, cutmix=how.cutmix, probability=how.mix_probability,
                generator=generator(self.seed, step, torch.device("cpu")),
            )  # fmt: skip
        return Batch(images=images, targets=targets)

    def _shuffled(self, epoch: int) -> Tensor:
        if epoch != self._epoch:
            order = torch.randperm(len(self.images), generator=generator(self.seed, -1 - epoch, torch.device("cpu")))
            self._epoch, self._order = epoch, order.to(self.images.device)
        return self._order


def generator(seed: int, step: int, device: torch.device) -> torch.Generator:
    """A generator whose stream depends on (seed, step) alone."""
    return torch.Generator(device).manual_seed(key(seed, step))


def key(seed: int, step: int) -> int:
    """A 63-bit number for (seed, step), scrambled so that neighbours share nothing."""
    return int(np.random.SeedSequence([seed, abs(step), int(step < 0)]).generate_state(1, np.uint64)[0] >> 1)
