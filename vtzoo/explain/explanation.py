"""Where a model looked in a photograph, and where it takes its tokens to be: found here, drawn by `drawing.py`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from vtzoo.data.transform import ImageSource, prepare, read_image
from vtzoo.errors import VtzooError, unknown
from vtzoo.explain.geometry import Box, seen
from vtzoo.hub import fetch
from vtzoo.predict.load import load
from vtzoo.zoo import model_folder

if TYPE_CHECKING:
    from vtzoo.explain.localization import Localization
    from vtzoo.predict.torch import TorchClassifier

ROLLOUT, GRAD_CAM = "attention rollout", "Grad-CAM"


@dataclass(frozen=True, kw_only=True, eq=False)
class Heat:
    """Where the model looked for one class."""

    label: str
    probability: float  # 0 to 1
    cells: np.ndarray  # float32 (rows, columns), as the method gives them


@dataclass(frozen=True, kw_only=True, eq=False)
class Explanation:
    """What can be shown of a model's answer to one photograph."""

    photo: Image.Image  # upright RGB
    box: Box  # what the model saw of it
    method: str  # ROLLOUT or GRAD_CAM
    heats: tuple[Heat, ...]  # a class each, the most probable first; at least one
    localization: "Localization | None"  # None where the model kept no localization head

    def as_json(self) -> dict[str, Any]:
        """The first class and, in `classes`, all of them; `crop` is left, top, right and bottom in the photo's pixels.

        `localization` is null where the model folder has no localization head.
        """
        classes = [{"class": heat.label, "probability": heat.probability} for heat in self.heats]
        return {
            **classes[0], "method": self.method, "grid": list(self.heats[0].cells.shape),
            "crop": self.box.pixels(*self.photo.size), "classes": classes,
            "localization": self.localization and self.localization.as_json(),
        }  # fmt: skip


def explain(
    name: str | Path | model_folder.Entry, image: ImageSource, *, label: str | None = None, top_k: int = 1,
    revision: str | None = None, device: str = "auto",
) -> Explanation:  # fmt: skip
    """Where a model looked in an image for the class `label`, or else for each of its `top_k` most probable classes.

    A plain vision transformer's one predicted class is explained by attention rollout, which is the same map for every
    class; classes that are asked for, and all other architectures, by Grad-CAM. An image that cannot be read, a model
    without weights for torch or without a grid of at least 4x4 cells, or a class that it does not have is a VtzooError.
    """
    photo = read_image(image)
    if isinstance(name, str | Path) and Path(name).suffix == ".onnx":
        hint = "name the model folder that it was exported from, or the model on the Hub"
        raise VtzooError(f"{name} is an ONNX file: what goes on inside the model can be seen on torch alone", hint)
    entry = name if isinstance(name, model_folder.Entry) else fetch.find(name, revision=revision)
    classifier: Any = load(entry, backend="torch", device=device)
    pixels = prepare(photo, classifier.preprocess)[None]
    probabilities = classifier(pixels)[0]
    chosen = _chosen(probabilities, classifier.labels, label, top_k)
    method, maps = _look(classifier, pixels, chosen, by_class=label is not None or top_k > 1)
    from vtzoo.explain.localization import localize

    return Explanation(
        photo=photo, box=seen(photo.width, photo.height, classifier.preprocess), method=method,
        heats=tuple(
            Heat(label=classifier.labels[index], probability=float(probabilities[index]), cells=cells)
            for index, cells in zip(chosen, maps, strict=True)
        ),
        localization=localize(entry, classifier.model, classifier.normalized(pixels)),
    )  # fmt: skip


def told(explanation: Explanation) -> str:
    """The explanation in lines of text, without the maps."""
    lines = [f"  {heat.probability:6.1%}  {heat.label}" for heat in explanation.heats]
    rows, columns = explanation.heats[0].cells.shape
    same = ", the same for every class" if explanation.method == ROLLOUT else ""
    lines.append(f"method: {explanation.method} on {rows}x{columns} cells{same}")
    width, height = explanation.photo.size
    left, top, right, bottom = explanation.box.pixels(width, height)
    if (left, top, right, bottom) != (0, 0, width, height):
        where = f"from column {left} and row {top}"
        lines.append(f"seen: {right - left}x{bottom - top} of {width}x{height} pixels, {where}; the rest was cut off")
    if found := explanation.localization:
        guess = f"the best constant guess by {found.constant_error:.2f}"
        lines.append(f"localization: off by {found.error:.2f} cells over {len(found.places):,} pairs; {guess}")
    return "\n".join(lines)


def _chosen(probabilities: np.ndarray, labels: tuple[str, ...], label: str | None, top_k: int) -> list[int]:
    """The indices of the classes to explain."""
    if label is not None and label not in labels:
        raise unknown("class", label, labels, "vtzoo show MODEL names them all")
    if top_k < 1:
        raise VtzooError(f"the number of classes to explain must be at least 1, not {top_k}")
    if label is not None:
        return [labels.index(label)]
    return np.argsort(-probabilities, kind="stable")[:top_k].tolist()


def _look(
    classifier: "TorchClassifier", pixels: np.ndarray, chosen: list[int], *, by_class: bool
) -> tuple[str, list[np.ndarray]]:
    """The method, and the map of each of the classes."""
    from vtzoo.explain.gradients import grad_cam
    from vtzoo.explain.rollout import attentions, roll_out

    images = classifier.normalized(pixels)
    kept = None if by_class else attentions(classifier.model, images)
    if kept is not None:
        return ROLLOUT, [roll_out(classifier.model, kept, images)]
    return GRAD_CAM, grad_cam(classifier.model, images, chosen)
