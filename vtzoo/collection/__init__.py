"""People's own images, out of folders, a CSV, Parquet or the Hub, split for training. No torch."""

import re
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from unicodedata import normalize

import numpy as np

from vtzoo.collection import folders, slices
from vtzoo.collection.found import HELD, TEST, TRAIN, Found
from vtzoo.decoding import Rows, in_threads


@dataclass(frozen=True, kw_only=True, eq=False)
class Labelled:
    """Images, and what is known of them: of a class in float32, 1 is yes, 0 is no and NaN is not known."""

    rows: Rows  # decoded when they are asked for, named for errors
    targets: np.ndarray  # int64 (n,), the one class of each; where there may be several, float32 (n, classes)

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, indices: np.ndarray) -> "Labelled":
        """The images at `indices`, in that order."""
        return Labelled(rows=self.rows.select(indices), targets=self.targets[indices])

    @cached_property
    def manifest(self) -> str:
        """The sha256 of every image as it is stored, encoded, and of what is known of it, in order."""
        digest = sha256()
        contents = in_threads(lambda index: sha256(self.rows.content(index) or b"").digest(), len(self))
        for content, target in zip((one for some in contents for one in some), self.targets, strict=True):
            digest.update(content + target.astype(target.dtype.newbyteorder("<")).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True, eq=False)
class Collection:
    """People's own images, split: what is trained on, what tells when to stop, and what nothing is chosen by."""

    name: str  # of the folder or file, made fit for a model's name
    classes: tuple[str, ...]
    multi: bool  # an image may have several classes: sigmoid, not softmax
    train: Labelled
    held: Labelled  # the validation images: given, or a slice that was drawn from the training images
    drawn: bool  # whether `held` was drawn
    test: Labelled | None
    notes: tuple[str, ...]  # sentences to be read before the training


def read(
    source: str | Path,
    *,
    seed: int = 0,
    image_column: str | None = None,
    label_column: str | None = None,
) -> Collection:
    """The images of a folder, a CSV, Parquet or a Hub data set (ORG/NAME or ORG/NAME@REVISION), split for training.

    A folder has a folder a class, or train/, val/ and test/ with a folder a class each. Where validation images are
    not given, `seed` draws a stratified slice of the training images. The columns are named where they cannot be told.
    """
    path = Path(source)
    found = folders.find(path)
    training = np.flatnonzero(found.parts == TRAIN)
    drawn = not np.any(found.parts == HELD)
    if drawn:
        found.parts[training[slices.draw(found.targets[training], seed)]] = HELD
    train, held, test = (_labelled(found, part) for part in (TRAIN, HELD, TEST))
    return Collection(
        name=_name(path),
        classes=found.classes,
        multi=found.multi,
        train=train,
        held=held,
        drawn=drawn,
        test=test if len(test) else None,
        notes=found.notes,
    )


def _labelled(found: Found, part: int) -> Labelled:
    indices = np.flatnonzero(found.parts == part)
    return Labelled(rows=found.rows.select(indices), targets=found.targets[indices])


def _name(path: Path) -> str:
    """A path's stem in the letters that a model's name may have."""
    plain = normalize("NFKD", path.resolve().stem).encode("ascii", "ignore").decode().lower()
    return re.sub("[^a-z0-9]+", "_", plain).strip("_") or "images"
