"""What there is to measure: the runtimes and precisions at hand, the files that they read, and what is not at hand."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from vtzoo.base import machine, subprocess_runner
from vtzoo.bench import worker
from vtzoo.doctor.packages import is_there
from vtzoo.errors import VtzooError
from vtzoo.hub import fetch
from vtzoo.zoo import model_folder

RUNTIMES = ("onnx", "torch", "openvino")
PRECISIONS = ("fp32", "fp16", "int8", "bf16")
OFFERED = {"onnx": ("fp32", "fp16", "int8"), "torch": ("fp32", "bf16", "fp16"), "openvino": ("fp32", "bf16", "int8")}
EXPORTERS, TRAIN = ("torch", "timm", "onnx", "onnxscript"), 'pip install "vtzoo[train]"'


class Wanted(Protocol):
    """The part of the settings that decides what is measured."""

    @property
    def runtimes(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def precisions(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def device(self) -> str: ...  # noqa: D102


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The model that is measured."""

    name: str
    entry: model_folder.Entry | None  # None for a bare .onnx file
    precision: str  # of the graph that is there
    shape: tuple[int, ...]  # of an image as the model takes it
    facts: dict[str, Any]

    @property
    def exports(self) -> bool:
        """Whether it can be exported here."""
        return self.weights is not None and all(is_there(module) for module in EXPORTERS)

    @property
    def weights(self) -> Path | None:
        """The file of its weights, where it has one that torch reads."""
        file = self.entry.folder / "model.safetensors" if self.entry else None
        return file if file and file.exists() else None


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A runtime at a precision."""

    runtime: str
    precision: str
    source: str  # what it opens: a file, or a model by its name
    files: tuple[str, ...]  # what is read for it
    made: bool  # whether its file is to be exported first


@dataclass(frozen=True, kw_only=True)
class Absent:
    """What is not at hand, and what to do to have it."""

    runtime: str
    precision: str | None  # None for all of them
    reason: str
    advice: str | None = None


def subject(name: str) -> Subject:
    """The model of that name, folder, .onnx file or Hub id; one that is not there is a VtzooError."""
    if Path(name).suffix == ".onnx":
        outcome = subprocess_runner.run(worker.describe, name)
        if outcome.error:
            raise VtzooError(outcome.error)
        (told,) = outcome.told
        entry, shape, classes, precision = None, tuple(told["shape"]), told["classes"], told["precision"]
    else:
        entry = fetch.find(name, use=None if is_there("torch") else "auto")
        shape, classes, precision = entry.preprocess.shape, len(entry.labels), "fp32"
    facts = {"name": entry.name if entry else name, "image_size": shape[1], "classes": classes}
    if entry:
        facts["architecture"] = entry.config["architecture"]
    return Subject(name=name, entry=entry, precision=precision, shape=shape, facts=facts)


def kinds(model: Subject, wanted: Wanted, folder: Path) -> tuple[list[Kind], list[Absent]]:
    """What can be measured, with files in `folder` for what must be exported, and what cannot."""
    found, absent = [], []
    for runtime in wanted.runtimes:
        precisions = [precision for precision in OFFERED[runtime] if precision in wanted.precisions]
        missing = _missing(model, runtime, wanted.device)
        if missing:
            absent.append(missing)
            continue
        for precision in precisions:
            one = _kind(model, runtime, precision, wanted.device, folder)
            (found if isinstance(one, Kind) else absent).append(one)
    if not found:
        raise _nothing(wanted, absent)
    return found, absent


def _missing(model: Subject, runtime: str, device: str) -> Absent | None:
    """Why nothing can run on that runtime, if so."""
    reason, advice = None, None
    if runtime == "openvino" and not is_there("openvino"):
        reason, advice = "openvino is not installed", "pip install openvino"
    elif runtime == "openvino" and device == "cuda":
        reason = "OpenVINO has no CUDA"
    elif runtime == "onnx" and not is_there("onnxruntime"):
        reason, advice = "ONNX Runtime is not installed", "vtzoo doctor says which one"
    elif runtime == "torch" and model.weights is None:
        reason = f"{model.name} has no model.safetensors"
    elif runtime == "torch" and (missing := [module for module in ("torch", "timm") if not is_there(module)]):
        reason, advice = f"{' and '.join(missing)}: not installed", TRAIN
    return Absent(runtime=runtime, precision=None, reason=reason, advice=advice) if reason else None


def _kind(model: Subject, runtime: str, precision: str, device: str, folder: Path) -> Kind | Absent:
    """The runtime at that precision, or why it is not at hand."""
    name = {"runtime": runtime, "precision": precision}
    if runtime == "torch":
        if precision == "fp16" and (device == "cpu" or not machine.has_driver()):
            return Absent(**name, reason="torch's fp16 is measured on CUDA alone")
        return Kind(**name, source=model.name, files=(str(model.weights),), made=False)
    # OpenVINO computes a float32 file in bf16 by itself.
    of_file = "fp32" if precision == "bf16" else precision
    if model.exports:
        file = str(folder / f"{of_file}.onnx")
        return Kind(**name, source=file, files=(file,), made=True)
    if of_file == model.precision and (model.entry is None or runtime == "onnx"):
        files = _own(model)
        if files:
            return Kind(**name, source=model.name, files=files, made=False)
    if model.entry is None:
        return Absent(**name, reason=f"{model.name} is {model.precision}")
    needed = [module for module in EXPORTERS if not is_there(module)]
    reason = f"exporting it needs {', '.join(needed)}" if needed else "the model has no weights to export"
    return Absent(**name, reason=reason, advice=TRAIN if needed else None)


def _own(model: Subject) -> tuple[str, ...]:
    """The files of the graph that the model comes with; none where it has none."""
    if model.entry is None:
        return (model.name,)
    graph = model.entry.folder / "onnx" / "model.onnx"
    files = (graph, model.weights) if graph.exists() else ()
    return tuple(str(file) for file in files if file)


def _nothing(wanted: Wanted, absent: list[Absent]) -> VtzooError:
    """The error where there is no row to measure."""
    asked = f"{', '.join(wanted.runtimes)} in {', '.join(wanted.precisions)}"
    if absent:
        first = absent[0]
        return VtzooError(f"nothing to measure of {asked}: {first.reason}", first.advice)
    offered = "; ".join(f"{runtime}: {', '.join(precisions)}" for runtime, precisions in OFFERED.items())
    return VtzooError(f"nothing to measure: there is no {asked}", offered)


def reference(model: Subject, wanted: Wanted, folder: Path) -> Kind:
    """What the others shall agree with: torch in fp32, or ONNX Runtime where torch or its weights are not here."""
    for runtime in ("torch", "onnx"):
        if _missing(model, runtime, wanted.device) is None:
            one = _kind(model, runtime, "fp32" if model.entry else model.precision, wanted.device, folder)
            if isinstance(one, Kind):
                return one
    raise VtzooError(f"{model.name} runs neither on torch nor on ONNX Runtime here", "vtzoo doctor says why")


def provide(model: Subject, kind: Kind, progress: Callable[[str], None]) -> str | None:
    """Export the kind's file where it is to be made and is not there yet; why that fails, if so."""
    if not kind.made or Path(kind.source).exists():
        return None
    precision = Path(kind.source).stem
    progress(f"exporting {precision}")
    task = {"model": model.name, "out": kind.source, "precision": precision}
    outcome = subprocess_runner.run(worker.export, task, timeout=1800)
    return f"cannot be exported: {outcome.error}" if outcome.error else None


def write_images(model: Subject, folder: Path) -> Path:
    """The file of the images that every row answers, uint8 (n, 3, height, width) as the model takes them.

    They are those that an export is verified on; where nothing can be exported, noise without detail.
    """
    file = folder / "images.npy"
    task = {"size": model.shape[1], "out": str(file)}
    if model.exports and subprocess_runner.run(worker.write_sample, task).error is None:
        return file
    noise = np.random.default_rng(0).integers(0, 256, (16, *model.shape), dtype=np.uint8)
    np.save(file, noise)
    return file
