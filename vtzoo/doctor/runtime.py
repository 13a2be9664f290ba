"""What ONNX Runtime and torch can run on: not what they list, but what really loads and computes."""

import contextlib
import ctypes
import io
import sys
from pathlib import Path
from typing import Any

from vtzoo.base import machine, subprocess_runner
from vtzoo.doctor.finding import Finding
from vtzoo.doctor.packages import is_there

GROUP = "ONNX Runtime"
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
# y = Relu(x) on one float32, in ONNX's own form: made by onnx.helper, opset 13. A CUDA provider can be without some
# operators, but not without this one.
GRAPH = bytes.fromhex(
    "080712003a350a0c0a0178120179220452656c751201675a100a0178120b0a09"
    "080112050a0312016e62100a0179120b0a09080112050a0312016e42040a00100d"
)


def onnxruntime() -> list[Finding]:
    """A finding on each of the providers that ONNX Runtime lists: whether a session really runs on it."""
    if not is_there("onnxruntime"):
        return [Finding(group=GROUP, name=CPU, says="ONNX Runtime is not installed", state="error")]
    outcome = subprocess_runner.run(try_providers)
    findings = [_judge(name, why) for name, why in outcome.told]
    if outcome.error:
        advice = "install it again: see the group packages"
        findings += [Finding(group=GROUP, name="sessions", says=outcome.error, state="error", advice=advice)]
    return findings


def _judge(name: str, why: str | None) -> Finding:
    """The finding on a provider that does not load for the reason `why`, or does."""
    if why is None:
        return Finding(group=GROUP, name=name, says="loads, and computes")
    if name == CPU:
        advice = "install ONNX Runtime again: see the group packages"
        return Finding(group=GROUP, name=name, says=f"fails: {why}", state="error", advice=advice)
    says = f"listed, and does not load: {why}"
    if name != CUDA or not machine.has_driver():  # nobody asked for it
        return Finding(group=GROUP, name=name, says=says, state="absent")
    advice = 'pip install "onnxruntime-gpu[cuda,cudnn]", or a torch that is made for the same CUDA'
    return Finding(group=GROUP, name=name, says=says, state="warning", advice=advice)


def try_providers(_: None, tell: subprocess_runner.Tell) -> None:
    """Tell each provider that is listed, and why it does not run, None where it does. Runs in a fresh process."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)  # fatal; what is wrong is told
    listed = onnxruntime.get_available_providers()
    if CUDA in listed and machine.has_driver():
        with contextlib.redirect_stdout(io.StringIO()):  # it prints its troubles there
            onnxruntime.preload_dlls()
    for name in listed:
        tell([name, _why_not(onnxruntime, name)])


def _why_not(onnxruntime: Any, name: str) -> str | None:
    """Why a session does not run on the provider; None where it does."""
    import numpy as np

    if name == CUDA and not machine.has_driver():
        return f"there is no NVIDIA driver ({machine.DRIVER})"
    try:
        session = onnxruntime.InferenceSession(GRAPH, providers=[name], enable_fallback=0)
        if name not in session.get_providers():
            return _missing_library(Path(onnxruntime.__file__).parent, name) or "its session runs on the CPU"
        (answer,) = session.run(None, {"x": np.array([-1, 2], np.float32)})
    except Exception as error:  # its errors share no base but Exception
        return _missing_library(Path(onnxruntime.__file__).parent, name) or subprocess_runner.reason(error)
    return None if answer.tolist() == [0, 2] else f"it computes that max(0, x) of -1 and 2 is {answer.tolist()}"


def _missing_library(package: Path, name: str) -> str | None:
    """What the dynamic loader says of a provider's library: it names what is missing."""
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


def torch() -> list[Finding]:
    """A finding on what torch computes on; none where it is not installed, or cannot be imported: that is said before.

    Importing it takes seconds.
    """
    if not is_there("torch"):
        return []
    outcome = subprocess_runner.run(try_torch)
    findings = [_judge_torch(told) for told in outcome.told]
    if outcome.error:
        findings += [Finding(group="torch", name="CUDA", says=f"fails: {outcome.error}", state="warning")]
    return findings


def _judge_torch(told: dict[str, Any]) -> Finding:
    if told["devices"]:
        return Finding(group="torch", name="CUDA", says=f"{told['cuda']} computes, on {', '.join(told['devices'])}")
    if not machine.has_driver():
        says = f"there is no NVIDIA driver ({machine.DRIVER})"
        return Finding(group="torch", name="CUDA", says=says, state="absent")
    made = f"made for CUDA {told['cuda']}" if told["cuda"] else "made without CUDA"
    advice = "install a torch whose CUDA the driver supports: https://pytorch.org/get-started/locally"
    return Finding(group="torch", name="CUDA", says=f"is not seen; torch is {made}", state="warning", advice=advice)


def try_torch(_: None, tell: subprocess_runner.Tell) -> None:
    """Tell which CUDA torch is made for, and the GPUs that it computes on. Runs in a fresh process."""
    import torch

    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    if devices:
        torch.ones(2, device="cuda").sum().item()
    tell({"cuda": torch.version.cuda, "devices": devices})
