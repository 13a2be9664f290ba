"""Batches for training: decoded images augmented as tensors on the training device."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import starmap
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from vtzoo.base.files import cache_folder
from vtzoo.base.machine import cores
from vtzoo.data import named
from vtzoo.data.decoding import Pass, Split
from vtzoo.errors import VtzooError
from vtzoo.train.augment import mix
from vtzoo.train.augment.rand_augment import DRAWS_PER_OPERATION, JITTER_DRAWS, color_jitter, rand_augment
from vtzoo.train.pipeline import cache, memory_budget
from vtzoo.train.pipeline.crops import Crops
from vtzoo.train.pipeline.pixels import Pixels, to_device
from vtzoo.train.pipeline.storage import Form, Nothing, Square
from vtzoo.train.pipeline.workers import Decoder, Request, Workers
from vtzoo.zoo.recipe import Augmentation, Recipe

WEIGHTS, DROPOUT, SHUFFLE = range(3)  # streams of `key`: what a number is drawn for

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Normalized images (b, 3, size, size) and targets (b, classes): soft, or of several classes, NaN where unknown."""

    images: Float[Tensor, "b 3 h w"]
    targets: Float[Tensor, "b k"]
    chosen: Int[Tensor, " b"]  # which images of the data set these are, on the device
    epoch: int  # from 0


class Order:
    """Which images the batch of every step shows, as (seed, step) alone decide.

    The order is shuffled anew each epoch; images left over after the last whole batch wait for another epoch, and a
    set smaller than one batch is one batch.
    """

    def __init__(self, images: int, batch_size: int, seed: int) -> None:
        self.images, self.seed = images, seed
        self.batch_size = min(batch_size, images)
        self.steps_per_epoch = images // self.batch_size
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.long)

    def chosen(self, step: int, part: int, parts: int) -> tuple[int, Int[Tensor, " b"]]:
        """The epoch of a step, and the numbers of the images in a part of its batch, on the CPU."""
        epoch, place = divmod(step, self.steps_per_epoch)
        size = self.batch_size // parts
        first = place * self.batch_size + part * size
        return epoch, self._shuffled(epoch)[first : first + size]

    def after(self, step: int, part: int, parts: int, turns: int) -> Iterator[tuple[int, Int[Tensor, " b"]]]:
        """What follows for a process that takes `turns` neighbouring parts of every batch, without end."""
        first = part - part % turns
        while True:
            part += 1
            if part == first + turns:
                step, part = step + 1, first
            yield self.chosen(step, part, parts)

    def _shuffled(self, epoch: int) -> Int[Tensor, " n"]:
        if epoch != self._epoch:
            random = generator(self.seed, epoch, SHUFFLE)
            self._epoch, self._order = epoch, torch.randperm(self.images, generator=random)
        return self._order


class Batches:
    """The batch of every step, each a function of (seed, step) alone: a run can start at any step.

    `source` gives the pixels of n images, `labels` is (n,), or (n, classes) where an image may have several classes.
    A process that takes `accumulate` parts of each batch in turn says so: workers prepare what is next.
    """

    def __init__(
        self, source: Pixels | Workers, labels: np.ndarray, *, crops: Crops, augmentation: Augmentation,
        batch_size: int, classes: int, mean: tuple[float, ...], std: tuple[float, ...], seed: int,
        device: torch.device, accumulate: int = 1,
    ) -> None:  # fmt: skip
        self.labels = torch.from_numpy(labels).to(device)
        self._order = Order(len(labels), batch_size, seed)
        self.batch_size, self.steps_per_epoch = self._order.batch_size, self._order.steps_per_epoch
        self.classes, self.mean, self.std, self.device = classes, mean, std, device
        self.crops, self.augmentation, self.seed = crops, augmentation, seed
        self._source, self._accumulate = source, accumulate

    def batch(self, step: int, part: int = 0, parts: int = 1) -> Batch:
        """The augmented batch of a step, or one of the equal parts that make it up; steps and parts count from 0."""
        epoch, chosen = self._order.chosen(step, part, parts)
        numbers = to_device(chosen, self.device)
        uniform = self.crops.uniform(self.seed, epoch, numbers)
        if isinstance(self._source, Workers):
            # Of the order alone: were `self` in it, processes would not end before a garbage collection, and slowly.
            ahead = starmap(Request.of, self._order.after(step, part, parts, self._accumulate))
            images = to_device(self._source.take(Request.of(epoch, chosen), ahead), self.device)
            images = self.crops.finish(images, uniform)
        else:
            images = self.crops.of_pixels(self._source, chosen, uniform)
        images = self._recoloured(images, chosen, epoch)
        return self._augmented(images, uniform, numbers, epoch)

    def check_parts(self, parts: int) -> None:
        """Refuse to cut batches into parts that are not equal, or that would separate a couple to be mixed."""
        size, rest = divmod(self.batch_size, parts)
        hint = "the number of processes times --accumulate must divide the batch size"
        if rest:
            raise VtzooError(f"a batch of {self.batch_size} images cannot be cut into {parts} equal parts", hint)
        if parts > 1 and size % 2 and self._mixes:
            raise VtzooError(
                f"{parts} parts of a batch of {self.batch_size} images have {size} each, which mixing cannot pair",
                f"{hint} into parts of an even number",
            )

    @property
    def _mixes(self) -> bool:
        how = self.augmentation
        return bool(how.mix_probability and (how.mixup or how.cutmix))

    def _recoloured(
        self, images: UInt8[Tensor, "b 3 h w"], chosen: Int[Tensor, " b"], epoch: int
    ) -> UInt8[Tensor, "b 3 h w"]:
        """The images after RandAugment and colour jitter, whose draws are wanted on the CPU."""
        how = self.augmentation
        columns = DRAWS_PER_OPERATION * how.rand_augment.operations if how.rand_augment else 0
        if not columns and not how.color_jitter:
            return images
        uniform = mix.draws(self.seed, epoch, chosen, mix.COLOR, columns + JITTER_DRAWS)
        if how.rand_augment:
            red, green, blue = (round(255 * level) for level in self.mean)
            images = rand_augment(images, uniform, **vars(how.rand_augment), fill=(red, green, blue))
        if how.color_jitter:
            images = color_jitter(images, uniform[:, columns:], how.color_jitter)
        return images

    def _augmented(
        self, crops: UInt8[Tensor, "b 3 h w"], uniform: Float[Tensor, "b d"], numbers: Int[Tensor, " b"], epoch: int
    ) -> Batch:
        """The batch of the images with these numbers, which are on the device as all else is."""
        how = self.augmentation
        images = mix.normalize(crops, self.mean, self.std)
        if how.erasing:
            images = mix.erase(images, uniform, how.erasing, how.erasing_noise)
        targets = self.labels[numbers]
        if targets.dim() == 1:
            targets = mix.smooth(targets, self.classes, how.label_smoothing)
        if self._mixes:
            images, targets = mix.mix(
                images, targets, mix.draws(self.seed, epoch, numbers, mix.MIX, 5),
                mixup=how.mixup, cutmix=how.cutmix, probability=how.mix_probability,
            )  # fmt: skip
        return Batch(images=images, targets=targets, chosen=numbers, epoch=epoch)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a run records of its training images."""

    manifest: str  # of those that can be read
    images: int  # that can be read
    skipped: int  # that cannot


def open_batches(
    recipe: Recipe, dataset: named.Dataset, split: Split, *, seed: int, device: torch.device,
    workers: int | None = None, accumulate: int = 1, skip_bad: bool = False, folder: Path | None = None,
    progress: Callable[[int], None] | None = None, targets: np.ndarray | None = None,
) -> tuple[Batches, Facts]:  # fmt: skip
    """A recipe's batches of a training split, and facts about it: decoded once, and kept where there is room for that.

    On the device, or else on the disk, in `folder` or the user's cache; where neither has room, and with `workers`,
    that many processes decode in every epoch. Unreadable images are a VtzooError, but with `skip_bad` they are left
    out. `progress` is called with every further number of images that are decoded now. `targets` (n, classes) take the
    place of the labels where an image may have several classes.
    """
    if workers is not None and workers < 1:
        raise VtzooError(f"{workers} processes cannot decode images", "--workers takes 1 or more")
    crops = Crops.of(recipe.augmentation, size=recipe.model.image_size, flip=dataset.flip)
    find = partial(cache.open_stored, split, name=dataset.name, folder=folder or cache_folder(), progress=progress)
    try:
        stored = find(Nothing(form=crops.form) if workers else crops.form)
    except cache.NoRoomError as reason:
        workers = max(1, cores() // memory_budget.processes())
        log.warning("%s; they are decoded in every epoch, as with --workers %d", reason, workers)
        stored = find(Nothing(form=crops.form))
    kept = np.flatnonzero(stored.extents.any(1).numpy())
    if len(kept) < len(split) and not (skip_bad and len(kept)):
        raise refusal(split, crops.form, np.setdiff1d(np.arange(len(split)), kept))
    if workers:
        source = Workers(Decoder(split.rows.select(kept), crops, seed), workers, device)
    else:
        source = Pixels.fitting(stored.pixels, stored.extents[kept].long(), device, copy=stored.mapped)
    batches = Batches(
        source, (split.labels if targets is None else targets)[kept], crops=crops, augmentation=recipe.augmentation,
        batch_size=recipe.optimizer.batch_size, classes=dataset.classes, mean=dataset.mean, std=dataset.std, seed=seed,
        device=device, accumulate=accumulate,
    )  # fmt: skip
    return batches, Facts(manifest=stored.manifest, images=len(kept), skipped=len(split) - len(kept))


def check_test_images(split: Split, size: int, *, name: str, folder: Path | None = None) -> None:
    """Refuse a split of test images of which one cannot be read: an accuracy is that of them all.

    What was checked once is remembered in the cache.
    """
    form = Square(side=size)
    stored = cache.open_stored(split, Nothing(form=form), name=f"{name}-test", folder=folder or cache_folder())
    if len(unreadable := np.flatnonzero(~stored.extents.any(1).numpy())):
        raise refusal(split, form, unreadable, skippable=False)


def refusal(split: Split, form: Form, unreadable: np.ndarray, *, skippable: bool = True) -> VtzooError:
    """The error for images that cannot be read: the first by its name, and how many they are."""
    first = Pass(split=split.select(unreadable[:1]), keep=form.pixels)
    list(first)
    reason = first.errors[0].message if first.errors else f"unreadable image {split.rows.name(int(unreadable[0]))}"
    hint = "mend or remove them" + (
        "; --skip-bad leaves them out" if skippable and len(unreadable) < len(split) else ""
    )
    return VtzooError(f"{reason}; {len(unreadable)} of {len(split)} images cannot be read", hint)


def generator(seed: int, step: int, stream: int) -> torch.Generator:
    """A generator on the CPU whose numbers depend on (seed, step, stream) alone."""
    return torch.Generator().manual_seed(key(seed, step, stream))


def key(seed: int, step: int, stream: int) -> int:
    """A 63-bit number for (seed, step, stream), scrambled so that neighbours share nothing."""
    return int(np.random.SeedSequence([seed, step, stream]).generate_state(1, np.uint64)[0] >> 1)
