"""Loads the classifier of a model, on ONNX Runtime (without torch) or on torch."""

from pathlib import Path

from vtzoo.errors import VtzooError, unknown
from vtzoo.hub import fetch
from vtzoo.predict.classifier import Classifier
from vtzoo.zoo.model_folder import ModelFolder

BACKENDS = ("auto", "onnx", "torch")
DEVICES = ("auto", "cpu", "cuda")


def load(
    name: str | Path | ModelFolder, *, revision: str | None = None, backend: str = "auto", device: str = "auto"
) -> Classifier:
    """The classifier of a model: its name, a model folder, a bare .onnx file, or ORG/NAME on the Hub.

    A model on the Hub is downloaded unless it is cached, and verified. `revision` is a branch, tag or commit.
    `backend` is "onnx" (ONNX Runtime; torch is never imported), "torch", or "auto": ONNX Runtime for a model with a
    graph, torch for one with weights only. `device` is "cpu", "cuda" or "auto": CUDA if it works. Weights that are
    damaged, or differ from the hash in their folder, are a VtzooError.
    """
    if backend not in BACKENDS:
        raise unknown("backend", backend, BACKENDS)
    if device not in DEVICES:
        raise unknown("device", device, DEVICES)
    if isinstance(name, str | Path) and Path(name).suffix == ".onnx":
        return _load_file(Path(name), backend, device)
    entry = name if isinstance(name, ModelFolder) else fetch.model_folder(name, revision=revision, use=backend)
    classifier = _load_folder(entry, backend, device)
    classifier.multi_label = entry.config.multi_label
    return classifier


def _load_folder(entry: ModelFolder, backend: str, device: str) -> Classifier:
    has_graph = (entry.folder / "onnx" / "model.onnx").exists()
    if backend == "torch":
        return _load_torch(entry, device, "the torch backend")
    if backend == "auto" and not has_graph:
        return _load_torch(entry, device, f"{entry.folder} has no onnx/model.onnx and")
    if not has_graph:
        raise VtzooError(
            f"{entry.folder} has no onnx/model.onnx, and ONNX Runtime needs it",
            "run it with --backend torch, or write an ONNX file: vtzoo export",
        )
    from vtzoo.predict.onnx import OnnxClassifier

    return OnnxClassifier.from_folder(entry, device)


def _load_file(path: Path, backend: str, device: str) -> Classifier:
    if backend == "torch":
        raise VtzooError(f"{path} is an ONNX file, which the torch backend cannot run", "leave out --backend")
    from vtzoo.predict.onnx import OnnxClassifier

    return OnnxClassifier.from_file(path, device)


def _load_torch(entry: ModelFolder, device: str, subject: str) -> Classifier:
    """The classifier on torch; without torch, an error that begins with `subject`."""
    try:
        from vtzoo.predict.torch import TorchClassifier
    except ModuleNotFoundError as error:
        raise VtzooError(
            f"{subject} needs {error.name}, which is not installed", 'install it: pip install "vtzoo[train]"'
        ) from error
    return TorchClassifier.from_folder(entry, device)
