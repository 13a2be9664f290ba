"""The machine's processor, cores, memory and GPUs, read with the standard library alone."""

import ctypes
import os
import platform
import sys
from contextlib import suppress
from pathlib import Path

PROCESSOR, MEMORY, CGROUP = Path("/proc/cpuinfo"), Path("/proc/meminfo"), Path("/sys/fs/cgroup")
UNLIMITED = 1 << 60  # bytes; without a limit, version 1 of cgroups gives a larger number
MEMORY_FILES = (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))
DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"


def processor() -> str:
    """The processor's name, or its architecture on a system that does not give the name."""
    with suppress(OSError):
        for line in PROCESSOR.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    if sys.platform == "darwin":
        return _output("sysctl", "-n", "machdep.cpu.brand_string") or platform.machine()
    return platform.processor() or platform.machine()


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def core_limit() -> float | None:
    """The container's CPU quota, in cores; None without a limit."""
    with suppress(OSError, ValueError):
        quota, period = (CGROUP / "cpu.max").read_text().split()
        return int(quota) / int(period)  # "max" is a ValueError
    with suppress(OSError, ValueError):
        quota, period = (int((CGROUP / "cpu" / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
        return quota / period if quota > 0 else None
    return None


def memory() -> tuple[int, int] | None:
    """Installed and available memory, in bytes, without regard to containers; None on a system that gives neither.

    A Unix other than Linux gives only the installed memory: half of it counts as available.
    """
    with suppress(OSError, ValueError, KeyError):
        lines = dict(line.split(":", 1) for line in MEMORY.read_text().splitlines())
        total, free = (1024 * int(lines[name].split()[0]) for name in ("MemTotal", "MemAvailable"))
        return total, free
    with suppress(OSError, ValueError, AttributeError):  # not Linux; not even Unix
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return total, total // 2
    return None


def memory_limit() -> int | None:
    """The container's memory limit, in bytes; None without a limit."""
    for file, _ in MEMORY_FILES:
        with suppress(OSError, ValueError):  # "max" is a ValueError
            limit = int((CGROUP / file).read_text())
            return limit if limit < UNLIMITED else None
    return None


def available_memory() -> int:
    """The bytes that this process may still allocate, within its container's limit; 0 on a system that does not say."""
    _, free = memory() or (0, 0)
    for files in MEMORY_FILES:
        with suppress(OSError, ValueError):
            limit, used = (int((CGROUP / file).read_text()) for file in files)
            return max(0, min(free, limit - used))
    return free


def has_driver() -> bool:
    """Whether NVIDIA's driver loads; CUDA needs it."""
    try:
        ctypes.CDLL(DRIVER)
    except OSError:
        return False
    return True


def gpus() -> list[str]:
    """The names of the NVIDIA GPUs, from nvidia-smi."""
    return _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader").splitlines() if has_driver() else []


def _output(*command: str) -> str:
    """A command's output; empty if the command is missing or fails."""
    import subprocess  # here: most callers only need cores or memory

    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
