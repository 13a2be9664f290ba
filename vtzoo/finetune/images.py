"""The readable images of a split, and their pixels after the model's own transform."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from vtzoo.base.files import cache_folder
from vtzoo.data.labelled_images import LabelledImages
from vtzoo.data.transform import Preprocess
from vtzoo.errors import VtzooError
from vtzoo.train.pipeline import cache
from vtzoo.train.pipeline.batches import refusal
from vtzoo.train.pipeline.storage import CheckOnly, ModelInput


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedImages:
    """The readable images of a split."""

    images: LabelledImages
    pixels: Tensor  # uint8 (n, 3, height, width)
    fingerprint: str  # of the images


def prepare_images(
    images: LabelledImages, preprocess: Preprocess, *, name: str, skip_bad: bool, pixels: bool = True,
    progress: Callable[[int], None] | None = None,
) -> PreparedImages:  # fmt: skip
    """The readable images, decoded once into the cache; without `pixels` the function only checks that they decode.

    An unreadable image raises a VtzooError; `skip_bad` leaves it out instead.
    """
    storage = ModelInput(preprocess=preprocess)
    try:
        kind = storage if pixels else CheckOnly(storage=storage)
        stored = cache.open_stored(images, kind, name=name, folder=cache_folder(), progress=progress)
    except cache.OverBudgetError as error:
        raise VtzooError(f"there is no room for the decoded images: {error}", "make room, or train on fewer") from error
    kept = np.flatnonzero(stored.extents.any(1).numpy())
    if len(kept) < len(images) and not (skip_bad and len(kept)):
        raise refusal(images, storage, np.setdiff1d(np.arange(len(images)), kept))
    return PreparedImages(images=images.select(kept), pixels=stored.pixels, fingerprint=stored.manifest)
