"""What is installed, what of it works, and what to do about the rest.

Nothing can crash this, because nothing that may be broken is imported here: what must be tried is tried in processes
of their own, all at once. Importing torch takes as long as all else together, so that by default it is looked at from
outside: its version, and whether its files are there. Only `everything` imports it, and asks it for CUDA.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from vtzoo.base import subprocess_runner
from vtzoo.doctor import caches, hardware, model, packages, runtime
from vtzoo.doctor.finding import Finding

__all__ = ["Finding", "examine"]


def examine(name: str, *, everything: bool = False) -> list[Finding]:
    """The findings, in groups; an error among them says that predicting on the CPU, with the model `name`, fails.

    `everything` imports every package there is, and looks whether torch can use CUDA: some seconds more.
    """
    checks: dict[str, Callable[[], list[Finding]]] = {
        "model": lambda: model.examine(name),
        "packages": lambda: packages.examine(everything=everything),
        "ONNX Runtime": runtime.onnxruntime,
        "torch": lambda: runtime.torch() if everything else [],
        "machine": hardware.examine,
        "caches": caches.examine,
        "environment": caches.environment,
    }
    order = ("packages", "ONNX Runtime", "torch", "machine", "caches", "environment", "model")
    with ThreadPoolExecutor(len(checks)) as pool:
        found = {group: pool.submit(_guarded, group, check) for group, check in checks.items()}
        return [finding for group in order for finding in found[group].result()]


def _guarded(group: str, check: Callable[[], list[Finding]]) -> list[Finding]:
    """The findings of a check; what it did not foresee is one, too."""
    try:
        return check()
    except Exception as error:
        return [
            Finding(group=group, name="this check", says=f"failed: {subprocess_runner.reason(error)}", state="warning")
        ]
