"""Real images to verify and calibrate exports on: from the model's dataset if available, else from photographs."""

from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from vtzoo.data import named, named_reader
from vtzoo.data.hub import library
from vtzoo.data.labelled_images import LabelledImages
from vtzoo.data.named import NamedSet
from vtzoo.data.transform import Preprocess, prepare, read_image
from vtzoo.errors import VtzooError
from vtzoo.predict.classifier import Classifier
from vtzoo.zoo.model_folder import ModelFolder

PHOTOGRAPHS = Path(__file__).with_name("photographs")
BUNDLED = "crops of the bundled photographs"
CALIBRATION = 256  # images


@dataclass(frozen=True, kw_only=True, eq=False)
class VerificationImages:
    """Prepared images, their source and, if known, their labels."""

    pixels: np.ndarray  # uint8 (n, 3, height, width)
    source: str  # a phrase
    labels: np.ndarray | None = None  # int64 (n,), indices of the model's classes
    manifest: str | None = None  # of a split with these images


def verification_images(
    entry: ModelFolder, classifier: Classifier, count: int, data: Path | None
) -> VerificationImages:
    """`count` evenly spaced images of the test split; crops of photographs if the split is not available."""
    split = _split(entry, "test", data)
    if split is None:
        return photograph_crops(classifier.preprocess, count)
    chosen = _spaced(split, count)
    same = classifier.labels == split.classes
    return VerificationImages(
        pixels=chosen.pixels(classifier.preprocess), source=f"the test split of {entry.result.dataset}",
        labels=chosen.targets if same else None, manifest=chosen.fingerprint,
    )  # fmt: skip


def calibration_images(entry: ModelFolder, classifier: Classifier, data: Path | None) -> np.ndarray:
    """Evenly spaced images of the training split, or crops of photographs; never images to verify on.

    They are uint8 (n, 3, height, width).
    """
    split = None
    with suppress(VtzooError):  # `data` may hold only the test images
        split = _split(entry, "train", data)
    if split is None:
        return photograph_crops(classifier.preprocess, CALIBRATION, seed=1).pixels
    return _spaced(split, CALIBRATION).pixels(classifier.preprocess)


def photograph_crops(preprocess: Preprocess, count: int, seed: int = 0) -> VerificationImages:
    """`count` random square crops of the bundled photographs, prepared; a seed always gives the same crops."""
    generator = np.random.default_rng(seed)
    crops = []
    for number in range(count):
        photograph = _photographs()[number % len(_photographs())]
        side = round(min(photograph.size) * generator.uniform(0.3, 1))
        left, top = (int(generator.integers(0, whole - side + 1)) for whole in photograph.size)
        crops.append(prepare(photograph.crop((left, top, left + side, top + side)), preprocess))
    return VerificationImages(pixels=np.stack(crops), source=BUNDLED)


def sample_images(size: int, count: int = 32) -> np.ndarray:
    """Crops of the bundled photographs, uint8 (count, 3, size, size), the same every time."""
    return photograph_crops(Preprocess.square(size), count).pixels


@cache
def _photographs() -> list[Image.Image]:
    return [read_image(file) for file in sorted(PHOTOGRAPHS.glob("*.jpg"))]


def _split(entry: ModelFolder, name: str, data: Path | None) -> LabelledImages | None:
    """A split of the data set that the model was trained on: in `data`, which must have it, or cached, or None."""
    stated = entry.result_or_empty.dataset
    if data is not None:
        if stated is None:
            message = f"{entry.name} names no dataset, so {data} cannot be matched to its classes"
            raise VtzooError(message, "leave out --data")
        return named_reader.read(named.named_set(stated), name, data)
    with suppress(VtzooError):  # the user's own dataset, or a partly cached one
        dataset = named.named_set(str(stated))
        return named_reader.read(dataset, name) if _cached(dataset, name) else None
    return None


def _cached(dataset: NamedSet, name: str) -> bool:
    """Whether the `datasets` library has cached a split; an export must not download hundreds of megabytes."""
    folder = Path(library().config.HF_DATASETS_CACHE) / dataset.hub_id.replace("/", "___")
    files = [f"*/*/{dataset.revision or '*'}/*-{split}*.arrow" for split in dataset.splits(name)]
    return all(any(folder.glob(pattern)) for pattern in files)


def _spaced(split: LabelledImages, count: int) -> LabelledImages:
    return split.select(np.unique(np.linspace(0, len(split) - 1, min(count, len(split))).astype(int)))
