"""Classification on ONNX Runtime, without torch and without the onnx package."""

import contextlib
import io
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from vtzoo.base import machine
from vtzoo.data.transform import Preprocess
from vtzoo.errors import VtzooError
from vtzoo.predict.classifier import Classifier
from vtzoo.zoo import safetensors_reader
from vtzoo.zoo.model_folder import ModelFolder
from vtzoo.zoo.onnx_reader import LOCATION, refuse_external, refuse_foreign

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
# Errors of ONNX Runtime 1.31 and 1.23 for exact products that share weights.
SHARED = ("Attempt to replace the existing tensor", "Initializer with same name exists")
FULL_PRECISION = {"use_tf32": "0"}  # by default CUDA rounds factors to 10 bits, and differs from the CPU
FATAL = 4  # log severity of ONNX Runtime, above its warnings for developers
OURS = "vtzoo export writes files that take uint8 `images` and return `logits` and `features`"
NEWER = "the file needs a newer ONNX Runtime: update it, or export an older operator set (vtzoo export --opset)"

log = logging.getLogger("vtzoo")


class OnnxClassifier(Classifier):
    """A classifier on an ONNX graph with the input `images` and the outputs `logits` and `features`."""

    def __init__(self, session: Any, labels: tuple[str, ...], preprocess: Preprocess, name: str) -> None:
        _refuse_misfit(session, len(labels), preprocess, name)
        self.session, self.labels, self.preprocess = session, labels, preprocess

    @classmethod
    def from_folder(cls, entry: ModelFolder, device: str) -> "OnnxClassifier":
        """The classifier of a model folder, its graph and weights checked against the hashes in result.json."""
        labels, preprocess = entry.config.labels, entry.config.preprocess
        graph, weights = _read_folder(entry)
        return cls(_open(graph, weights, device), labels, preprocess, str(entry.folder / "onnx" / "model.onnx"))

    @classmethod
    def from_file(cls, path: Path, device: str) -> "OnnxClassifier":
        """The classifier of a bare .onnx file, whose metadata has its classes and preprocessing."""
        graph = safetensors_reader.read_bytes(path)
        refuse_external(graph, str(path))
        session = _open(graph, None, device)
        classifier = cls(session, *_read_metadata(session, path), str(path))
        classifier.multi_label = session.get_modelmeta().custom_metadata_map.get("vtzoo.multi_label") == "true"
        return classifier

    def run(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logits and pooled features of prepared images."""
        try:
            logits, features = self.session.run(["logits", "features"], {"images": pixels})
        except Exception as error:  # its errors (out of memory, a lost device) have no other common base
            raise VtzooError(f"ONNX Runtime could not run the model: {_first_line(error)}") from error
        return logits, features


def _read_folder(entry: ModelFolder) -> tuple[bytes, bytes | None]:
    """The graph, and the content of model.safetensors if the graph points into it; both checked."""
    path, name = entry.folder / "onnx" / "model.onnx", "model.safetensors"
    graph = safetensors_reader.read_bytes(path, entry.sha256("onnx/model.onnx"))
    if LOCATION.encode() not in graph:
        refuse_external(graph, str(path))
        return graph, None
    sha256 = entry.sha256(name)
    if sha256 is None:
        raise VtzooError(f"{entry.folder / 'result.json'} has no sha256 of {name}, so that file cannot be trusted")
    with ThreadPoolExecutor(1) as pool:  # hashing releases the GIL beside ONNX Runtime's import: 0.05 s less for Swin-T
        reading = pool.submit(safetensors_reader.read, entry.folder / name, sha256)
        import onnxruntime  # noqa: F401

        weights = reading.result()
    refuse_foreign(graph, weights, str(path))
    return graph, weights.content


def _open(graph: bytes, weights: bytes | None, device: str) -> Any:
    """An ONNX Runtime session. If CUDA does not load, "cuda" is a VtzooError, and "auto" uses the CPU."""
    # Without a driver, half a gigabyte of CUDA code would be loaded for nothing.
    if device == "cuda" or (device == "auto" and machine.has_driver()):
        session = _open_cuda(graph, weights)
        if session is not None:
            return session
    if device == "cuda":
        raise VtzooError(
            "ONNX Runtime cannot use CUDA here",
            "use --device cpu, or install a driver and the CUDA libraries that onnxruntime-gpu needs",
        )
    return open_session(graph, weights, CPU)


def _open_cuda(graph: bytes, weights: bytes | None) -> Any:
    """A session that really runs on CUDA, or None. ONNX Runtime lists CUDA as available even if it cannot load."""
    import onnxruntime

    if CUDA not in onnxruntime.get_available_providers():
        return None
    with contextlib.redirect_stdout(io.StringIO()):  # both print errors to stdout
        onnxruntime.preload_dlls()
        try:
            session = open_session(graph, weights, (CUDA, FULL_PRECISION), CPU)
        except VtzooError:
            return None
    return session if CUDA in session.get_providers() else None


def open_session(graph: bytes, weights: bytes | None, *providers: Any) -> Any:
    """An ONNX Runtime session on a graph, with the content of model.safetensors if the graph points into it.

    On x86-64 without VNNI, such as AMD's before Zen 4, sums of 8-bit products overflow 16 bits unless ONNX Runtime is
    told to be exact: an int8 file changed 3.3% of 600 top-1 classes, and 1.5% when exact, in 7% more time. Other
    processors compute the same either way.
    """
    try:
        try:
            return _start(graph, weights, providers, exact=True)
        except Exception as error:
            if not any(words in str(error) for words in SHARED):
                raise
            return _start(graph, weights, providers, exact=False)
    except Exception as error:  # its errors have no other common base
        reason = _first_line(error)
        hint = NEWER if any(word in reason for word in ("IR version", "opset")) else None
        raise VtzooError(f"ONNX Runtime cannot open the model: {reason}", hint) from error


def _start(graph: bytes, weights: bytes | None, providers: tuple[Any, ...], *, exact: bool) -> Any:
    import onnxruntime

    onnxruntime.set_default_logger_severity(FATAL)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", str(int(exact)))
    skipped = []
    if weights is not None:
        # As bytes, because these are checked, and ONNX Runtime refuses a path outside the graph's folder.
        options.add_external_initializers_from_files_in_memory([LOCATION], [weights], [len(weights)])
        # Folding would transpose a copy of every weight, for Swin-T in 0.1 s and 80 MB, and make no run faster.
        skipped = ["ConstantFolding"]
    # No fallback by ONNX Runtime, which prints to stdout.
    return onnxruntime.InferenceSession(
        graph, options, providers=list(providers), disabled_optimizers=skipped, enable_fallback=0
    )


def _read_metadata(session: Any, path: Path) -> tuple[tuple[str, ...], Preprocess]:
    """Class names and preprocessing from the metadata; for a file without both, a guess from its shapes."""
    facts = session.get_modelmeta().custom_metadata_map
    if not {"vtzoo.labels", "vtzoo.preprocess"} & facts.keys():
        return _guess_metadata(session, path)
    try:
        labels, preprocess = json.loads(facts["vtzoo.labels"]), json.loads(facts["vtzoo.preprocess"])
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            raise ValueError("vtzoo.labels is not a list of names")
        return tuple(labels), Preprocess(**preprocess)
    except KeyError as error:
        raise VtzooError(f"{path} was not written by vtzoo export: it has no {error.args[0]}", OURS) from error
    except (ValueError, TypeError) as error:
        raise VtzooError(f"the metadata of {path} cannot be read: {error}", OURS) from error


def _guess_metadata(session: Any, path: Path) -> tuple[tuple[str, ...], Preprocess]:
    """Class numbers as names, and bicubic centre crops, for a graph with the zoo's inputs and outputs."""
    given = {item.name: (item.type, item.shape) for item in (*session.get_inputs(), *session.get_outputs())}
    kind, shape = given.get("images", (None, []))
    if kind != "tensor(uint8)" or len(shape) != 4 or not all(isinstance(side, int) for side in shape[1:]):
        stated = "; ".join(f"{item.name}, {item.type} {_spelled(item.shape)}" for item in session.get_inputs())
        raise VtzooError(f"{path} takes {stated or 'nothing'}, not uint8 `images` (batch, 3, height, width)", OURS)
    classes = given.get("logits", (None, [0]))[1][-1]
    height, width = shape[2:]
    log.warning("%s has no class names and no preprocessing: using class numbers and bicubic centre crops", path)
    preprocess = Preprocess(size=height, width=None if width == height else width, interpolation="bicubic", crop=1.0)
    return tuple(map(str, range(classes if isinstance(classes, int) else 0))), preprocess


def _refuse_misfit(session: Any, classes: int, preprocess: Preprocess, name: str) -> None:
    """A VtzooError unless inputs and outputs are those of a classifier of the zoo."""
    inputs = [(item.name, item.type, tuple(item.shape[1:])) for item in session.get_inputs()]
    fixed = [item.name for item in session.get_inputs() if item.shape and isinstance(item.shape[0], int)]
    if inputs != [("images", "tensor(uint8)", preprocess.shape)] or fixed:
        raise VtzooError(f"{name} does not take uint8 `images` {_spelled(('batch', *preprocess.shape))}", OURS)
    outputs = {item.name: (item.type, item.shape[1:]) for item in session.get_outputs()}
    if outputs.get("logits") != ("tensor(float)", [classes]) or "features" not in outputs:
        raise VtzooError(f"{name} does not return `features` and float32 `logits` for {classes} classes", OURS)


def _spelled(shape: tuple[Any, ...]) -> str:
    return f"({', '.join(map(str, shape))})"


def _first_line(error: Exception) -> str:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line.split(" : ", 3)[-1]  # after "[ONNXRuntimeError] : 1 : FAIL : "
