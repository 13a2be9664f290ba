"""The functions that `vtzoo bench` runs in new processes: each opens a model in one runtime."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vtzoo.base import subprocess_runner
from vtzoo.errors import VtzooError
from vtzoo.predict.load import load

Model = Callable[[np.ndarray], np.ndarray]  # from uint8 (n, 3, height, width) to logits (n, classes)
MINIMUM_CALLS = 3  # timed, even if they take longer than the seconds given
STATUS = Path("/proc/self/status")


def measure(task: dict[str, Any], send: subprocess_runner.Send) -> None:
    """Send the device and the peak memory after one image; then the seconds of every call, and the classes.

    The first message marks the end of the cold start.
    """
    images = np.load(task["images"], mmap_mode="r")
    model, device = OPEN[task["runtime"]](task)
    model(images[:1].copy())
    send({"device": device, "memory": peak_memory()})
    batch = np.resize(images, (task["batch"], *images.shape[1:]))
    one = timed(model, images[:1].copy(), task["seconds"])
    many = timed(model, batch, task["seconds"])
    send({"one": one, "batch": many, "classes": _classes(model, images, task["batch"])})


def classify(task: dict[str, Any], send: subprocess_runner.Send) -> None:
    """Send the class of each image."""
    model, _ = OPEN[task["runtime"]](task)
    send(_classes(model, np.load(task["images"], mmap_mode="r"), task["batch"]))


def export(task: dict[str, Any], send: subprocess_runner.Send) -> None:
    """Write the model as one ONNX file in the task's precision."""
    from vtzoo.export.onnx_files import export_model

    precision = {} if task["precision"] == "fp32" else {"precision": task["precision"]}
    export_model(task["model"], Path(task["out"]), **precision)


def write_sample(task: dict[str, Any], send: subprocess_runner.Send) -> None:
    """Write the images that exports are verified on to a .npy file."""
    from vtzoo.export.images import sample_images

    np.save(task["out"], sample_images(task["size"]))


def describe(file: str, send: subprocess_runner.Send) -> None:
    """Send the image shape, the number of classes and the precision of an .onnx file."""
    classifier: Any = load(file, backend="onnx", device="cpu")
    facts = classifier.session.get_modelmeta().custom_metadata_map
    precision = facts.get("vtzoo.precision", "fp32")
    send({"shape": classifier.preprocess.shape, "classes": len(classifier.labels), "precision": precision})


def timed(model: Model, images: np.ndarray, seconds: float) -> list[float]:
    """The seconds of each call that starts in time, at least MINIMUM_CALLS; an untimed call warms up first."""
    model(images)
    taken, end = [], time.perf_counter() + seconds
    while len(taken) < MINIMUM_CALLS or time.perf_counter() < end:
        started = time.perf_counter()
        model(images)
        taken.append(time.perf_counter() - started)
    return taken


def peak_memory() -> int:
    """The peak resident memory of this process, in bytes."""
    if STATUS.exists():  # getrusage would include the memory of the parent process
        lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
        return 1024 * int(lines["VmHWM"].split()[0])
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _classes(model: Model, images: np.ndarray, batch: int) -> list[int]:
    """The top-1 class of each image."""
    parts = [images[start : start + batch].copy() for start in range(0, len(images), batch)]
    logits = np.concatenate([model(part) for part in parts])
    if not np.isfinite(logits).all():
        raise VtzooError("its logits are not finite")
    return logits.argmax(1).tolist()


def _open_onnx(task: dict[str, Any]) -> tuple[Model, str]:
    classifier: Any = load(task["model"], backend="onnx", device=task["device"])
    device = "cuda" if "CUDAExecutionProvider" in classifier.session.get_providers() else "cpu"
    return lambda images: classifier.run(images)[0], device


def _open_torch(task: dict[str, Any]) -> tuple[Model, str]:
    """The zoo's torch classifier, in float32 or under autocast."""
    import torch

    classifier: Any = load(task["model"], backend="torch", device=task["device"])
    device = torch.device(classifier.device).type
    reduced = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[task["precision"]]
    if reduced is None:
        return lambda images: classifier.run(images)[0], device

    def model(images: np.ndarray) -> np.ndarray:
        with torch.autocast(device, reduced):
            return classifier.run(images)[0]

    return model, device


def _open_openvino(task: dict[str, Any]) -> tuple[Model, str]:
    """The ONNX file in OpenVINO, on the CPU."""
    import openvino  # pyright: ignore[reportMissingImports]  (optional)

    core = openvino.Core()
    if task["precision"] == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise VtzooError("this CPU has no bf16")
    # By default OpenVINO computes float32 in bf16 on a CPU that has it.
    hint = "bf16" if task["precision"] == "bf16" else "f32"
    compiled = core.compile_model(task["model"], "CPU", {"INFERENCE_PRECISION_HINT": hint})
    request, logits = compiled.create_infer_request(), compiled.output("logits")
    return lambda images: request.infer({"images": images})[logits].copy(), "cpu"


OPEN: dict[str, Callable[[dict[str, Any]], tuple[Model, str]]] = {
    "onnx": _open_onnx, "torch": _open_torch, "openvino": _open_openvino
}  # fmt: skip
