"""How often a classifier is right, as its card says it. Works on either backend; no torch."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from vtzoo.data.decoding import Split
from vtzoo.errors import VtzooError
from vtzoo.evaluate.images import Request, require_same_classes
from vtzoo.evaluate.predictions import ask
from vtzoo.evaluate.run import of_classifier
from vtzoo.evaluate.single_label import accuracies
from vtzoo.hub import fetch
from vtzoo.predict.load import Classifier, load

TIES = 5e-4  # of the images: those whose two best classes all but tie fall either way on another kind of CPU or GPU
MEASURED = {"test": "test", "validation": "val"}  # what a fine-tuned model's result.json calls its split: our name


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """A classifier's accuracy on a split, and which images gave it."""

    top1: float  # fraction
    top5: float  # fraction; 1.0 with five classes or fewer
    images: int
    manifest: str  # sha256 of the images and labels in order
    seconds: float  # reading, decoding and preprocessing included

    def as_json(self) -> dict[str, float | int | str]:
        """The values under their own names, and the speed in images per second."""
        return {**asdict(self), "images_per_second": self.images / self.seconds}


def evaluate(
    classifier: Classifier, split: Split, batch_size: int = 256, progress: Callable[[int], None] | None = None
) -> Metrics:
    """The classifier's top-1 and top-5 on every image of the split, preprocessed as the model's folder says.

    `progress` is called with the number of images after each batch. An image that cannot be read is a VtzooError.
    """
    require_same_classes(classifier.labels, split.label_names)
    answers = ask(classifier, split, batch_size=batch_size, progress=progress)
    if answers.errors:
        raise next(iter(answers.errors.values()))
    top1, top5 = accuracies(split.labels, answers.probabilities)
    return Metrics(top1=top1, top5=top5, images=len(split), manifest=answers.manifest, seconds=answers.seconds)


def reproduce(
    name: str, data: Path | None = None, *, backend: str = "auto", device: str = "auto",
    progress: Callable[[int], None] | None = None,
) -> dict[str, float | int | str | bool]:  # fmt: skip
    """A model's accuracy measured again: `top1` or `map`, `stated` (what its card says), `reproduced` (whether they
    are one).

    They are where the images are the same ones, by the manifest, and the fractions differ by TIES at most. `name` is a
    model of the zoo, a model folder or a model on the Hub; `data` is where the images are read from, None for the Hub.
    """
    entry = fetch.find(name, use=backend)
    measure = next((key for key in ("top1", "map") if key in entry.result), None)
    if measure is None:
        raise VtzooError(f"the result.json of {name} states no accuracy to reproduce", "vtzoo evaluate measures one")
    request = Request(data=None if data is None else str(data), split=MEASURED.get(entry.result.get("split", "")))
    classifier = load(entry, backend=backend, device=device)
    found, stated = of_classifier(name, classifier, request, entry.result, progress).summary(), entry.result[measure]
    same = found["manifest"] == entry.result.get("manifest") and abs(float(found[measure]) - stated) <= TIES
    return {**found, "stated": stated, "reproduced": same}
