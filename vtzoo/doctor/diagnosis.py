"""Diagnoses this installation: packages, ONNX Runtime, torch, the machine, the caches and the embedded model.

Nothing that may be broken is imported in this process: new processes try it, all at once, so that no crash ends the
diagnosis. Importing torch takes as long as everything else together. By default only its version and its files are
checked; `everything` imports it and tries CUDA.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from vtzoo.base import subprocess_runner
from vtzoo.doctor import caches, hardware, model, packages, runtime
from vtzoo.doctor.finding import Finding


def diagnose(name: str, *, everything: bool = False) -> list[Finding]:
    """The findings, in groups. An error among them means that the model `name` cannot predict on the CPU.

    `everything` also imports every installed package, and checks whether torch can use CUDA: some seconds more.
    """
    checks: dict[str, Callable[[], list[Finding]]] = {  # the slowest first
        "model": lambda: model.check_model(name),
        "packages": lambda: packages.check_packages(everything=everything),
        "ONNX Runtime": runtime.check_onnxruntime,
        "torch": lambda: runtime.check_torch() if everything else [],
        "machine": hardware.check_hardware,
        "caches": caches.check_caches,
        "environment": caches.check_environment,
    }
    order = ("packages", "ONNX Runtime", "torch", "machine", "caches", "environment", "model")
    with ThreadPoolExecutor(len(checks)) as pool:
        pending = {group: pool.submit(_guarded, group, check) for group, check in checks.items()}
        return [finding for group in order for finding in pending[group].result()]


def _guarded(group: str, check: Callable[[], list[Finding]]) -> list[Finding]:
    """The findings of a check; an exception in it becomes a finding."""
    try:
        return check()
    except Exception as error:
        says = f"failed: {subprocess_runner.one_line(error)}"
        return [Finding(group=group, name="this check", says=says, state="warning")]
