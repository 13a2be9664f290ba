"""What a model is measured on: the images of its own data set or people's, with the model's numbers for classes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vtzoo.data import collection, named_reader
from vtzoo.data import named as datasets
from vtzoo.data.collection import Collection, Labelled
from vtzoo.data.decoding import Rows, Split
from vtzoo.data.found import counted, few
from vtzoo.data.named import Dataset
from vtzoo.errors import VtzooError
from vtzoo.evaluate import matching

OWN = "evaluate on the data set that the model was trained on: vtzoo show MODEL names it"
SPLITS = {"train": "training", "val": "validation", "test": "test"}


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to measure a model on."""

    data: str | None = None  # a folder, a file or ORG/NAME on the Hub; None: the model's own data set, from the Hub
    split: str | None = None  # "train", "val" or "test"; None: the best that there is
    skip_unknown: bool = False  # leave out what the model has no class for
    image_column: str | None = None
    label_column: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """Labelled images, with the model's own numbers for their classes."""

    data: str
    split: str  # "train", "val", "test" or "all"
    described: str  # which images these are, for people
    rows: Rows
    targets: np.ndarray  # int64 (n,), the one class of each; or float32 (n, classes): 1 yes, 0 no, NaN not known
    stored: Labelled | None = None  # the same images as people's data number the classes; None for a named data set
    unknown: int = 0  # images that were left out, as the model lacks their classes
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def multi(self) -> bool:
        """Whether an image may have several classes."""
        return self.targets.ndim == 2

    def as_split(self, names: tuple[str, ...]) -> Split:
        """The images as a split; where each may have several classes, with labels that say nothing."""
        labels = np.zeros(len(self), dtype=np.int64) if self.multi else self.targets
        return Split(labels=labels, label_names=names, rows=self.rows)

    def select(self, indices: np.ndarray) -> "Subject":
        """The images at `indices`, in that order."""
        stored = self.stored.select(indices) if self.stored else None
        return replace(self, rows=self.rows.select(indices), targets=self.targets[indices], stored=stored)


def find(request: Request, model: str, labels: tuple[str, ...], result: Mapping[str, Any], *, multi: bool) -> Subject:
    """The images that a request means, for a model with its labels and its result.json.

    It is the model's own named data set where no other is given, and where what is given has that one's columns and
    classes; any other data are people's own. `multi` says whether the model answers with several classes an image.
    """
    own = named(result)
    if request.data is None:
        if own is None:
            trained_on = f", and it was fine-tuned on {result['dataset']!r}" if "dataset" in result else ""
            told = f"{model} has no data set that can be fetched to evaluate it on{trained_on}"
            raise VtzooError(told, f"give labelled images: vtzoo evaluate --model {model} --data FOLDER")
        return _of_own(own, request, labels)
    if own is not None and _holds(own, Path(request.data)):
        return _of_own(own, request, labels)
    return _of_people(request, model, labels, result, multi=multi)


def named(result: Mapping[str, Any]) -> Dataset | None:
    """The named data set that a model was trained on, by its result.json; None where it was people's own, or none."""
    fine_tuned = "split" in result  # only of people's own images it has to be said which were measured on
    return None if fine_tuned else datasets.DATASETS.get(str(result.get("dataset")))


def require_same_classes(model: tuple[str, ...], data: tuple[str, ...]) -> None:
    """Raise unless the model answers with the data's classes, in the data's order."""
    if len(model) != len(data):
        raise VtzooError(f"the model has {len(model)} classes and the data {len(data)}", OWN)
    for number, (of_model, of_data) in enumerate(zip(model, data, strict=True)):
        if of_model != of_data:
            raise VtzooError(f"class {number} is {of_model!r} to the model and {of_data!r} to the data", OWN)


def _of_own(row: Dataset, request: Request, labels: tuple[str, ...]) -> Subject:
    """The images of a model's own named data set."""
    part = request.split or "test"
    split = named_reader.read(row, part, Path(request.data) if request.data else None)
    require_same_classes(labels, split.label_names)
    place = f" in {request.data}" if request.data else ""
    described = f"the {SPLITS[part]} images of {row.name}{place}"
    return Subject(data=row.name, split=part, described=described, rows=split.rows, targets=split.labels)


def _holds(row: Dataset, folder: Path) -> bool:
    """Whether a folder has a named data set in it: Parquet files of its columns and classes, or its class folders.

    Labels that are plain numbers are taken for those of the data set, where the columns are.
    """
    files = sorted(folder.glob("*.parquet"))
    if not files:
        inside = {path.name for path in folder.glob("*/*/")}
        split = any((folder / name).is_dir() for name in (*row.test_splits, *named_reader.TEST_FOLDERS))
        return split and bool(inside) and inside <= set(datasets.labels(row.name) or ())
    from pyarrow import parquet

    try:
        features = named_reader.library().Features.from_arrow_schema(parquet.read_schema(files[0]))
    except (OSError, NotImplementedError, ValueError):  # damaged, or of types that no named data set has
        return False
    if not set(row.columns) <= features.keys():
        return False
    names, known = getattr(features[row.label_column], "names", None), datasets.labels(row.name)
    return names is None or (tuple(names) == known if known else len(names) == row.classes)


def _of_people(
    request: Request, model: str, labels: tuple[str, ...], result: Mapping[str, Any], *, multi: bool
) -> Subject:
    """People's own images, their classes matched with the model's by name."""
    data, seed = str(request.data), result.get("seed")
    found = collection.read(
        data, learn=False, seed=seed if isinstance(seed, int) else 0, image_column=request.image_column,
        label_column=request.label_column,
    )  # fmt: skip
    if found.multi != multi:
        kinds = {True: "any number of classes", False: "one class"}
        told = f"{model} answers with {kinds[multi]} an image, and {data} has {kinds[found.multi]} an image"
        hint = (
            "give a column for each class: 1, 0, or nothing where it is not known"
            if multi
            else "give one label an image"
        )
        raise VtzooError(told, f"{hint}; or fine-tune on it: vtzoo finetune --model {model} --data {data}")
    split, described, images = _choose(found, request, result)
    numbers = matching.match(found.classes, labels)
    kept, notes = _known(images, found.classes, numbers, labels, request, model)
    left = images.select(kept)
    targets = _several(left.targets, numbers, len(labels)) if multi else numbers[left.targets]
    return Subject(
        data=data, split=split, described=described, rows=left.rows, targets=targets, stored=left,
        unknown=len(images) - len(left), notes=(*found.notes, *notes),
    )  # fmt: skip


def _choose(found: Collection, request: Request, result: Mapping[str, Any]) -> tuple[str, str, Labelled]:
    """The name of the split to measure on, which images these are, for people, and the images.

    Unless one is asked for, it is the test images, else validation images that were given, else all; but of the data
    that the model was fine-tuned on, those that it did not learn from.
    """
    parts = {"train": found.train, "val": found.held, "test": found.test}
    origin = ", a slice of the training images, as fine-tuning draws it" if found.drawn else ""
    if request.split is not None:
        images = parts[request.split]
        if not images:
            told = f"{request.data} has no {SPLITS[request.split]} images"
            raise VtzooError(told, f"leave out --split, or put some into a folder or a split called {request.split}")
        slice_of = origin if request.split == "val" else ""
        return request.split, f"the {SPLITS[request.split]} images of {request.data}{slice_of}", images
    if found.test is not None:
        return "test", f"the test images of {request.data}", found.test
    if found.held and not found.drawn:
        told = f"the validation images of {request.data}, as it has no test images; if it was fine-tuned by them, "
        return "val", f"{told}its weights were chosen by them", found.held
    if result.get("train_manifest") == found.train.manifest:
        told = f"the validation images that were drawn from {request.data} when the model was fine-tuned on the rest"
        return "val", f"{told}: its weights were chosen by them", found.held
    return "all", f"all the images of {request.data}, as it has no test or validation images", _together(found)


def _together(found: Collection) -> Labelled:
    """The training images and the validation images that were drawn from them, in the order of the data."""
    positions = np.concatenate([found.train.rows.positions, found.held.rows.positions])
    order = np.argsort(positions, kind="stable")
    rows = replace(found.train.rows, positions=positions[order])
    return Labelled(rows=rows, targets=np.concatenate([found.train.targets, found.held.targets])[order])


def _known(
    images: Labelled, classes: tuple[str, ...], numbers: np.ndarray, labels: tuple[str, ...], request: Request,
    model: str,
) -> tuple[np.ndarray, list[str]]:  # fmt: skip
    """The indices of the images that have a class of the model's, and notes of the classes that one side lacks.

    Images of other classes are a VtzooError that names these, unless they are to be left out.
    """
    lacks = numbers == matching.UNKNOWN
    shown = collection.checks.images_a_class(images.targets, len(classes)) > 0
    lacking, unseen = (_names(classes, lacks & one) for one in (shown, ~shown))
    strange, notes = _strange(images.targets, lacks), []
    if strange.any():
        if not request.skip_unknown or strange.all():
            raise matching.refusal(
                lacking or classes, len(classes), int(strange.sum()), labels, model=model, data=str(request.data),
                skippable=not strange.all(),
            )  # fmt: skip
        told = f"{counted(int(strange.sum()), 'image')} of classes that the model lacks, {few(lacking)}"
        notes.append(f"{told}: left out, as --skip-unknown says")
    if unseen:
        notes.append(f"the model lacks {few(unseen)}, of which there are no images here")
    absent = np.ones(len(labels), dtype=bool)
    absent[numbers[shown & ~lacks]] = False
    if absent.any():
        told = f"{absent.sum():,} of the model's {counted(len(labels), 'class', 'classes')} have no images here"
        notes.append(f"{told}, {few(_names(labels, absent))}: it may answer with them all the same")
    return np.flatnonzero(~strange), notes


def _strange(targets: np.ndarray, lacks: np.ndarray) -> np.ndarray:
    """Which images have a class that the model lacks, or nothing that is known of the model's classes, bool (n,)."""
    if targets.ndim == 1:
        return lacks[targets]
    known = ~np.isnan(targets)
    return np.any((targets == 1) & lacks, axis=1) | ~np.any(known & ~lacks, axis=1)


def _names(names: tuple[str, ...], chosen: np.ndarray) -> list[str]:
    return [names[number] for number in np.flatnonzero(chosen)]


def _several(targets: np.ndarray, numbers: np.ndarray, classes: int) -> np.ndarray:
    """Targets in the model's columns, float32 (n, classes): NaN where the data say nothing of a class."""
    moved = np.full((len(targets), classes), np.nan, dtype=np.float32)
    there = numbers != matching.UNKNOWN
    moved[:, numbers[there]] = targets[:, there]
    return moved
