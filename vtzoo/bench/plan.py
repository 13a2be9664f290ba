"""Plans a benchmark: the variants that can be measured, the files that they read, and the variants that cannot."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vtzoo.base import machine, subprocess_runner
from vtzoo.bench import worker
from vtzoo.doctor.packages import is_installed
from vtzoo.errors import VtzooError
from vtzoo.hub import fetch
from vtzoo.predict.load import DEVICES
from vtzoo.zoo.model_folder import ModelFolder

RUNTIMES = ("onnx", "torch", "openvino")
PRECISIONS = ("fp32", "fp16", "int8", "bf16")
OFFERED = {"onnx": ("fp32", "fp16", "int8"), "torch": ("fp32", "bf16", "fp16"), "openvino": ("fp32", "bf16", "int8")}
EXPORTERS, INSTALL_TRAIN = ("torch", "timm", "onnx", "onnxscript"), 'pip install "vtzoo[train]"'


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The model, the variants to measure, and the duration."""

    model: str
    runtimes: tuple[str, ...] = RUNTIMES
    precisions: tuple[str, ...] = PRECISIONS
    device: str = "auto"  # one of DEVICES
    batch: int = 32  # images at once, for images/s
    seconds: float = 3.0  # of a variant's latency measurements, and again of its images/s
    rounds: int = 3  # that share these seconds; each starts a new process of each variant

    def __post_init__(self) -> None:
        chosen = {"runtime": self.runtimes, "precision": self.precisions, "device": (self.device,)}
        for (kind, names), known in zip(chosen.items(), (RUNTIMES, PRECISIONS, DEVICES), strict=True):
            for name in names:
                if name not in known:
                    raise VtzooError(f"unknown {kind} {name!r}", f"known: {', '.join(known)}")
        for name, value in (("batch", self.batch), ("number of rounds", self.rounds)):
            if value < 1:
                raise VtzooError(f"the {name} must be at least 1, not {value}")
        if not 0 < self.seconds < float("inf"):
            raise VtzooError(f"the seconds to measure for must be a number above 0, not {self.seconds}")


@dataclass(frozen=True, kw_only=True)
class BenchModel:
    """The model to measure."""

    name: str
    entry: ModelFolder | None  # None for a bare .onnx file
    precision: str  # of its own graph
    shape: tuple[int, ...]  # of a prepared image
    facts: dict[str, Any]

    @property
    def exports(self) -> bool:
        """Whether it can be exported here."""
        return self.weights is not None and all(is_installed(module) for module in EXPORTERS)

    @property
    def weights(self) -> Path | None:
        """Its model.safetensors; None if it has none."""
        file = self.entry.folder / "model.safetensors" if self.entry else None
        return file if file and file.exists() else None


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A runtime and precision to measure."""

    runtime: str
    precision: str
    source: str  # the file that it opens, or the name of the model
    files: tuple[str, ...]  # that it reads
    exported: bool  # whether its file must be exported first


@dataclass(frozen=True, kw_only=True)
class Unavailable:
    """A runtime or variant that cannot be measured, why, and how to install it."""

    runtime: str
    precision: str | None  # None for every precision
    reason: str
    advice: str | None = None


def find_model(name: str) -> BenchModel:
    """The model of that name, folder, .onnx file or Hub id; an unknown one is a VtzooError."""
    if Path(name).suffix == ".onnx":
        outcome = subprocess_runner.run(worker.describe, name)
        if outcome.error:
            raise VtzooError(outcome.error)
        (facts,) = outcome.messages
        entry, shape, classes, precision = None, tuple(facts["shape"]), facts["classes"], facts["precision"]
    else:
        entry = fetch.model_folder(name, use=None if is_installed("torch") else "auto")
        shape, classes, precision = entry.config.preprocess.shape, len(entry.config.labels), "fp32"
    facts = {"name": entry.name if entry else name, "image_size": shape[1], "classes": classes}
    if entry:
        facts["architecture"] = entry.config.architecture
    return BenchModel(name=name, entry=entry, precision=precision, shape=shape, facts=facts)


def find_variants(model: BenchModel, settings: Settings, folder: Path) -> tuple[list[Variant], list[Unavailable]]:
    """The variants that can be measured, and those that cannot; `folder` is for exported files."""
    found, unavailable = [], []
    for runtime in settings.runtimes:
        precisions = [precision for precision in OFFERED[runtime] if precision in settings.precisions]
        missing = _missing(model, runtime, settings.device)
        if missing:
            unavailable.append(missing)
            continue
        for precision in precisions:
            variant = _variant(model, runtime, precision, settings.device, folder)
            (found if isinstance(variant, Variant) else unavailable).append(variant)
    if not found:
        raise _nothing_error(settings, unavailable)
    return found, unavailable


def _missing(model: BenchModel, runtime: str, device: str) -> Unavailable | None:
    """Why the runtime cannot run the model; None if it can."""
    reason, advice = None, None
    if runtime == "openvino" and not is_installed("openvino"):
        reason, advice = "openvino is not installed", "pip install openvino"
    elif runtime == "openvino" and device == "cuda":
        reason = "OpenVINO has no CUDA"
    elif runtime == "onnx" and not is_installed("onnxruntime"):
        reason, advice = "ONNX Runtime is not installed", "vtzoo doctor names the package to install"
    elif runtime == "torch" and model.weights is None:
        reason = f"{model.name} has no model.safetensors"
    elif runtime == "torch" and (missing := [module for module in ("torch", "timm") if not is_installed(module)]):
        reason, advice = f"{' and '.join(missing)}: not installed", INSTALL_TRAIN
    return Unavailable(runtime=runtime, precision=None, reason=reason, advice=advice) if reason else None


def _variant(model: BenchModel, runtime: str, precision: str, device: str, folder: Path) -> Variant | Unavailable:
    """The variant of a runtime and precision, or why it cannot be measured."""
    name = {"runtime": runtime, "precision": precision}
    if runtime == "torch":
        if precision == "fp16" and (device == "cpu" or not machine.has_driver()):
            return Unavailable(**name, reason="torch's fp16 is measured on CUDA only")
        return Variant(**name, source=model.name, files=(str(model.weights),), exported=False)
    # OpenVINO itself converts a float32 file to bf16.
    of_file = "fp32" if precision == "bf16" else precision
    if model.exports:
        file = str(folder / f"{of_file}.onnx")
        return Variant(**name, source=file, files=(file,), exported=True)
    if of_file == model.precision and (model.entry is None or runtime == "onnx"):
        files = _graph_files(model)
        if files:
            return Variant(**name, source=model.name, files=files, exported=False)
    if model.entry is None:
        return Unavailable(**name, reason=f"{model.name} is {model.precision}")
    needed = [module for module in EXPORTERS if not is_installed(module)]
    reason = f"exporting it needs {', '.join(needed)}" if needed else "the model has no weights to export"
    return Unavailable(**name, reason=reason, advice=INSTALL_TRAIN if needed else None)


def _graph_files(model: BenchModel) -> tuple[str, ...]:
    """The files of the model's own graph; empty if it has none."""
    if model.entry is None:
        return (model.name,)
    graph = model.entry.folder / "onnx" / "model.onnx"
    files = (graph, model.weights) if graph.exists() else ()
    return tuple(str(file) for file in files if file)


def _nothing_error(settings: Settings, unavailable: list[Unavailable]) -> VtzooError:
    """The error for settings without any variant to measure."""
    asked = f"{', '.join(settings.runtimes)} in {', '.join(settings.precisions)}"
    if unavailable:
        first = unavailable[0]
        return VtzooError(f"{asked} cannot be measured: {first.reason}", first.advice)
    offered = "; ".join(f"{runtime}: {', '.join(precisions)}" for runtime, precisions in OFFERED.items())
    return VtzooError(f"nothing to measure: there is no {asked}", offered)


def choose_reference(model: BenchModel, settings: Settings, folder: Path) -> Variant:
    """The variant that the others are compared with: torch in fp32, or ONNX Runtime without torch or its weights."""
    for runtime in ("torch", "onnx"):
        if _missing(model, runtime, settings.device) is None:
            precision = "fp32" if model.entry else model.precision
            variant = _variant(model, runtime, precision, settings.device, folder)
            if isinstance(variant, Variant):
                return variant
    raise VtzooError(f"{model.name} runs neither on torch nor on ONNX Runtime here", "vtzoo doctor says why")


def export(model: BenchModel, variant: Variant, progress: Callable[[str], None]) -> str | None:
    """Export the variant's file if it needs one that does not exist yet; the error if the export fails."""
    if not variant.exported or Path(variant.source).exists():
        return None
    precision = Path(variant.source).stem
    progress(f"exporting {precision}")
    task = {"model": model.name, "out": variant.source, "precision": precision}
    outcome = subprocess_runner.run(worker.export, task, timeout=1800)
    return f"cannot be exported: {outcome.error}" if outcome.error else None


def write_images(model: BenchModel, folder: Path) -> Path:
    """A .npy file of the prepared images that every variant classifies, uint8 (n, 3, height, width).

    These are the images that exports are verified on; noise if nothing can be exported.
    """
    file = folder / "images.npy"
    task = {"size": model.shape[1], "out": str(file)}
    if model.exports and subprocess_runner.run(worker.write_sample, task).error is None:
        return file
    noise = np.random.default_rng(0).integers(0, 256, (16, *model.shape), dtype=np.uint8)
    np.save(file, noise)
    return file
