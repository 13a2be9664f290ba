"""Checks which devices ONNX Runtime and torch really compute on, whatever devices they list."""

import contextlib
import ctypes
import io
import sys
from pathlib import Path
from typing import Any

from vtzoo.base import machine, subprocess_runner
from vtzoo.doctor.finding import Finding
from vtzoo.doctor.packages import is_installed

GROUP = "ONNX Runtime"
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
# y = Relu(x), x float32 (n,), as serialized by onnx.helper in opset 13. Every provider implements this operator.
GRAPH = bytes.fromhex(
    "080712003a350a0c0a0178120179220452656c751201675a100a0178120b0a09"
    "080112050a0312016e62100a0179120b0a09080112050a0312016e42040a00100d"
)


def check_onnxruntime() -> list[Finding]:
    """A finding on each provider that ONNX Runtime lists: whether a session really runs on it."""
    if not is_installed("onnxruntime"):
        return [Finding(group=GROUP, name=CPU, says="ONNX Runtime is not installed", state="error")]
    outcome = subprocess_runner.run(try_providers)
    findings = [_provider_finding(name, why) for name, why in outcome.messages]
    if outcome.error:
        advice = "install it again: see the group packages"
        findings += [Finding(group=GROUP, name="sessions", says=outcome.error, state="error", advice=advice)]
    return findings


def _provider_finding(name: str, why: str | None) -> Finding:
    """The finding on a provider; `why` is the reason that it does not run, or None."""
    if why is None:
        return Finding(group=GROUP, name=name, says="loads and computes")
    if name == CPU:
        advice = "install ONNX Runtime again: see the group packages"
        return Finding(group=GROUP, name=name, says=f"fails: {why}", state="error", advice=advice)
    says = f"listed, but does not load: {why}"
    if name != CUDA or not machine.has_driver():  # nothing here needs it
        return Finding(group=GROUP, name=name, says=says, state="absent")
    advice = 'pip install "onnxruntime-gpu[cuda,cudnn]", or install a torch built for the same CUDA'
    return Finding(group=GROUP, name=name, says=says, state="warning", advice=advice)


def try_providers(_: None, send: subprocess_runner.Send) -> None:
    """Send each listed provider, and why it does not run, or None. Runs in a new process."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)  # fatal; errors are sent instead
    listed = onnxruntime.get_available_providers()
    if CUDA in listed and machine.has_driver():
        with contextlib.redirect_stdout(io.StringIO()):  # it prints errors to stdout
            onnxruntime.preload_dlls()
    for name in listed:
        send([name, _why_not(onnxruntime, name)])


def _why_not(onnxruntime: Any, name: str) -> str | None:
    """Why a session does not run on the provider; None if it does."""
    import numpy as np

    if name == CUDA and not machine.has_driver():
        return f"there is no NVIDIA driver ({machine.DRIVER})"
    try:
        session = onnxruntime.InferenceSession(GRAPH, providers=[name], enable_fallback=0)
        if name not in session.get_providers():
            return _missing_library(Path(onnxruntime.__file__).parent, name) or "its session runs on the CPU"
        (answer,) = session.run(None, {"x": np.array([-1, 2], np.float32)})
    except Exception as error:  # its errors share no other base
        return _missing_library(Path(onnxruntime.__file__).parent, name) or subprocess_runner.one_line(error)
    return None if answer.tolist() == [0, 2] else f"it computes {answer.tolist()} for max(0, x) of -1 and 2"


def _missing_library(package: Path, name: str) -> str | None:
    """The dynamic loader's error for a provider's library, which names the missing library; None if it loads."""
    kind = name.removesuffix("ExecutionProvider").lower()
    form = "onnxruntime_providers_{}.dll" if sys.platform == "win32" else "libonnxruntime_providers_{}.so"
    library = package / "capi" / form.format(kind)
    if not library.exists():
        return None
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        return str(error).replace(": No such file or directory", "")
    return None


def check_torch() -> list[Finding]:
    """A finding on torch's CUDA; none if torch is not installed. Importing torch takes seconds."""
    if not is_installed("torch"):
        return []
    outcome = subprocess_runner.run(try_torch)
    findings = [_torch_finding(message) for message in outcome.messages]
    if outcome.error:
        findings += [Finding(group="torch", name="CUDA", says=f"fails: {outcome.error}", state="warning")]
    return findings


def _torch_finding(message: dict[str, Any]) -> Finding:
    cuda, devices = message["cuda"], message["devices"]
    if devices:
        return Finding(group="torch", name="CUDA", says=f"{cuda} computes on {', '.join(devices)}")
    if not machine.has_driver():
        says = f"there is no NVIDIA driver ({machine.DRIVER})"
        return Finding(group="torch", name="CUDA", says=says, state="absent")
    built = f"built for CUDA {cuda}" if cuda else "built without CUDA"
    advice = "install a torch whose CUDA the driver supports: https://pytorch.org/get-started/locally"
    return Finding(
        group="torch", name="CUDA", says=f"torch finds no GPU, and is {built}", state="warning", advice=advice
    )


def try_torch(_: None, send: subprocess_runner.Send) -> None:
    """Send torch's version of CUDA, and the GPUs that it computes on. Runs in a new process."""
    import torch

    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    if devices:
        torch.ones(2, device="cuda").sum().item()
    send({"cuda": torch.version.cuda, "devices": devices})
