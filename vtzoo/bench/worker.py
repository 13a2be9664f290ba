"""What the processes do that `vtzoo bench` starts: each opens a model in one runtime, and measures that."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vtzoo.base import subprocess_runner
from vtzoo.errors import VtzooError
from vtzoo.predict.load import load

Answer = Callable[[np.ndarray], np.ndarray]  # uint8 (n, 3, height, width) to logits (n, classes)
LEAST = 3  # calls to time, however few seconds there are
STATUS = Path("/proc/self/status")


def measure(task: dict[str, Any], tell: subprocess_runner.Tell) -> None:
    """Tell the device and the peak of memory once one image is answered; then the seconds of every call, and classes.

    The moment of the first telling is the cold start.
    """
    images = np.load(task["images"], mmap_mode="r")
    answer, device = OPEN[task["runtime"]](task)
    answer(images[:1].copy())
    tell({"device": device, "memory": peak_memory()})
    batch = np.resize(images, (task["batch"], *images.shape[1:]))
    one = timed(answer, images[:1].copy(), task["seconds"])
    many = timed(answer, batch, task["seconds"])
    tell({"one": one, "batch": many, "classes": _classes(answer, images, task["batch"])})


def classify(task: dict[str, Any], tell: subprocess_runner.Tell) -> None:
    """Tell the class of each image."""
    answer, _ = OPEN[task["runtime"]](task)
    tell(_classes(answer, np.load(task["images"], mmap_mode="r"), task["batch"]))


def export(task: dict[str, Any], tell: subprocess_runner.Tell) -> None:
    """Write the model at a precision as one ONNX file."""
    from vtzoo.export.run import export_model

    precision = {} if task["precision"] == "fp32" else {"precision": task["precision"]}
    export_model(task["model"], Path(task["out"]), **precision)


def write_sample(task: dict[str, Any], tell: subprocess_runner.Tell) -> None:
    """Write the images that exports are verified on."""
    from vtzoo.export.run import sample_images

    np.save(task["out"], sample_images(task["size"]))


def describe(file: str, tell: subprocess_runner.Tell) -> None:
    """Tell what a bare .onnx file takes and gives."""
    classifier: Any = load(file, backend="onnx", device="cpu")
    facts = classifier.session.get_modelmeta().custom_metadata_map
    precision = facts.get("vtzoo.precision", "fp32")
    tell({"shape": classifier.preprocess.shape, "classes": len(classifier.labels), "precision": precision})


def timed(answer: Answer, images: np.ndarray, seconds: float) -> list[float]:
    """The seconds of each of the calls that fit in the time, at least three; one more before them is not counted."""
    answer(images)
    taken, end = [], time.perf_counter() + seconds
    while len(taken) < LEAST or time.perf_counter() < end:
        started = time.perf_counter()
        answer(images)
        taken.append(time.perf_counter() - started)
    return taken


def peak_memory() -> int:
    """The largest resident memory of this process so far, in bytes."""
    if STATUS.exists():  # what getrusage says there begins with the memory of the process that started this one
        lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
        return 1024 * int(lines["VmHWM"].split()[0])
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _classes(answer: Answer, images: np.ndarray, batch: int) -> list[int]:
    """The first class of each image."""
    parts = [images[start : start + batch].copy() for start in range(0, len(images), batch)]
    logits = np.concatenate([answer(part) for part in parts])
    if not np.isfinite(logits).all():
        raise VtzooError("it answers with values that are not finite")
    return logits.argmax(1).tolist()


def _open_onnx(task: dict[str, Any]) -> tuple[Answer, str]:
    classifier: Any = load(task["model"], backend="onnx", device=task["device"])
    device = "cuda" if "CUDAExecutionProvider" in classifier.session.get_providers() else "cpu"
    return lambda images: classifier.run(images)[0], device


def _open_torch(task: dict[str, Any]) -> tuple[Answer, str]:
    """The zoo's own classifier, in float32 or under autocast."""
    import torch

    classifier: Any = load(task["model"], backend="torch", device=task["device"])
    device = torch.device(classifier.device).type
    reduced = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[task["precision"]]
    if reduced is None:
        return lambda images: classifier.run(images)[0], device

    def answer(images: np.ndarray) -> np.ndarray:
        with torch.autocast(device, reduced):
            return classifier.run(images)[0]

    return answer, device


def _open_openvino(task: dict[str, Any]) -> tuple[Answer, str]:
    """The ONNX file in OpenVINO, on the CPU."""
    import openvino  # pyright: ignore[reportMissingImports]  (optional)

    core = openvino.Core()
    if task["precision"] == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise VtzooError("this CPU has no bf16")
    # Left to itself it takes bf16 for float32 wherever the CPU has it.
    hint = "bf16" if task["precision"] == "bf16" else "f32"
    compiled = core.compile_model(task["model"], "CPU", {"INFERENCE_PRECISION_HINT": hint})
    request, logits = compiled.create_infer_request(), compiled.output("logits")
    return lambda images: request.infer({"images": images})[logits].copy(), "cpu"


OPEN: dict[str, Callable[[dict[str, Any]], tuple[Answer, str]]] = {
    "onnx": _open_onnx, "torch": _open_torch, "openvino": _open_openvino
}  # fmt: skip
