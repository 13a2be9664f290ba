"""Batches for training: decoded images augmented as tensors on the training device."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from vtzoo.errors import VtzooError
from vtzoo.recipe import Augmentation

from . import augment
from .pixels import Pixels, to_device

# Streams of `key`: what each number is drawn for.
WEIGHTS, DROPOUT, PAIRS, ORDER = range(4)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Normalized images (b, 3, size, size) and soft targets (b, classes)."""

    images: Float[Tensor, "b 3 h w"]
    targets: Float[Tensor, "b k"]
    chosen: Int[Tensor, " b"]  # which images of the data set these are, on the device
    epoch: int  # from 0


class Batches:
    """The batch of every step, each a function of (seed, step) alone: a run can start at any step.

    `pixels` holds n images, `labels` is (n,). The images' order is shuffled anew each epoch; those left over after the
    last whole batch wait for another epoch, and a set smaller than one batch is one batch.
    """

    def __init__(
        self, pixels: Pixels | np.ndarray, labels: np.ndarray, *, batch_size: int, classes: int,
        mean: tuple[float, ...], std: tuple[float, ...], augmentation: Augmentation, flip: bool, seed: int,
        device: torch.device,
    ) -> None:  # fmt: skip
        self.pixels = Pixels.of(pixels, device) if isinstance(pixels, np.ndarray) else pixels
        self.labels = torch.from_numpy(labels).to(device)
        self.batch_size = min(batch_size, len(labels))
        self.steps_per_epoch = len(labels) // self.batch_size
        self.classes, self.mean, self.std, self.device = classes, mean, std, device
        self.augmentation, self.flip, self.seed = augmentation, flip, seed
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.long)

    def batch(self, step: int, part: int = 0, parts: int = 1) -> Batch:
        """The augmented batch of a step, or one of the equal parts that make it up; steps and parts count from 0."""
        epoch, chosen = self._chosen(step, part, parts)
        numbers = to_device(chosen, self.device)
        uniform = augment.draws(self.seed, epoch, numbers)
        images = self._crops(chosen, uniform)
        return self._augmented(images, uniform, numbers, epoch)

    def check_parts(self, parts: int) -> None:
        """Refuse to cut batches into parts that are not equal, or that would separate a couple to be mixed."""
        size, rest = divmod(self.batch_size, parts)
        if rest:
            raise VtzooError(
                f"a batch of {self.batch_size} images cannot be shared evenly by {parts} processes",
                "start as many processes as divide the batch size",
            )
        if parts > 1 and size % 2 and self._mixes:
            raise VtzooError(
                f"{parts} processes would each get {size} of a batch's {self.batch_size} images, and mixup and cutmix "
                "take them in twos",
                "start fewer processes",
            )

    @property
    def _mixes(self) -> bool:
        how = self.augmentation
        return bool(how.mix_probability and (how.mixup or how.cutmix))

    def _crops(self, chosen: Tensor, uniform: Tensor) -> UInt8[Tensor, "b 3 h w"]:
        how = self.augmentation
        images, _ = self.pixels.take(chosen)
        return augment.crop_and_flip(images, uniform, how.crop_padding, how.flip and self.flip)

    def _augmented(self, crops: Tensor, uniform: Tensor, chosen: Tensor, epoch: int) -> Batch:
        how = self.augmentation
        images = augment.normalize(crops, self.mean, self.std)
        if how.erasing:
            images = augment.erase(images, uniform, how.erasing, how.erasing_noise)
        targets = augment.smooth(self.labels[chosen], self.classes, how.label_smoothing)
        if self._mixes:
            images, targets = augment.mix(
                images, targets, augment.draws(self.seed, epoch, chosen, augment.MIX, 5),
                mixup=how.mixup, cutmix=how.cutmix, probability=how.mix_probability,
            )  # fmt: skip
        return Batch(images=images, targets=targets, chosen=chosen, epoch=epoch)

    def _chosen(self, step: int, part: int, parts: int) -> tuple[int, Int[Tensor, " b"]]:
        """The epoch of a step, and the numbers of the images in a part of its batch, on the CPU."""
        epoch, place = divmod(step, self.steps_per_epoch)
        size = self.batch_size // parts
        first = place * self.batch_size + part * size
        return epoch, self._shuffled(epoch)[first : first + size]

    def _shuffled(self, epoch: int) -> Int[Tensor, " n"]:
        if epoch != self._epoch:
            random = generator(self.seed, epoch, torch.device("cpu"), ORDER)
            self._epoch, self._order = epoch, torch.randperm(len(self.labels), generator=random)
        return self._order


def generator(seed: int, step: int, device: torch.device, stream: int = PAIRS) -> torch.Generator:
    """A generator whose numbers depend on (seed, step, stream) alone."""
    return torch.Generator(device).manual_seed(key(seed, step, stream))


def key(seed: int, step: int, stream: int = DROPOUT) -> int:
    """A 63-bit number for (seed, step, stream), scrambled so that neighbours share nothing."""
    return int(np.random.SeedSequence([seed, step, stream]).generate_state(1, np.uint64)[0] >> 1)
