"""Classifiers: `load` gives one by the name of its model, on ONNX Runtime (without torch) or on torch."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vtzoo.errors import VtzooError, unknown
from vtzoo.hub import fetch
from vtzoo.predict.classifier import Classifier
from vtzoo.zoo import model_folder

BACKENDS = ("auto", "onnx", "torch")
DEVICES = ("auto", "cpu", "cuda")

__all__ = ["BACKENDS", "DEVICES", "Classifier", "Prediction", "load", "top"]


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A class and its probability."""

    label: str
    probability: float  # 0 to 1


def load(
    name: str | Path | model_folder.Entry, *, revision: str | None = None, backend: str = "auto", device: str = "auto"
) -> Classifier:
    """The classifier of a model: its name, a model folder, a bare .onnx file, or ORG/NAME on the Hub.

    What of a model on the Hub is not cached is downloaded, at `revision` (a branch, a tag or a commit) where one is
    given, and verified. `backend` is "onnx" (ONNX Runtime; torch is never imported), "torch", or "auto", which is ONNX
    Runtime where the model has a graph and torch where it has weights alone; `device` is "cpu", "cuda" or "auto", which
    is CUDA where it works. Weights that are damaged, or are not what their folder says, are a VtzooError.
    """
    if backend not in BACKENDS:
        raise unknown("backend", backend, BACKENDS)
    if device not in DEVICES:
        raise unknown("device", device, DEVICES)
    if isinstance(name, str | Path) and Path(name).suffix == ".onnx":
        return _load_file(Path(name), backend, device)
    entry = name if isinstance(name, model_folder.Entry) else fetch.find(name, revision=revision, use=backend)
    classifier = _load_entry(entry, backend, device)
    classifier.multi_label = entry.config.get("multi_label") is True
    return classifier


def _load_entry(entry: model_folder.Entry, backend: str, device: str) -> Classifier:
    has_graph = (entry.folder / "onnx" / "model.onnx").exists()
    if backend == "torch":
        return _load_torch(entry, device, "the torch backend")
    if backend == "auto" and not has_graph:
        return _load_torch(entry, device, f"{entry.folder} has no onnx/model.onnx and")
    if not has_graph:
        raise VtzooError(
            f"{entry.folder} has no onnx/model.onnx, and ONNX Runtime needs it",
            "run it with --backend torch, or make a file of it: vtzoo export",
        )
    from vtzoo.predict.onnx import OnnxClassifier

    return OnnxClassifier.from_folder(entry, device)


def _load_file(path: Path, backend: str, device: str) -> Classifier:
    if backend == "torch":
        raise VtzooError(f"{path} is an ONNX file, which the torch backend cannot run", "leave out --backend")
    from vtzoo.predict.onnx import OnnxClassifier

    return OnnxClassifier.from_file(path, device)


def _load_torch(entry: model_folder.Entry, device: str, needing: str) -> Classifier:
    try:
        from vtzoo.predict.torch import TorchClassifier
    except ModuleNotFoundError as error:
        raise VtzooError(
            f"{needing} needs {error.name}, which is not installed", 'install it: pip install "vtzoo[train]"'
        ) from error
    return TorchClassifier.from_folder(entry, device)


def top(probabilities: np.ndarray, labels: tuple[str, ...], k: int) -> list[Prediction]:
    """The k most probable classes of one image, best first; all of them where there are fewer."""
    if k < 1:
        raise VtzooError(f"the number of classes to show must be at least 1, not {k}")
    best = np.argsort(-probabilities, kind="stable")[:k]
    return [Prediction(label=labels[index], probability=float(probabilities[index])) for index in best]
