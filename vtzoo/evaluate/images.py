"""The images to measure a model on: its own data set or the user's images, with targets in the model's numbers."""

from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path

import numpy as np

from vtzoo.base.wording import counted, few
from vtzoo.data import named as datasets
from vtzoo.data import named_reader
from vtzoo.data.hub import library
from vtzoo.data.labelled_images import LabelledImages
from vtzoo.data.named import NamedSet
from vtzoo.data.read import read_images
from vtzoo.data.split import images_per_class
from vtzoo.errors import VtzooError
from vtzoo.evaluate import matching
from vtzoo.zoo.result import Result

OWN = "evaluate on the data set that the model was trained on: vtzoo show MODEL names it"


@dataclass(frozen=True, kw_only=True)
class Request:
    """The choice of images to measure a model on."""

    data: str | None = None  # a folder, a file or ORG/NAME on the Hub; None: the model's own data set, from the Hub
    split: str | None = None  # "train", "val" or "test"; None: test, else val, else all
    skip_unknown: bool = False  # leave out images of classes that the model lacks
    image_column: str | None = None
    label_column: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class EvaluationImages:
    """Labelled images, and their targets with a model's class indices."""

    images: LabelledImages  # with the data's own class indices
    targets: np.ndarray  # int64 (n,); or float32 (n, classes of the model): 1 yes, 0 no, NaN unknown
    data: str
    split: str  # "train", "val", "test" or "all"
    described: str  # the choice of images, as text
    unknown: int = 0  # images left out because the model lacks their classes

    def __len__(self) -> int:
        return len(self.images)

    def select(self, indices: np.ndarray) -> "EvaluationImages":
        """The images at `indices`, in that order."""
        return replace(self, images=self.images.select(indices), targets=self.targets[indices])


def images_for(
    request: Request, model: str, labels: tuple[str, ...], result: Result, *, multi_label: bool
) -> EvaluationImages:
    """The requested images, for a model with its labels and its result.json.

    A request without data, or for data with the columns and classes of the model's own named data set, gives images of
    that set; any other request gives the user's images. `multi_label` says whether the model is multi-label.
    """
    own = named(result)
    if own is not None and (request.data is None or _holds(own, Path(request.data))):
        return _own_images(own, request, labels)
    if request.data is None:
        trained_on = f", and it was fine-tuned on {result.dataset!r}" if result.dataset else ""
        message = f"{model} has no data set that can be fetched to evaluate it on{trained_on}"
        raise VtzooError(message, f"give labelled images: vtzoo evaluate --model {model} --data FOLDER")
    return _user_images(request, model, labels, result, multi_label=multi_label)


def named(result: Result) -> NamedSet | None:
    """The named data set that a model was trained on, by its result.json; None for the user's images or no images."""
    return None if result.fine_tuned else datasets.DATASETS.get(str(result.dataset))


def require_same_classes(model: tuple[str, ...], data: tuple[str, ...]) -> None:
    """Raise unless the model has the data's classes, in the data's order."""
    if len(model) != len(data):
        raise VtzooError(f"the model has {len(model)} classes and the data {len(data)}", OWN)
    for number, (of_model, of_data) in enumerate(zip(model, data, strict=True)):
        if of_model != of_data:
            raise VtzooError(f"class {number} is {of_model!r} to the model and {of_data!r} to the data", OWN)


def _own_images(row: NamedSet, request: Request, labels: tuple[str, ...]) -> EvaluationImages:
    """The images of a model's own named data set."""
    split = request.split or "test"
    images = named_reader.read(row, split, Path(request.data) if request.data else None)
    require_same_classes(labels, images.classes)
    place = f" in {request.data}" if request.data else ""
    described = f"the {split} split of {row.name}{place}"
    return EvaluationImages(images=images, targets=images.targets, data=row.name, split=split, described=described)


def _holds(row: NamedSet, folder: Path) -> bool:
    """Whether a folder contains a named data set: Parquet files with its columns and classes, or its class folders.

    Labels that are plain numbers are assumed to be the data set's if the columns match.
    """
    files = sorted(folder.glob("*.parquet"))
    if not files:
        inside = {path.name for path in folder.glob("*/*/")}
        split = any((folder / name).is_dir() for name in (*row.test_splits, *named_reader.TEST_FOLDERS))
        return split and bool(inside) and inside <= set(datasets.labels(row.name) or ())
    from pyarrow import parquet

    try:
        features = library().Features.from_arrow_schema(parquet.read_schema(files[0]))
    except (OSError, NotImplementedError, ValueError):  # damaged, or with types that no named data set has
        return False
    if not set(row.columns) <= features.keys():
        return False
    names, known = getattr(features[row.label_column], "names", None), datasets.labels(row.name)
    return names is None or (tuple(names) == known if known else len(names) == row.classes)


def _user_images(
    request: Request, model: str, labels: tuple[str, ...], result: Result, *, multi_label: bool
) -> EvaluationImages:
    """The user's images, with their classes matched with the model's by name."""
    data, columns = str(request.data), {"image_column": request.image_column, "label_column": request.label_column}
    read = read_images(data, learn=False, seed=result.seed or 0, **columns)
    if read.multi_label != multi_label:
        kinds = {True: "any number of classes", False: "one class"}
        message = f"{model} predicts {kinds[multi_label]} per image, and {data} has {kinds[not multi_label]} per image"
        hint = "give a column per class: 1, 0, or nothing if unknown" if multi_label else "give one label per image"
        raise VtzooError(message, f"{hint}; or fine-tune on it: vtzoo finetune --model {model} --data {data}")
    split, described, images = _choose(read, request, result)
    numbers = matching.match(images.classes, labels)
    kept, notes = _known(images, numbers, labels, request, model)
    left = images.select(kept).noting(*notes)
    targets = _model_columns(left.targets, numbers, len(labels)) if multi_label else numbers[left.targets]
    return EvaluationImages(
        images=left, targets=targets, data=data, split=split, described=described, unknown=len(images) - len(left)
    )


def _choose(images: LabelledImages, request: Request, result: Result) -> tuple[str, str, LabelledImages]:
    """The name of the split to measure on, its description, and its images.

    The default is test, else the given val, else all images. Of the data that the model was fine-tuned on, the default
    without test images is the val that fine-tuning drew.
    """
    data = request.data
    if request.split is not None:
        chosen = images.split(request.split)
        if not len(chosen):
            hint = f"leave out --split, or put images into a folder or a split called {request.split}"
            raise VtzooError(f"{data} has no {request.split} split", hint)
        drawn = images.val_drawn and request.split == "val"
        origin = ", drawn from the training images as fine-tuning draws it" if drawn else ""
        return request.split, f"the {request.split} split of {data}{origin}", chosen
    if images.test:
        return "test", f"the test split of {data}", images.test
    if images.val and not images.val_drawn:
        described = f"the val split of {data}, as it has no test split; a model that was fine-tuned with it"
        return "val", f"{described} has weights chosen by it", images.val
    if images.val and images.train.is_recorded(result.train_manifest):
        return "val", f"the val split that fine-tuning drew from {data}: the weights were chosen by it", images.val
    return "all", f"all the images of {data}, as it has no test or val split", images


def _known(
    images: LabelledImages, numbers: np.ndarray, labels: tuple[str, ...], request: Request, model: str
) -> tuple[np.ndarray, list[str]]:
    """The indices of the images whose classes the model has, and notes of the classes that one side lacks.

    Images of other classes are a VtzooError with the names of the classes, unless the request skips them.
    """
    classes, lacks = images.classes, numbers == matching.UNKNOWN
    shown = images_per_class(images.targets, len(classes)) > 0
    lacking, unseen = (list(compress(classes, lacks & mask)) for mask in (shown, ~shown))
    strange, notes = _strange(images.targets, lacks), []
    if strange.any():
        if not request.skip_unknown or strange.all():
            raise matching.refusal(
                lacking or classes, len(classes), int(strange.sum()), labels, model=model, data=str(request.data),
                skippable=not strange.all(),
            )  # fmt: skip
        message = f"{counted(int(strange.sum()), 'image')} of classes that the model lacks, {few(lacking)}"
        notes.append(f"{message}: left out, as --skip-unknown says")
    if unseen:
        notes.append(f"the model lacks {few(unseen)}, of which there are no images here")
    absent = np.ones(len(labels), dtype=bool)
    absent[numbers[shown & ~lacks]] = False
    if absent.any():
        message = f"{absent.sum():,} of the model's {counted(len(labels), 'class', 'classes')} have no images here"
        notes.append(f"{message}, {few(list(compress(labels, absent)))}: the model may still predict them")
    return np.flatnonzero(~strange), notes


def _strange(targets: np.ndarray, lacks: np.ndarray) -> np.ndarray:
    """Whether an image has a class that the model lacks, or no known label of the model's classes, bool (n,)."""
    if targets.ndim == 1:
        return lacks[targets]
    known = ~np.isnan(targets)
    return np.any((targets == 1) & lacks, axis=1) | ~np.any(known & ~lacks, axis=1)


def _model_columns(targets: np.ndarray, numbers: np.ndarray, classes: int) -> np.ndarray:
    """The targets in the model's columns, float32 (n, classes): NaN for a class that the data lack."""
    moved = np.full((len(targets), classes), np.nan, dtype=np.float32)
    known = numbers != matching.UNKNOWN
    moved[:, numbers[known]] = targets[:, known]
    return moved
