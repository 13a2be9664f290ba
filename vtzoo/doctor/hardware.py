"""What the machine has for the models to run on."""

import os

from vtzoo.base import machine
from vtzoo.doctor.finding import Finding

GROUP = "machine"
FEW = 1e9  # bytes of memory; a prediction takes 0.4 of them


def examine() -> list[Finding]:
    """Findings on the processor, the cores that may be used, memory and NVIDIA's GPUs."""
    return [Finding(group=GROUP, name="processor", says=machine.processor()), _cores(), _memory(), _gpus()]


def _gpus() -> Finding:
    if names := machine.gpus():
        return Finding(group=GROUP, name="GPU", says=", ".join(names))
    says = "none that nvidia-smi tells of" if machine.has_driver() else f"no NVIDIA driver ({machine.DRIVER})"
    return Finding(group=GROUP, name="GPU", says=says, state="absent")


def _cores() -> Finding:
    usable, there, limit = machine.cores(), os.cpu_count() or 1, machine.core_limit()
    says = f"{usable} of {there}" if usable < there else str(there)
    if limit is None or limit >= usable:
        return Finding(group=GROUP, name="cores", says=says)
    advice = f"set OMP_NUM_THREADS={max(1, int(limit))}: more threads than cores wait for each other"
    says = f"{says}, of which the container may use {limit:g}"
    return Finding(group=GROUP, name="cores", says=says, state="warning", advice=advice)


def _memory() -> Finding:
    sizes, limit = machine.memory(), machine.memory_limit()
    if sizes is None:
        return Finding(group=GROUP, name="memory", says="not told by this system")
    total, free = sizes
    says = f"{total / 1e9:.1f} GB, {free / 1e9:.1f} GB available"
    if limit is not None and limit < total:
        says += f"; the container may use {limit / 1e9:.1f} GB"
    if min(free, limit or free) < FEW:
        advice = "close other programs, or give the container more: a prediction takes about 0.4 GB"
        return Finding(group=GROUP, name="memory", says=says, state="warning", advice=advice)
    return Finding(group=GROUP, name="memory", says=says)
