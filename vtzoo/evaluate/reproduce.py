"""Reproduces the accuracy on a card, on either backend. No torch."""

from collections.abc import Callable
from pathlib import Path

from vtzoo.data.split import SPLIT_NAMES
from vtzoo.errors import VtzooError
from vtzoo.evaluate.images import Request
from vtzoo.evaluate.run import of_classifier
from vtzoo.hub import fetch
from vtzoo.predict.load import load

TIES = 5e-4  # of the images: near ties of the two best classes may fall either way on another kind of CPU or GPU


def reproduce(
    name: str, data: Path | None = None, *, backend: str = "auto", device: str = "auto",
    progress: Callable[[int], None] | None = None,
) -> dict[str, float | int | str | bool]:  # fmt: skip
    """A model's accuracy measured again, `top1` or `map`, with `stated` (the card's) and `reproduced` (whether equal).

    Accuracies are equal if the images are the same by the manifest, and the fractions differ by at most TIES. `name` is
    a model of the zoo, a model folder or a model on the Hub; `data` is the folder of the images, None for the Hub.
    """
    entry = fetch.model_folder(name, use=backend)
    result, measure = entry.result, entry.result.metrics[0]
    if (stated := getattr(result, measure)) is None:
        raise VtzooError(f"the result.json of {name} states no accuracy to reproduce", "vtzoo evaluate measures one")
    request = Request(data=None if data is None else str(data), split=SPLIT_NAMES.get(result.split or ""))
    classifier = load(entry, backend=backend, device=device)
    assessment = of_classifier(name, classifier, request, result, progress)
    summary, images = assessment.summary(), assessment.images.images
    same = assessment.fingerprint == result.manifest or images.is_recorded(result.manifest)
    return {**summary, "stated": stated, "reproduced": same and abs(float(summary[measure]) - stated) <= TIES}
