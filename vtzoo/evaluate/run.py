"""A model's accuracy and other metrics on labelled images."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vtzoo.data.labelled_images import LabelledImages
from vtzoo.evaluate import multi_label, single_label
from vtzoo.evaluate.images import EvaluationImages, Request, images_for, require_same_classes
from vtzoo.evaluate.predictions import predict_images
from vtzoo.hub import fetch
from vtzoo.predict.classifier import Classifier
from vtzoo.predict.load import load
from vtzoo.zoo.result import Result


@dataclass(frozen=True, kw_only=True, eq=False)
class Assessment:
    """A model's predictions on the readable images, and their metrics."""

    model: str
    labels: tuple[str, ...]
    images: EvaluationImages  # only the readable images
    probabilities: np.ndarray  # float32 (n, classes)
    scores: single_label.Scores | multi_label.Scores
    fingerprint: str  # of the images
    seconds: float  # reading, decoding and preprocessing included
    unreadable: tuple[str, ...]  # a sentence per unreadable image

    def summary(self) -> dict[str, float | int | str]:
        """The accuracies, with the number and manifest of the images, and the speed."""
        fractions = ("top1", "top5") if isinstance(self.scores, single_label.Scores) else ("map", "macro_f1")
        return {
            **{name: getattr(self.scores, name) for name in fractions},
            "images": len(self.images), "manifest": self.fingerprint,
            "seconds": self.seconds, "images_per_second": len(self.images) / self.seconds,
        }  # fmt: skip

    def as_json(self) -> dict[str, Any]:
        """All metrics, without the predictions."""
        return {
            **self.summary(), "model": self.model, "data": self.images.data, "split": self.images.split,
            "notes": list(self.images.images.notes), "unknown": self.images.unknown,
            "unreadable": list(self.unreadable), **asdict(self.scores),
        }  # fmt: skip


def assess(
    model: str, request: Request | None = None, *, revision: str | None = None, backend: str = "auto",
    device: str = "auto", progress: Callable[[int], None] | None = None,
) -> Assessment:  # fmt: skip
    """The metrics of a model on the requested images, by default its own test images.

    `model` is a model of the zoo, a model folder, an .onnx file, or a model on the Hub, which may have a `revision`.
    Unreadable images are left out and named; a VtzooError if all images are unreadable.
    """
    is_onnx = Path(model).suffix == ".onnx"  # without a result.json
    entry = None if is_onnx else fetch.model_folder(model, revision=revision, use=backend)
    classifier = load(model if entry is None else entry, backend=backend, device=device)
    result = Result() if entry is None else entry.result_or_empty
    return of_classifier(model, classifier, request or Request(), result, progress)


def of_classifier(
    model: str, classifier: Classifier, request: Request, result: Result,
    progress: Callable[[int], None] | None = None,
) -> Assessment:  # fmt: skip
    """The metrics of a loaded classifier, given the result.json of its model."""
    multi = bool(getattr(classifier, "multi_label", False))
    images = images_for(request, model, classifier.labels, result, multi_label=multi)
    predictions = predict_images(classifier, images.images, progress=progress)
    readable = images.select(predictions.numbers)
    score = multi_label.score if multi else single_label.score
    return Assessment(
        model=model, labels=classifier.labels, images=readable, probabilities=predictions.probabilities,
        scores=score(readable.targets, predictions.probabilities, classifier.labels),
        fingerprint=predictions.fingerprint, seconds=predictions.seconds,
        unreadable=tuple(error.message for error in predictions.errors.values()),
    )  # fmt: skip


def measure(
    classifier: Classifier, images: LabelledImages, progress: Callable[[int], None] | None = None
) -> dict[str, Any]:
    """The accuracy entries of result.json: `top1` and `top5`, or `map`, all fractions; `images`; `manifest`.

    An unreadable image is a VtzooError.
    """
    require_same_classes(classifier.labels, images.classes)
    predictions = predict_images(classifier, images, progress=progress)
    for error in predictions.errors.values():
        raise error
    targets, probabilities = images.targets, predictions.probabilities
    if images.multi_label:
        fractions = {"map": multi_label.mean_average_precision(targets, probabilities)}
    else:
        fractions = {"top1": single_label.top1(targets, probabilities),
                     "top5": single_label.top5(targets, probabilities)}  # fmt: skip
    return {**fractions, "images": len(images), "manifest": predictions.fingerprint}
