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
from vtzoo.data.labelled_images import DecodingPass, LabelledImages
from vtzoo.data.named import RGB
from vtzoo.errors import VtzooError
from vtzoo.train.augment import mix
from vtzoo.train.augment.rand_augment import DRAWS_PER_OPERATION, JITTER_DRAWS, color_jitter, rand_augment
from vtzoo.train.pipeline import cache, memory_budget
from vtzoo.train.pipeline.crops import Crops
from vtzoo.train.pipeline.pixels import Pixels, to_device
from vtzoo.train.pipeline.storage import CenterSquare, CheckOnly, Storage
from vtzoo.train.pipeline.workers import Decoder, Request, Workers
from vtzoo.zoo.recipe import Augmentation, Recipe

WEIGHTS, DROPOUT, SHUFFLE = range(3)  # streams of `key`, a purpose each

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Normalized images and their targets: soft labels, or multi-label targets with NaN for unknown labels."""

    images: Float[Tensor, "b 3 h w"]
    targets: Float[Tensor, "b k"]
    chosen: Int[Tensor, " b"]  # the images' numbers in the data set, on the device
    epoch: int  # from 0


class Order:
    """The images of every step's batch, a function of (seed, step) alone.

    Each epoch has its own shuffled order. The images after its last whole batch are left out; a set smaller than a
    batch is a single batch.
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
        """The endless series of later parts, for a process that takes `turns` adjacent parts of every batch."""
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
    """The batch of every step, a function of (seed, step) alone: a run can start at any step.

    `source` gives the pixels of n images. `labels` are class indices (n,) or multi-label targets (n, classes). A
    process takes `accumulate` parts of each batch, one after another; workers prepare the next.
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
        """The augmented batch of a step, or one of its equal `parts`; steps and parts count from 0."""
        epoch, chosen = self._order.chosen(step, part, parts)
        numbers = to_device(chosen, self.device)
        uniform = self.crops.uniform(self.seed, epoch, numbers)
        if isinstance(self._source, Workers):
            # `ahead` must not refer to `self`: the cycle would keep the processes alive until a garbage collection.
            ahead = starmap(Request.of, self._order.after(step, part, parts, self._accumulate))
            images = to_device(self._source.take(Request.of(epoch, chosen), ahead), self.device)
            images = self.crops.finish(images, uniform)
        else:
            images = self.crops.of_pixels(self._source, chosen, uniform)
        images = self._color_augmented(images, chosen, epoch)
        return self._augmented(images, uniform, numbers, epoch)

    def check_parts(self, parts: int) -> None:
        """Raise a VtzooError for unequal parts, and for parts that would separate a pair of images to be mixed."""
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

    def _color_augmented(
        self, images: UInt8[Tensor, "b 3 h w"], chosen: Int[Tensor, " b"], epoch: int
    ) -> UInt8[Tensor, "b 3 h w"]:
        """The images after RandAugment and color jitter, which take their draws on the CPU."""
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
        """The batch of cropped images, normalized, erased and mixed, and targets; `numbers` are on the device."""
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
    """The facts about training images that a run records."""

    manifest: str  # of the readable images
    images: int  # readable
    skipped: int  # unreadable


def open_batches(
    recipe: Recipe, images: LabelledImages, *, mean: RGB, std: RGB, flip: bool, seed: int, device: torch.device,
    workers: int | None = None, accumulate: int = 1, skip_bad: bool = False, folder: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[Batches, Facts]:  # fmt: skip
    """A recipe's batches of a training split, decoded once, and the facts about its images.

    Decoded images are kept in a cache in `folder` (by default the user's cache), and on the device within its memory
    budget. With `workers`, and for images that exceed the budgets, processes decode in every epoch. Unreadable images
    are a VtzooError; `skip_bad` leaves them out. `progress` is called with the number of newly decoded images.
    """
    if workers is not None and workers < 1:
        raise VtzooError(f"{workers} processes cannot decode images", "--workers takes 1 or more")
    crops = Crops.of(recipe.augmentation, size=recipe.model.image_size, flip=flip)
    open_as = partial(cache.open_stored, images, name=images.name, folder=folder or cache_folder(), progress=progress)
    try:
        stored = open_as(CheckOnly(storage=crops.storage) if workers else crops.storage)
    except cache.OverBudgetError as reason:
        workers = max(1, cores() // memory_budget.processes())
        # The text alone: a record with the error would keep this frame, and so the processes, alive.
        log.warning("%s; they are decoded in every epoch, as with --workers %d", str(reason), workers)
        stored = open_as(CheckOnly(storage=crops.storage))
    kept = np.flatnonzero(stored.extents.any(1).numpy())
    if len(kept) < len(images) and not (skip_bad and len(kept)):
        raise refusal(images, crops.storage, np.setdiff1d(np.arange(len(images)), kept))
    if workers:
        source = Workers(Decoder(images.encoded.select(kept), crops, seed), workers, device)
    else:
        source = Pixels.fitting(stored.pixels, stored.extents[kept].long(), device, copy=stored.mapped)
    batches = Batches(
        source, images.targets[kept], crops=crops, augmentation=recipe.augmentation,
        batch_size=recipe.optimizer.batch_size, classes=len(images.classes), mean=mean, std=std, seed=seed,
        device=device, accumulate=accumulate,
    )  # fmt: skip
    return batches, Facts(manifest=stored.manifest, images=len(kept), skipped=len(images) - len(kept))


def check_test_images(images: LabelledImages, size: int, *, name: str, folder: Path | None = None) -> None:
    """Raise a VtzooError for an unreadable test image: an accuracy counts all of them.

    The cache remembers a split that passed.
    """
    storage = CenterSquare(side=size)
    stored = cache.open_stored(images, CheckOnly(storage=storage), name=f"{name}-test", folder=folder or cache_folder())
    if len(unreadable := np.flatnonzero(~stored.extents.any(1).numpy())):
        raise refusal(images, storage, unreadable, skippable=False)


def refusal(images: LabelledImages, storage: Storage, unreadable: np.ndarray, *, skippable: bool = True) -> VtzooError:
    """The error for unreadable images: the name of the first, and their number."""
    first = DecodingPass(images=images.select(unreadable[:1]), keep=storage.pixels)
    list(first)
    reason = first.errors[0].message if first.errors else f"unreadable image {images.encoded.name(int(unreadable[0]))}"
    hint = "mend or remove them" + (
        "; --skip-bad leaves them out" if skippable and len(unreadable) < len(images) else ""
    )
    return VtzooError(f"{reason}; {len(unreadable)} of {len(images)} images cannot be read", hint)


def generator(seed: int, step: int, stream: int) -> torch.Generator:
    """A generator on the CPU whose numbers depend on (seed, step, stream) alone."""
    return torch.Generator().manual_seed(key(seed, step, stream))


def key(seed: int, step: int, stream: int) -> int:
    """A 63-bit number for (seed, step, stream), scrambled so that neighbours share nothing."""
    return int(np.random.SeedSequence([seed, step, stream]).generate_state(1, np.uint64)[0] >> 1)
