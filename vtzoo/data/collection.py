"""People's own images, out of folders, a CSV, Parquet or the Hub, split for training. No torch."""

import dataclasses
import re
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from unicodedata import normalize

import numpy as np

from vtzoo.data import checks, folder, parquet, split, table
from vtzoo.data.decoding import Rows, in_threads
from vtzoo.data.found import HELD, PART_NAMES, TEST, TRAIN, Found, counted, few
from vtzoo.errors import VtzooError

PLAIN_STEMS = ("labels", "metadata", "annotations")  # of files whose folder is called after what the images are
OTHER = {  # what may be given by mistake: what to do with it
    ".zip": "unpack it, and give the folder",
    ".tar": "unpack it, and give the folder",
    ".gz": "unpack it, and give the folder",
    ".tsv": "save it as CSV, with commas",
    ".xlsx": "save it as CSV",
    ".json": "make a CSV of it: path,label",
    ".jsonl": "make a CSV of it: path,label",
}


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

    @cached_property
    def manifest(self) -> str:
        """The sha256 of the classes and of every part's manifest: which data a run saw, and how they were split."""
        parts = [part.manifest if part else "" for part in (self.train, self.held, self.test)]
        return sha256("\n".join([*self.classes, *parts]).encode()).hexdigest()

    def summary(self) -> list[str]:
        """Lines that say what was found and how it was split; each note is one."""
        counts = checks.images_a_class(self.train.targets, len(self.classes))
        least, most = int(counts.argmin()), int(counts.argmax())
        origin = "drawn from the training images, every class in proportion" if self.drawn else "as given"
        unknown = f", {np.isnan(self.train.targets).mean():.0%} of the training labels not known" if self.multi else ""
        return [
            f"{self.name}: {len(self.classes):,} classes, {'several' if self.multi else 'one'} an image{unknown}",
            f"train {counted(len(self.train), 'image')}; the fewest are of {self.classes[least]}, {counts[least]:,}; "
            f"the most of {self.classes[most]}, {counts[most]:,}",
            f"validation {counted(len(self.held), 'image')}, {origin}",
            f"test {counted(len(self.test), 'image')}, not looked at" if self.test else "test images: none given",
            *(f"note: {note}" for note in self.notes),
        ]


def read(
    source: str | Path,
    *,
    learn: bool = True,
    seed: int = 0,
    image_column: str | None = None,
    label_column: str | None = None,
) -> Collection:
    """The images of a folder, a CSV, Parquet or a Hub data set (ORG/NAME or ORG/NAME@REVISION), split for training.

    - A folder has a folder a class, or train/, val/ and test/ with a folder a class each; or Parquet files.
    - A CSV has a column `path` and a column `label`: one class or, with `;` between them, several. Or each class has a
      column: 1, 0, or nothing where it is not known. An empty label is unknown.
    - Parquet and the Hub have a column of images, and one of names, numbers or lists of them.
    - A column `split` says train, val or test. Where an image may have several classes, a column `mask` names those
      that were looked for: all others are unknown.

    The two columns are given where they go by no usual name. `seed` draws the validation images where none are given:
    `slices.draw` says which. What is odd and can be gone on with is a note, and everything else an error.

    To learn from them takes training images of two classes, and images to validate on. With `learn` false they are to
    be measured on alone: any will do, and a part may be empty.
    """
    found = _find(str(source), {"image_column": image_column, "label_column": label_column})
    found, sizes = checks.usable(found, source)
    copies = checks.find_copies(found.rows, sizes)
    notes = checks.mislabelled(found, copies)
    found, copies = checks.separate(found, copies)
    notes = (*found.notes, *notes, *(checks.classes(found, source) if learn else ()))
    given = bool(np.any(found.parts == HELD))
    if not given:
        found, copied = _hold_out(found, copies, seed)
        notes += copied if learn else ()
    if learn and not np.any(found.parts == HELD):
        told = f"no class in {source} has two images that differ: one would be needed to validate on"
        raise VtzooError(told, "add images, or give validation images of your own")
    train, held, test = (_labelled(found, part) for part in (TRAIN, HELD, TEST))
    return Collection(
        name=_name(source),
        classes=found.classes,
        multi=found.multi,
        train=train,
        held=held,
        drawn=not given,
        test=test if len(test) else None,
        notes=notes,
    )


def _find(source: str, columns: dict[str, str | None]) -> Found:
    """What a source holds, by its kind."""
    path = Path(source)
    if path.is_dir():
        return parquet.find_files(path, **columns) if parquet.parquet_files(path) else folder.find(path)
    if not path.exists():
        return parquet.find_hub(source, **columns)
    readers = {".csv": table.find, ".parquet": parquet.find_files}
    if path.suffix.lower() not in readers:
        raise VtzooError(
            f"cannot read {path}: it is no folder, CSV or Parquet file",
            OTHER.get(path.suffix.lower(), "give a folder with a folder a class"),
        )
    return readers[path.suffix.lower()](path, **columns)


def _hold_out(found: Found, copies: np.ndarray, seed: int) -> tuple[Found, tuple[str, ...]]:
    """The same with a slice of the training images for validation; what has copies in train stays there, and a note."""
    training = np.flatnonzero(found.parts == TRAIN)
    free = copies[training] < 0
    parts = found.parts.copy()
    parts[training[split.draw(found.targets[training], free, seed)]] = HELD
    copied = [found.rows.name(int(index)) for index in training[~free]]
    told = f"{counted(len(copied), 'training image')} are the same as others, {few(copied)}: none of them validates"
    return dataclasses.replace(found, parts=parts), (told,) if copied else ()


def _labelled(found: Found, part: int) -> Labelled:
    indices = np.flatnonzero(found.parts == part)
    return Labelled(rows=found.rows.select(indices), targets=found.targets[indices])


def _name(source: str | Path) -> str:
    """A source's stem in the letters that a model's name may have."""
    path = Path(str(source).partition("@")[0] if not Path(source).exists() else source)
    resolved = path.resolve()
    stem = resolved.stem if resolved.is_file() else resolved.name
    if resolved.is_file() and re.split("[-_.]", stem)[0].lower() in (*PART_NAMES, *PLAIN_STEMS):
        stem = resolved.parent.name
    plain = normalize("NFKD", stem).encode("ascii", "ignore").decode().lower()
    return re.sub("[^a-z0-9]+", "_", plain).strip("_") or "images"
