"""A model and labelled images in, everything that is measured out."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vtzoo.evaluate import images as subject
from vtzoo.evaluate import multi_label, single_label
from vtzoo.evaluate.images import Request, Subject
from vtzoo.evaluate.predictions import ask
from vtzoo.hub import fetch
from vtzoo.predict.load import Classifier, load
from vtzoo.zoo import model_folder


@dataclass(frozen=True, kw_only=True, eq=False)
class Assessment:
    """What a model answers to the images that can be read, and how right that is."""

    model: str
    labels: tuple[str, ...]
    subject: Subject  # of these images
    probabilities: np.ndarray  # float32 (n, classes)
    scores: single_label.Scores | multi_label.Scores
    manifest: str  # sha256 of the images and labels in order
    seconds: float  # reading, decoding and preprocessing included
    unreadable: tuple[str, ...]  # a sentence for each image that cannot be read

    def summary(self) -> dict[str, float | int | str]:
        """The accuracies, and which images gave them at which speed."""
        fractions = ("top1", "top5") if isinstance(self.scores, single_label.Scores) else ("map", "macro_f1")
        return {
            **{name: getattr(self.scores, name) for name in fractions},
            "images": len(self.subject),
            "manifest": self.manifest,
            "seconds": self.seconds,
            "images_per_second": len(self.subject) / self.seconds,
        }

    def as_json(self) -> dict[str, Any]:
        """All that was measured, but for the answers themselves."""
        return {
            **self.summary(),
            "model": self.model,
            "data": self.subject.data,
            "split": self.subject.split,
            "notes": list(self.subject.notes),
            "unknown": self.subject.unknown,
            "unreadable": list(self.unreadable),
            **asdict(self.scores),
        }


def assess(
    model: str, request: Request | None = None, *, revision: str | None = None, backend: str = "auto",
    device: str = "auto", progress: Callable[[int], None] | None = None,
) -> Assessment:  # fmt: skip
    """What is measured of a model on the images that a request means: its own test images where there is none.

    `model` is a model of the zoo, a model folder, an .onnx file, or a model on the Hub, at `revision` where one is
    given. Images that cannot be read are left out and named, but it is an error where none can be.
    """
    source, result = _open(model, revision, backend)
    classifier = load(source, backend=backend, device=device)
    return of_classifier(model, classifier, request or Request(), result, progress)


def of_classifier(
    model: str, classifier: Classifier, request: Request, result: dict[str, Any],
    progress: Callable[[int], None] | None = None,
) -> Assessment:  # fmt: skip
    """The same of a classifier that is loaded, and the result.json of its model."""
    multi = bool(getattr(classifier, "multi_label", False))
    images = subject.find(request, model, classifier.labels, result, multi=multi)
    answers = ask(classifier, images.as_split(classifier.labels), progress=progress)
    readable = images.select(answers.numbers)
    score = multi_label.score if multi else single_label.score
    return Assessment(
        model=model,
        labels=classifier.labels,
        subject=readable,
        probabilities=answers.probabilities,
        scores=score(readable.targets, answers.probabilities, classifier.labels),
        manifest=readable.stored.manifest if readable.stored else answers.manifest,
        seconds=answers.seconds,
        unreadable=tuple(error.message for error in answers.errors.values()),
    )


def _open(model: str, revision: str | None, backend: str) -> tuple[model_folder.Entry | str, dict[str, Any]]:
    """What is to be loaded for a model's name, and its result.json: nothing where there is none."""
    if Path(model).suffix == ".onnx":
        return model, {}
    entry = fetch.find(model, revision=revision, use=backend)
    return entry, entry.result if (entry.folder / "result.json").exists() else {}
