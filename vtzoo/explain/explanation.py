"""Explains a model's prediction for a photograph: class maps, and the localization head's predictions."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from vtzoo.data.transform import ImageSource, prepare, read_image
from vtzoo.errors import VtzooError, unknown
from vtzoo.explain.geometry import Box, visible_box
from vtzoo.hub import fetch
from vtzoo.predict.load import load
from vtzoo.zoo.model_folder import ModelFolder

if TYPE_CHECKING:
    from vtzoo.explain.localization import Localization
    from vtzoo.predict.torch import TorchClassifier

ROLLOUT, GRAD_CAM = "attention rollout", "Grad-CAM"


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassMap:
    """The evidence for one class in each cell of a grid."""

    label: str
    probability: float  # 0 to 1
    cells: np.ndarray  # float32 (rows, columns), in the method's own scale


@dataclass(frozen=True, kw_only=True, eq=False)
class Explanation:
    """The explanation of a model's prediction for one photograph."""

    photo: Image.Image  # upright RGB
    box: Box  # the part that the model saw
    method: str  # ROLLOUT or GRAD_CAM
    maps: tuple[ClassMap, ...]  # at least one, the most probable class first
    localization: "Localization | None"  # None without a localization head

    def as_json(self) -> dict[str, Any]:
        """The first class, and all of them in `classes`. `crop` is left, top, right and bottom in the photo's pixels.

        `localization` is null without a localization head.
        """
        classes = [{"class": item.label, "probability": item.probability} for item in self.maps]
        return {
            **classes[0], "method": self.method, "grid": list(self.maps[0].cells.shape),
            "crop": self.box.pixels(*self.photo.size), "classes": classes,
            "localization": self.localization and self.localization.as_json(),
        }  # fmt: skip

    def as_text(self) -> str:
        """The explanation in lines of text, without the maps."""
        lines = [f"  {item.probability:6.1%}  {item.label}" for item in self.maps]
        rows, columns = self.maps[0].cells.shape
        same = ", the same for every class" if self.method == ROLLOUT else ""
        lines.append(f"method: {self.method} on {rows}x{columns} cells{same}")
        width, height = self.photo.size
        left, top, right, bottom = self.box.pixels(width, height)
        if (left, top, right, bottom) != (0, 0, width, height):
            seen = f"{right - left}x{bottom - top} of {width}x{height} pixels, from column {left} and row {top}"
            lines.append(f"seen: {seen}; the rest was cut off")
        if head := self.localization:
            guess = f"the best constant guess by {head.constant_error:.2f}"
            lines.append(f"localization: off by {head.error:.2f} cells over {len(head.places):,} pairs; {guess}")
        return "\n".join(lines)


def explain(
    name: str | Path | ModelFolder, image: ImageSource, *, label: str | None = None, top_k: int = 1,
    revision: str | None = None, device: str = "auto",
) -> Explanation:  # fmt: skip
    """The explanation for the class `label`, or for each of the `top_k` most probable classes.

    Attention rollout explains the most probable class of a plain vision transformer: its map is the same for every
    class. Grad-CAM explains a given `label`, several classes, and every other architecture. An unreadable image, a
    model without torch weights or without a grid of at least 4x4 cells, and an unknown class are VtzooErrors.
    """
    photo = read_image(image)
    if isinstance(name, str | Path) and Path(name).suffix == ".onnx":
        hint = "name the model folder that it was exported from, or a model on the Hub"
        raise VtzooError(f"{name} is an ONNX file, and only a model on torch can be explained", hint)
    entry = name if isinstance(name, ModelFolder) else fetch.model_folder(name, revision=revision)
    classifier: Any = load(entry, backend="torch", device=device)
    pixels = prepare(photo, classifier.preprocess)[None]
    probabilities = classifier(pixels)[0]
    chosen = _chosen(probabilities, classifier.labels, label, top_k)
    method, grids = _explain_classes(classifier, pixels, chosen, by_class=label is not None or top_k > 1)
    from vtzoo.explain.localization import localize

    return Explanation(
        photo=photo, box=visible_box(photo.width, photo.height, classifier.preprocess), method=method,
        maps=tuple(ClassMap(label=classifier.labels[index], probability=float(probabilities[index]), cells=cells)
                   for index, cells in zip(chosen, grids, strict=True)),
        localization=localize(entry, classifier.model, classifier.normalized(pixels)),
    )  # fmt: skip


def _chosen(probabilities: np.ndarray, labels: tuple[str, ...], label: str | None, top_k: int) -> list[int]:
    """The indices of the classes to explain."""
    if label is not None and label not in labels:
        raise unknown("class", label, labels, "vtzoo show MODEL lists them all")
    if top_k < 1:
        raise VtzooError(f"the number of classes to explain must be at least 1, not {top_k}")
    if label is not None:
        return [labels.index(label)]
    return np.argsort(-probabilities, kind="stable")[:top_k].tolist()


def _explain_classes(
    classifier: "TorchClassifier", pixels: np.ndarray, chosen: list[int], *, by_class: bool
) -> tuple[str, list[np.ndarray]]:
    """The method, and the map of each class."""
    from vtzoo.explain.gradients import grad_cam
    from vtzoo.explain.rollout import attention_weights, roll_out

    images = classifier.normalized(pixels)
    weights = None if by_class else attention_weights(classifier.model, images)
    if weights is not None:
        return ROLLOUT, [roll_out(classifier.model, weights, images)]
    return GRAD_CAM, grad_cam(classifier.model, images, chosen)
