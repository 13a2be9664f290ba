"""Real images to verify and calibrate on: of the model's own data set where it is at hand, else of photographs."""

from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from vtzoo.data import named, named_reader
from vtzoo.data.decoding import Split
from vtzoo.data.named import Dataset
from vtzoo.data.transform import Preprocess, prepare, read_image
from vtzoo.errors import VtzooError
from vtzoo.predict.load import Classifier
from vtzoo.zoo.model_folder import Entry

PHOTOGRAPHS = Path(__file__).with_name("photographs")
BUNDLED = "crops of the bundled photographs"
CALIBRATION = 256  # images


@dataclass(frozen=True, kw_only=True, eq=False)
class Pictures:
    """Images as a model takes them, and what is known of them."""

    pixels: np.ndarray  # uint8 (n, 3, height, width)
    source: str  # in words
    labels: np.ndarray | None = None  # int64 (n,), in the model's classes
    manifest: str | None = None  # as of a split of these images


def to_verify_on(entry: Entry, classifier: Classifier, count: int, data: Path | None) -> Pictures:
    """So many images of the test split, evenly spaced in it; crops of photographs where it is not at hand."""
    split = _split(entry, "test", data)
    if split is None:
        return sample(classifier.preprocess, count)
    chosen = _spaced(split, count)
    same = classifier.labels == split.label_names
    return Pictures(
        pixels=_prepared(chosen, classifier.preprocess),
        source=f"the test split of {entry.result['dataset']}",
        labels=chosen.labels if same else None,
        manifest=chosen.manifest,
    )


def to_calibrate_on(entry: Entry, classifier: Classifier, data: Path | None) -> np.ndarray:
    """Images of the training split, evenly spaced in it, or other crops of photographs; never those to verify on."""
    split = None
    with suppress(VtzooError):  # somebody's folder may hold the test images alone
        split = _split(entry, "train", data)
    if split is None:
        return sample(classifier.preprocess, CALIBRATION, seed=1).pixels
    return _prepared(_spaced(split, CALIBRATION), classifier.preprocess)


def sample(preprocess: Preprocess, count: int, seed: int = 0) -> Pictures:
    """So many square crops of the bundled photographs, the same ones for a seed, as a model takes them."""
    generator = np.random.default_rng(seed)
    crops = []
    for number in range(count):
        photograph = _photographs()[number % len(_photographs())]
        side = round(min(photograph.size) * generator.uniform(0.3, 1))
        left, top = (int(generator.integers(0, whole - side + 1)) for whole in photograph.size)
        crops.append(prepare(photograph.crop((left, top, left + side, top + side)), preprocess))
    return Pictures(pixels=np.stack(crops), source=BUNDLED)


def sample_images(size: int, count: int = 32) -> np.ndarray:
    """Crops of the bundled photographs, uint8 (count, 3, size, size), the same every time."""
    return sample(Preprocess(size=size, interpolation="bicubic", crop=1.0), count).pixels


@cache
def _photographs() -> list[Image.Image]:
    return [read_image(file) for file in sorted(PHOTOGRAPHS.glob("*.jpg"))]


def _split(entry: Entry, name: str, data: Path | None) -> Split | None:
    """A split of the data set that the model was trained on: in `data`, which must have it, or cached, or None."""
    stated = entry.result.get("dataset") if (entry.folder / "result.json").exists() else None
    if data is not None:
        if stated is None:
            raise VtzooError(
                f"{entry.name} names no data set, so its classes cannot be told in {data}", "leave out --data"
            )
        return named_reader.read(named.find(stated), name, data)
    with suppress(VtzooError):  # a data set of somebody's own, or one that is cached in part
        dataset = named.find(str(stated))
        return named_reader.read(dataset, name) if _cached(dataset, name) else None
    return None


def _cached(dataset: Dataset, name: str) -> bool:
    """Whether the `datasets` library has a split already: an export is no reason to download hundreds of megabytes."""
    folder = Path(named_reader.library().config.HF_DATASETS_CACHE) / dataset.hub_id.replace("/", "___")
    parts = dataset.splits(name)
    return all(any(folder.glob(f"*/*/{dataset.revision or '*'}/*-{part}*.arrow")) for part in parts)


def _spaced(split: Split, count: int) -> Split:
    return split.select(np.unique(np.linspace(0, len(split) - 1, min(count, len(split))).astype(int)))


def _prepared(split: Split, preprocess: Preprocess) -> np.ndarray:
    return np.stack([prepare(image, preprocess) for image in split.images()])
